"""Ensembles: all runs score the same files, each as by itself, and the mean has a threshold from validation."""

import itertools
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.evaluation import calibration, predictions
from tfdetect.evaluation.calibration import youden_threshold
from tfdetect.evaluation.ensemble import average
from tfdetect.workflow import ensemble

pytestmark = pytest.mark.usefixtures("light")
SETTINGS = ["--data.frames", "4", "--train.epochs", "1", "--train.batch", "8", "--detector.width", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folder")


def train(folder, path, name, detector="cnn", *flags):
    where = ["--data.path", str(path), "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs"), "--name", name]
    own = SETTINGS if detector == "cnn" else SETTINGS[:-2]
    assert cli.main(["train", detector, *where, *own, "--data.size", "32", *flags]) == 0
    return Artifact(folder / "runs" / name)


@pytest.fixture(scope="module")
def first(videos, folder):
    """An image detector, trained on videos whose paths are relative."""
    before = os.getcwd()
    os.chdir(videos.parent)
    try:
        return train(folder, videos.name, "first")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def second(videos, folder):
    """Another seed, and other clips of the same videos."""
    return train(folder, videos, "second", "cnn", "--train.seed", "1", "--data.size", "24", "--data.frames", "3")


@pytest.fixture(scope="module")
def clips(videos, folder):
    return train(folder, videos, "clips", "cnn_lstm")


@pytest.fixture(scope="module")
def stills(images, folder):
    """A run that shares no file with the others."""
    return train(folder, images, "stills")


def evaluate(*argv):
    return cli.main(["evaluate", *map(str, argv)])


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def alone(first, second, clips):
    """Folders of the evaluations of each run by itself."""
    assert [evaluate(run.folder) for run in (first, second, clips)] == [0, 0, 0]
    return {run.folder.name: run.folder / "evaluations" / "own_test" for run in (first, second, clips)}


@pytest.fixture(scope="module")
def both(first, second, tmp_path_factory):
    """Folder of the evaluation of two runs together."""
    out = tmp_path_factory.mktemp("both") / "both"
    assert evaluate(first.folder, second.folder, "--out", out) == 0
    return out


@pytest.mark.parametrize("names", [("first", "clips"), ("clips", "second", "first")])
def test_each_run_scores_as_by_itself_and_the_mean_is_added(names, alone, request, capsys):
    runs = [request.getfixturevalue(name) for name in names]
    assert evaluate(*(run.folder for run in runs)) == 0
    output = capsys.readouterr().out
    out = runs[0].folder / "evaluations" / "+".join(names)
    result, table = metrics(out), predictions.read(out / "predictions.csv")
    assert "8 test files are common to all runs (8 of" in output and "\nmean: AUC" in output
    assert set(result) == {"members", "comparisons", "test", "validation", "threshold_rule"}
    assert set(result["members"]) == set(names)
    for name in names:
        by_itself = metrics(alone[name])["test"]
        of_files = {"shortcut_intervals": by_itself["shortcut_intervals"]}
        assert {**result["members"][name], **of_files} == by_itself and "shortcut_intervals" in result["test"]
        files = predictions.by_file(predictions.read(alone[name] / "predictions.csv")).set_index("path")
        assert table[name].tolist() == files.loc[table["path"], "probability"].tolist()
        assert f"\n{name}: AUC" in output
    np.testing.assert_allclose(table["probability"], table[[*names]].mean(axis=1))
    assert result["test"]["n"] == len(table) == 8 and (out / "plots" / "roc.png").exists()
    page = (out / "report.html").read_text()
    pairs = {(row["first"], row["second"]) for row in result["comparisons"]}
    assert pairs == {*itertools.combinations([*names, "mean"], 2)}
    assert f"\n{names[0]} against {names[1]}: difference of AUC" in output
    aucs = {name: row["auc"] for name, row in result["members"].items()} | {"mean": result["test"]["auc"]}
    for row in result["comparisons"]:
        assert row["difference"] == pytest.approx(aucs[row["first"]] - aucs[row["second"]])
    assert "Differences between runs" in page and "Runs and combinations, cross-fitted on these files" in page
    assert "Runs of this ensemble" in page and "<td>mean</td>" in page and 'role="alert"' not in page


