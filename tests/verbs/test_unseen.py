"""Sources that a run never saw, from the flags to the report: held out of training, and in other data."""

import json
from pathlib import Path

import cv2
import pandas as pd
import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.data.sample import Sample, write
from tfdetect.evaluation import seen

pytestmark = pytest.mark.usefixtures("light")
SOURCES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Manifest of 40 scenes, each real and fake; the fakes are of four sources."""
    table = write(Sample("image", count=40, size=32), tmp_path_factory.mktemp("unseen") / "set")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    number = rows["group"].str.removeprefix("scene-").astype(int)
    rows["source"] = [SOURCES[k % 4] if label == "1" else "camera" for k, label in zip(number, rows["label"], strict=True)]
    rows.to_csv(table, index=False)
    return table


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def run(path, name, *flags, code=0):
        argv = ["train", "cnn", "--data.path", str(path), "--name", name, "--data.size", "32", "--train.epochs", "1",
                "--train.batch", "8", "--detector.width", "4", "--data.cache_dir", str(folder / "cache")]  # fmt: skip
        assert cli.main([*argv, "--out", str(folder), *flags]) == code
        return Artifact(folder / name)

    return run


@pytest.fixture(scope="module")
def run(data, train):
    return train(data, "run")


@pytest.fixture
def other(tmp_path):
    """Manifest of 12 other scenes, each real and fake."""
    return write(Sample("image", count=12, size=32, seed=5), tmp_path / "other")


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]


def test_the_report_begins_with_both_figures(run):
    found, (_, held_out) = metrics(run.folder), artifacts.load_config(run).data.hold_out
    assert found["unseen"]["sources"] == [held_out] and sorted(found["seen"]["sources"]) == sorted({*SOURCES} - {held_out})
    assert found["unseen"]["auc"] == found["by_source"][held_out]["auc"]
    text = seen.sentence(found)
    assert f"on those of {held_out}, which it never saw." in text and f'<p class="lead">{text} ' in run.report.read_text()
    assert [name for name, row in found["by_source"].items() if row["in_training"]] == found["seen"]["sources"]
    table = pd.read_csv(run.manifest)
    assert set(table.loc[table["source"] == held_out, "split"]) == {"test"}


def test_evaluating_it_again_says_the_same(run, capsys):
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert " ".join(seen.sentence(metrics(run.folder)).split()) in " ".join(capsys.readouterr().out.split())
    assert metrics(run.folder / "evaluations" / "own_test")["unseen"] == metrics(run.folder)["unseen"]


def test_the_config_repeats_the_run_with_the_same_source_held_out(run):
    again = config.parse(["--config", str(run.config), "--name", "run", "--out", str(run.folder.parent), "--resume"], "t")
    assert artifacts.select_folder(again) == (run, True) and again.data.hold_out[0] == "auto"


def test_sources_of_other_data_are_compared_with_those_of_training(run, other, tmp_path, capsys):
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    (_, held_out) = artifacts.load_config(run).data.hold_out
    trained = next(name for name in SOURCES if name != held_out)
    names = [trained.upper(), "omega", "fake"]
    rows["source"] = [names[k // 2 % 3] if label == "1" else "camera" for k, label in enumerate(rows["label"])]
    rows.to_csv(other, index=False)
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(other), "--out", str(tmp_path / "out")]) == 0
    found = metrics(tmp_path / "out")
    assert [found[name]["sources"] for name in ("seen", "unseen", "unknown")] == [[trained.upper()], ["omega"], ["fake"]]
    assert "on those of omega, which it never saw;" in " ".join(capsys.readouterr().out.split())


def test_without_a_source_held_out_the_report_says_so(data, train, capsys):
    page = train(data, "all", "--data.hold_out", "none", "--train.epochs", "0").report.read_text()
    assert "measured only on fakes of sources it was trained on (alpha, beta, delta and gamma)" in page
    assert train(data, "wrong", "--data.hold_out", "alhpa", code=2)
    assert "No fakes have the source 'alhpa'. Perhaps you meant alpha." in capsys.readouterr().err


def add_file(table, name, path, quality=None):
    """Add to the data set of a manifest a copy of an image under another name, or with a quality another encoding of it."""
    target = table.parent / name
    target.write_bytes(path.read_bytes()) if quality is None else cv2.imwrite(str(target), cv2.imread(str(path)), [1, quality])
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    added = {"path": name, "label": str(int("/fake/" in str(path))), "group": name, "source": "found"}
    pd.concat([rows, pd.DataFrame([added])]).fillna("").to_csv(table, index=False)


def training_files(run, count):
    table = pd.read_csv(run.manifest)
    return [Path(path) for path in table.loc[table["split"] == "train", "path"][:count]]


def test_test_files_that_were_in_training_are_refused_with_the_list(run, other, tmp_path, capsys):
    first, second = training_files(run, 2)
    add_file(other, "copy.jpg", first)
    add_file(other, "again.jpg", second, 90)
    argv = ["evaluate", str(run.folder), "--data.path", str(other), "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "1 of 26 files were used to train this run, and 1 more look like such files" in message
    assert f"copy.jpg (same content as {first})" in message and "--overlap drop" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["training_overlap.csv"]
    rows = pd.read_csv(tmp_path / "out" / "training_overlap.csv").set_index("path")
    assert dict(rows["reason"]) == {str(other.parent / name): reason for name, reason in
                                    (("copy.jpg", "same content"), ("again.jpg", "near duplicate"))}  # fmt: skip
    assert list(rows["training_file"]) == [str(first), str(second)]
    assert cli.main([*argv, "--overlap", "drop"]) == 0
    assert metrics(tmp_path / "out")["n"] == 24 and "they are left out here, and listed in" in capsys.readouterr().out
    assert "1 of 26 files were used to train this run" in (tmp_path / "out" / "report.html").read_text()
    assert len(pd.read_csv(tmp_path / "out" / "training_overlap.csv")) == 2


def test_the_whole_data_set_is_no_test_set_with_leaks(run, data, tmp_path):
    """Of the data that a run was trained on, what was not used is evaluated, as before; the rest is listed."""
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(data), "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_csv(tmp_path / "out" / "training_overlap.csv")
    assert metrics(tmp_path / "out")["n"] == 80 - len(rows) == metrics(run.folder)["n"]
    assert set(rows["reason"]) == {"same content", "same group"}


def test_own_test_files_are_not_compared_with_training_files(run, monkeypatch):
    monkeypatch.setattr("tfdetect.data.audit.duplicates.find_near_pairs_across_splits", None)
    assert cli.main(["evaluate", str(run.folder), "--out", str(run.folder / "own")]) == 0
    assert not (run.folder / "own" / "training_overlap.csv").exists()


def test_without_the_clips_of_the_training_a_warning_says_what_was_not_compared(run, other, tmp_path, monkeypatch, capsys):
    add_file(other, "again.jpg", training_files(run, 1)[0], 90)
    monkeypatch.setattr("tfdetect.data.prepare.clip_cache.Cache.find", lambda cache, shas: set())
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(other), "--out", str(tmp_path / "out")]) == 0
    assert "Near duplicates of training files were not looked for" in (tmp_path / "out" / "report.html").read_text()


def test_near_duplicates_across_given_splits_are_refused_with_the_list(other, train, capsys):
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    number = rows["group"].str.removeprefix("scene-").astype(int)
    rows["split"] = ["train" if k < 7 else "val" if k < 9 else "test" for k in number]
    rows.to_csv(other, index=False)
    original = other.parent / rows["path"][0]
    add_file(other, "again.jpg", original, 90)
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    rows.assign(split=rows["split"].where(rows["split"] != "", "test")).to_csv(other, index=False)
    folder = train(other, "refused", "--train.epochs", "0", code=2).folder
    message = " ".join(capsys.readouterr().err.split())
    assert f"1 test file looks like training files of other groups, e.g. {other.parent / 'again.jpg'} and {original}" in message
    listed = Path(message.partition("All are listed in ")[2].partition(".csv")[0] + ".csv")
    assert list(pd.read_csv(listed)["training_file"]) == [str(original)] and not folder.exists()
    dropped = train(other, "dropped", "--train.epochs", "0", "--data.near_duplicates", "drop")
    table = pd.read_csv(dropped.manifest)
    assert len(table) == 23 and not (table["group"] == "scene-00000").any() and (table["path"].str.endswith("again.jpg")).any()
    kept = train(other, "kept", "--train.epochs", "0", "--data.near_duplicates", "keep")
    assert len(pd.read_csv(kept.manifest)) == 25 and "the result on them may be memorised" in kept.report.read_text()