def test_only_the_run_whose_threshold_has_seen_its_test_is_marked(first, second, tmp_path, capsys):
    shutil.copytree(second.folder, tmp_path / "pooled", ignore=shutil.ignore_patterns("SHA256SUMS"))
    output = second.config.read_text().replace("threshold: youden", "threshold: pooled_test_quantile:0.8")
    (tmp_path / "pooled" / "config.yaml").write_text(output)
    assert evaluate(first.folder, tmp_path / "pooled", "--out", tmp_path / "both") == 0
    marked = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "has seen the test set" in line]
    assert marked == ["pooled"] and metrics(tmp_path / "both")["threshold_rule"] == "youden"
    assert "pooled: THE THRESHOLD HAS SEEN THE TEST SET" in (tmp_path / "both" / "report.html").read_text()


def test_threshold_of_the_mean_comes_from_the_common_validation_files(first, second, both):
    validation = []
    for run in (first, second):
        files = predictions.by_file(predictions.read(run.predictions))
        files["name"] = files["path"].map(lambda path: "/".join(path.split("/")[-2:]))
        validation.append(files[files["split"] == "validation"].set_index("name"))
    assert not os.path.isabs(validation[0]["path"].iloc[0]) and os.path.isabs(validation[1]["path"].iloc[0])
    mean = (validation[0]["probability"] + validation[1]["probability"].loc[validation[0].index]) / 2
    result = metrics(both)
    expected = youden_threshold(mean.to_numpy(), validation[0]["label"].to_numpy())
    assert result["test"]["threshold"] == pytest.approx(expected, abs=1e-12)
    assert result["validation"]["n"] == len(validation[0])


def test_flags_of_verdicts_refit_each_run_and_the_mean(first, second, tmp_path, capsys):
    given = {"fpr": "0.5", "coverage": "0.5", "prevalence": "0.1", "calibration": "platt"}
    flags = [word for name, value in given.items() for word in (f"--evaluate.{name}", value)]
    assert evaluate(first.folder, second.folder, *flags, "--out", tmp_path / "both") == 0
    result = metrics(tmp_path / "both")
    tables = [predictions.by_file(predictions.read(run.predictions)) for run in (first, second)]
    tables = [table[table["split"] == "validation"].assign(path=lambda rows: rows["path"].str.extract("([^/]*/[^/]*)$"))
              for table in tables]  # fmt: skip
    fitted = [calibration.fit(table["score"], table["label"], groups=table["group"]) for table in tables]
    tables = [table.assign(log_odds=fit.log_odds(table["score"]), probability=fit.probability(table["score"]))
              for table, fit in zip(tables, fitted, strict=True)]  # fmt: skip
    for name, table in zip(("first", "second"), tables, strict=True):
        cut = calibration.quantile_threshold(table["probability"][table["label"] == 0].to_numpy(), 0.5)
        assert result["members"][name]["threshold"] == pytest.approx(cut, abs=1e-9)
        assert result["members"][name]["verdicts"]["level"] == 0.5 and result["members"][name]["verdicts"]["method"] == "platt"
    mean = average(dict(zip("ab", tables, strict=True)), by=["path"])
    real = (mean["label"] == 0).to_numpy()
    threshold, verdicts = result["test"]["threshold"], result["test"]["verdicts"]
    assert (mean["probability"][real] >= threshold).mean() <= 0.5 and result["threshold_rule"] == "fpr:0.5"
    assert threshold == pytest.approx(calibration.quantile_threshold(mean["probability"][real].to_numpy(), 0.5), abs=1e-9)
    assert verdicts["level"] == 0.5 and verdicts["prevalence"] == 0.1
    capsys.readouterr()
    assert evaluate(first.folder, second.folder, "--evaluate.coverage", "0.999", "--out", tmp_path / "none") == 2
    assert "A coverage of 0.999 needs" in capsys.readouterr().err


def test_other_files_exclude_those_that_any_run_was_trained_on(first, stills, images, videos, tmp_path, capsys):
    assert evaluate(first.folder, stills.folder, "--data.path", images, "--out", tmp_path / "out") == 0
    assert "32 of 40 files were used to train one of these runs" in capsys.readouterr().out
    result, page = metrics(tmp_path / "out"), (tmp_path / "out" / "report.html").read_text()
    assert result["test"]["n"] == 8 and result["test"]["threshold"] == 0.5 and "validation" not in result
    assert "0 validation files in common" in page and "32 of 40 files" in page


def test_a_file_that_one_run_cannot_read_is_a_failure(first, second, images, tmp_path, monkeypatch, capsys):
    for kind in ("real", "fake"):
        shutil.copytree(images / kind, tmp_path / "set" / kind)
    (tmp_path / "set" / "real" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    gone = str(sorted((tmp_path / "set" / "fake").iterdir())[0])
    original = ensemble.decode

    def decode(name, table, member, excluded):
        out = original(name, table, member, excluded)
        out.loc[(out["path"] == gone) & (name == "second"), ["error", "sha"]] = ["no face", ""]
        return out

    monkeypatch.setattr(ensemble, "decode", decode)
    assert evaluate(first.folder, second.folder, "--data.path", tmp_path / "set", "--out", tmp_path / "out") == 0
    result, page = metrics(tmp_path / "out"), (tmp_path / "out" / "report.html").read_text()
    assert {part["n"] for part in (result["test"], *result["members"].values())} == {39}
    assert gone not in set(predictions.read(tmp_path / "out" / "predictions.csv")["path"])
    assert "second: no face" in page and "2 files could not be read or scored" in page


def with_manifest(run, folder, change):
    """Return a copy of the run with a changed manifest."""
    shutil.copytree(run.folder, folder)
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(folder / "manifest.csv", index=False)
    return folder


def test_only_common_test_files_are_scored_and_names_may_repeat(first, tmp_path, capsys):
    def fewer(table):
        return table.drop(index=table[(table["split"] == "test") & (table["label"] == "0")].index[:1])

    other = with_manifest(first, tmp_path / "first", fewer)
    assert evaluate(first.folder, other) == 0
    text = "7 test files are common to all runs (8 of first and 7 of first_2)."
    assert text in capsys.readouterr().out
    (out,) = (first.folder / "evaluations").glob("first+first_2-own_test-*")
    assert text in (out / "report.html").read_text() and metrics(out)["test"]["n"] == 7
    table = predictions.read(out / "predictions.csv")
    assert table["first"].tolist() == table["first_2"].tolist() == table["probability"].tolist()


def test_mistakes_are_reported_in_one_line(first, second, stills, images, tmp_path, capsys):
    def turned(table):
        return table.assign(label=(table["label"] == "0").astype(int))

    def later(table):
        return table.assign(split=table["split"].replace({"test": "train", "train": "test"}))

    (tmp_path / "empty").mkdir()
    cases = {
        (first.folder, second.folder, first.folder / ".." / "first"): "was given twice",
        (first.folder, tmp_path / "empty"): "No run folder",
        (first.folder, stills.folder): "no test file in common",
        (first.folder, with_manifest(first, tmp_path / "later", later)): "no test file in common",
        (first.folder, with_manifest(first, tmp_path / "turned", turned)): "disagree on the labels of 8 test files",
        (): "No run given",
    }
    for argv, output in cases.items():
        assert evaluate(*argv) == 2
        err = capsys.readouterr().err
        assert output in err and len(err.strip().splitlines()) == 1, err


def test_runs_with_different_class_folders_need_a_flag(first, tmp_path, images, capsys):
    other = shutil.copytree(first.folder, tmp_path / "other")
    text = (other / "config.yaml").read_text()
    assert "fake:\n  - fake\n" in text or "fake: [fake]" in text
    (other / "config.yaml").write_text(text.replace("- fake\n", "- made\n").replace("[fake]", "[made]"))
    assert evaluate(first.folder, other, "--data.path", images, "--trust") == 2
    assert "name the fake class folders" in capsys.readouterr().err


def test_relative_paths_of_predictions_are_matched_with_the_manifest():
    known = ["/home/me/set/real/1.mp4", "/home/me/set/real/set/real/1.mp4", "/home/me/set/fake/22.mp4"]
    assert ensemble.absolute_paths(["set/real/1.mp4", "set/fake/22.mp4"], known) == [known[0], known[2]]
    assert ensemble.absolute_paths(known[:1], known) == known[:1]


def test_every_run_scores_corrupted_clips(first, second):
    """brightness(255) makes all clips white, so all scores of a run are equal."""
    assert cli.main(["evaluate", str(first.folder), str(second.folder), "--data.corrupt", "brightness(255)"]) == 0
    folder = first.folder / "evaluations" / "first+second-brightness_255"
    table = predictions.read(folder / "predictions.csv")
    assert table["first"].nunique() == table["second"].nunique() == 1
    assert "corrupted before they were scored" in (folder / "report.html").read_text()
