"""calibrate and train --from: a new version of a run from files of one's own, while the old one stays as it was."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml

import tfdetect
from tfdetect import artifact as artifacts
from tfdetect import cli, config, hashes, models, versions
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.data.sample import Sample, write
from tfdetect.evaluation import calibration, predictions
from tfdetect.evaluation.familiarity import Familiarity

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, light):
    """A detector trained on the embedded sample, with a band."""
    folder = tmp_path_factory.mktemp("calibrate")
    flags = ["--data.sample", "100", "--data.size", "32", "--train.epochs", "1", "--stress", "0", "--detector.width", "4"]
    assert cli.main(["train", "cnn", *flags, "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs")]) == 0
    return Artifact(folder / "runs" / "cnn")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """25 real and 25 fake images of another seed."""
    return write(Sample("image", count=25, size=32, seed=7), tmp_path_factory.mktemp("mine") / "set").parent


@pytest.fixture(scope="module")
def calibrated(trained, mine, tmp_path_factory):
    """A second version, with a coverage of 0.8, beside the first, and what was printed."""
    run = Artifact(shutil.copytree(trained.folder, tmp_path_factory.mktemp("calibrated") / "cnn"))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        calibrate(run.folder, "--data.path", mine, "--evaluate.coverage", "0.8", *PLATT)
    return run, out.getvalue()


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may change."""
    return Artifact(shutil.copytree(trained.folder, tmp_path / "cnn"))


def call(*argv, code=0):
    """Run a command and check its exit code."""
    try:
        found = cli.main([str(word) for word in argv])
    except SystemExit as stop:  # from the parser of the flags
        found = stop.code
    assert found == code


calibrate = partial(call, "calibrate")
PLATT = ("--evaluate.calibration", "platt")  # choosing a method takes a third of the time


def fine_tune(run, mine, *flags, code=0):
    call("train", "--from", run.folder, "--data.path", mine, "--stress", "0", *flags, code=code)


def predict(capsys, folder, paths):
    """Return the scores, probabilities and verdicts on files."""
    capsys.readouterr()
    assert cli.main(["predict", str(folder), *paths, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [(row["score"], row["probability"], row["label"], row["verdict"]) for row in rows]


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def own_scores(run):
    table = predictions.read(run.predictions)
    return predictions.file_scores(table[table["split"] == "validation"])


def test_a_new_version_is_fitted_to_the_files_and_the_old_one_stays(trained, calibrated, mine, capsys):
    paths = [str(path) for path in sorted((mine / "real").iterdir())[:3]]
    before, old, stored = predict(capsys, trained.folder, paths), tree(trained.folder), load_calibration(trained)
    run, out = calibrated
    assert "On your files: 25 real and 25 fake, 25 groups" in out and "On the run's own test files: 20 real and 20 fake" in out
    assert f"Version 2 of {run.folder} is in use; version 1 stays in {run.folder}/versions/1" in out
    first = run.folder / "versions" / "1"
    assert tree(first) == {name: text for name, text in old.items() if not name.startswith("logs/")}
    assert predict(capsys, first, paths) == before, "bit for bit"
    assert predict(capsys, run.folder, paths) == predict(capsys, run.folder / "versions" / "2", paths) != before
    own, fitted = own_scores(run), load_calibration(run)
    assert len(own) == 50 and own["path"].str.startswith(str(mine)).all()
    again = calibration.fit(own["score"], own["label"], "youden", "platt", own["group"], 0.8)
    assert fitted.band == again.band is not None
    assert (fitted.slope, fitted.intercept, fitted.threshold) == (again.slope, again.intercept, again.threshold)
    assert os.path.samefile(run.model, first / "model.keras"), "the model is the same, and takes no space twice"
    for number in "12":
        assert {"saved_model.pb", "assets.extra"} <= {path.name for path in (run.folder / number).iterdir()}
    for place in (run.folder, first, run.folder / "versions" / "2"):
        assert 'base_path: "/models/cnn"' in (place / "models.config").read_text(), "whatever the version"
    written = [folder / hashes.NAME for folder in (run.folder, first, run.folder / "versions" / "2")]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() == hashes.model_hash(path.parent) for path in written] == [True] * 3
    assert written[0].read_text() == written[2].read_text() != written[1].read_text()
    text = run.config.read_text()
    adapted = yaml.safe_load(text)["adapted"]
    assert adapted == {"version": 2, "by": "calibrate", "from": 1, "data": str(mine)} and str(mine) in text.splitlines()[0]
    assert yaml.safe_load(text)["evaluate"]["coverage"] == 0.8
    report = run.report.read_text()
    assert "Before and after" in report and "cnn, version 2" in report and "cross-fitting" in report and str(mine) in report
    check_figures(run, stored, own)
    low, _ = json.loads(run.metrics.read_text())["adapted"]["files"]["own"]["figures"]["auc"]["before_interval"]
    assert ("may rank your files no better than chance" in report) == (low <= 0.5)
    assert Familiarity.load(run.familiarity).groups == 25 and not Artifact(first).familiarity.exists()
    assert 0 <= json.loads(run.metrics.read_text())["adapted"]["files"]["own"]["figures"]["unfamiliar"]["after"] < 0.25


def check_figures(run, stored, own):
    """Check the figures before and after against predictions.csv and the calibrations."""
    found = json.loads(run.metrics.read_text())
    parts = found["adapted"]["files"]
    assert found["adapted"]["before"] == "cnn" and {*parts} == {"own", "run_test"}
    fitted = load_calibration(run)
    table = predictions.read(run.predictions)
    test = predictions.file_scores(table[table["split"] == "test"])
    for part, files in ((parts["own"], own), (parts["run_test"], test)):
        before = part["figures"]["accuracy"]["before"]
        assert before == pytest.approx(((stored.probability(files["score"]) >= stored.threshold) == files["label"]).mean())
        assert {"auc", "log_loss", "brier", "accuracy", "inconclusive", "real_coverage"} <= {*part["figures"]}
        assert part["figures"]["auc"]["change"] == 0 and len(part["figures"]["log_loss"]["change_interval"]) == 2
    after = parts["run_test"]["figures"]["accuracy"]["after"]
    assert after == pytest.approx(((fitted.probability(test["score"]) >= fitted.threshold) == test["label"]).mean())
    assert found["test"]["n"] == 40, "the run's own test files"
    was = json.loads(Artifact(run.folder / "versions" / "1").metrics.read_text())["test"]
    assert {name: found["test"]["by_source"][name]["in_training"] for name in was["by_source"]} == \
        {name: row["in_training"] for name, row in was["by_source"].items()} and found["test"]["seen"]["auc"] == \
        was["seen"]["auc"], "what calibrates trains nothing"  # fmt: skip


def test_an_interruption_leaves_no_version(run, mine, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        before = tree(run.folder)
        patch.setattr("tfdetect.workflow.results.write", interrupt)
        calibrate(run.folder, "--data.path", mine, *PLATT, code=130)
        assert "interrupted; the same command starts over" in capsys.readouterr().err
        assert tree(run.folder) == before and not (run.folder / "versions").exists()


def test_versions_are_counted_listed_and_used(calibrated, mine, tmp_path, capsys):
    run = Artifact(shutil.copytree(calibrated[0].folder, tmp_path / "cnn"))
    detector = tfdetect.calibrate(run.folder, mine, fpr=0.2, calibration="platt")
    assert detector.folder == run.folder and versions.number(run.folder) == 3
    assert detector.metrics["adapted"]["before"] == "cnn, version 2" and detector.run.evaluate.coverage == 0.8
    assert detector.metrics["threshold_rule"] == "fpr:0.2" and detector.predictor.calibration == load_calibration(run)
    assert versions.listed(run.folder) == [1, 2, 3] and versions.adapted(run.folder)["from"] == 2
    report = run.report.read_text()
    assert "50 files calibrated cnn, version 2 as well, which flatters its figures" in report
    (row,) = tfdetect.runs(run.folder.parent).to_dict("records")
    assert row["versions"] == "1, 2, 3" and row["state"] == "finished"
    fitted = load_calibration(run)
    reals = own_scores(run).query("label == 0")["score"]
    assert (fitted.probability(reals) >= fitted.threshold).mean() <= 0.2
    assert cli.main(["export", str(run.folder)]) == 0 and cli.main(["evaluate", str(run.folder)]) == 0
    assert f"SavedModel  {run.folder / '3'}" in capsys.readouterr().out
    report = (run.folder / "evaluations" / "own_test" / "report.html").read_text()
    assert "<h1>cnn, version 3 on its own test files</h1>" in report
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(mine)]) == 2, "they chose the verdicts"
    assert "50 files were used to calibrate this run" in capsys.readouterr().err
    assert cli.main(["train", "cnn", "--name", "cnn", "--out", str(run.folder.parent), "--resume"]) == 2
    assert "has several versions" in capsys.readouterr().err


def test_files_of_the_run_itself_are_left_out(run, mine, capsys, tmp_path):
    rows = pd.read_csv(run.manifest)
    rows[["path", "label"]].to_csv(tmp_path / "all.csv", index=False)
    before = tree(run.folder)
    calibrate(run.folder, "--data.path", tmp_path / "all.csv", code=2)
    out, err = capsys.readouterr()
    assert "160 of 200 files were used to train this run" in out and "40 of 200 files are test files of this run" in out
    assert "No file is left: the run was trained or tested on all of them" in err
    assert tree(run.folder) == before and not (run.folder / "versions").exists()


def only(mine, tmp_path, **counts):
    """Copy that many files of each class."""
    for kind in ("real", "fake"):
        (tmp_path / "only" / kind).mkdir(parents=True)
        for path in sorted((mine / kind).iterdir())[: counts.get(kind, 0)]:
            shutil.copy(path, tmp_path / "only" / kind)
    return tmp_path / "only"


def test_reals_alone_set_the_threshold_but_no_probabilities(run, mine, tmp_path, capsys):
    stored, reals = load_calibration(run), only(mine, tmp_path, real=25)
    known = pd.read_csv(run.manifest).query("split == 'train' and label == 0")["path"].iloc[0]
    shutil.copy(known, reals / "real" / "known.jpg")
    calibrate(run.folder, "--data.path", reals, "--evaluate.fpr", "0.1")
    fitted, out = load_calibration(run), capsys.readouterr().out
    assert "1 of 26 files were used to train this run" in out and len(own_scores(run)) == 25
    assert (fitted.slope, fitted.intercept, fitted.curve) == (stored.slope, stored.intercept, stored.curve)
    assert (fitted.probability(own_scores(run)["score"]) >= fitted.threshold).mean() <= 0.1
    assert "All files given are real: the map to probabilities is still that of the version before" in out
    assert "log loss" not in out.partition("On the run's own")[0]


@pytest.mark.parametrize("counts, flags, message", [
    ({"fake": 25}, [], "All 25 files are fake"),
    ({"real": 25}, ["--evaluate.calibration", "platt"], "--evaluate.calibration need fakes as well"),
    ({"real": 25, "fake": 3}, [], "The fake files come from 3 groups"),
    ({"real": 25, "fake": 25}, ["--evaluate.coverage", "0.99"], "out of reach"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_one_sentence_and_changes_nothing(run, mine, tmp_path, capsys, counts, flags, message):
    before = tree(run.folder)
    calibrate(run.folder, "--data.path", only(mine, tmp_path, **counts), *flags, code=2)
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert tree(run.folder) == before


@pytest.mark.slow
def test_few_files_are_marked(run, mine, tmp_path, capsys):
    calibrate(run.folder, "--data.path", only(mine, tmp_path, real=25, fake=12))
    text = "Calibrated on 25 real and 12 fake files: with fewer than 20 of a class"
    assert text in capsys.readouterr().out and text in run.report.read_text()


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_test_split_of_the_data_set_chooses_nothing(run, mine, tmp_path):
    rows = pd.read_csv(mine / "manifest.csv")
    rows["path"] = [str(mine / path) for path in rows["path"]]
    test = rows["group"].isin(rows["group"].unique()[:8])
    rows.assign(split=np.where(test, "test", "train")).to_csv(tmp_path / "split.csv", index=False)
    calibrate(run.folder, "--data.path", mine)
    calibrate(run.folder / "versions" / "1", "--data.path", tmp_path / "split.csv")
    assert versions.number(run.folder) == 3 and versions.adapted(run.folder)["from"] == 1, "from the version that was named"
    table, own = predictions.read(run.predictions), own_scores(run)
    fitting = own[~own["path"].isin(rows.loc[test, "path"])]
    fitted = load_calibration(run)
    assert fitted.reals + fitted.fakes == len(fitting) == 34 and len(table) == 40 + 50
    again = calibration.fit(fitting["score"], fitting["label"], "youden", "auto", fitting["group"], 0.9)
    assert (fitted.slope, fitted.threshold) == (again.slope, again.threshold)
    assert "chose nothing; the new version is fitted to its other files" in run.report.read_text()


def test_fine_tuning_starts_from_the_weights_and_compares_new_and_old_files(run, mine, capsys):
    """Without an epoch, the new version has the model of the old one."""
    first, weights = tree(run.folder), models.load(run.model).get_weights()
    fine_tune(run, mine, "--train.epochs", "0", "--evaluate.coverage", "0")
    out = capsys.readouterr().out
    assert "Starting from cnn, with a learning rate of 0.0001" in out and "On the new test files: 6 real and 6 fake" in out
    assert "On the old test files: 20 real and 20 fake" in out and "Version 2 of" in out
    assert all(np.array_equal(*pair) for pair in zip(weights, models.load(run.model).get_weights(), strict=True))
    parts = json.loads(run.metrics.read_text())["adapted"]["files"]
    assert [parts[key]["figures"]["auc"]["change"] for key in ("new_test", "old_test")] == [0, 0]
    old = run.folder / "versions" / "1"
    assert tree(old) == {name: text for name, text in first.items() if not name.startswith("logs/")}
    content = yaml.safe_load(run.config.read_text())
    assert content["from"] == str(old) and content["adapted"] == {"version": 2, "by": "train", "from": 1, "data": str(mine)}
    assert content["train"]["learning_rate"] == pytest.approx(1e-4) and content["data"]["size"] == 32
    assert config.parse(["--config", str(run.config)], "train").from_run == old, "the command repeats it"
    rows = pd.read_csv(run.manifest)
    assert (rows["split"] == "test").sum() == 12 and len(rows) == 50 + 160, "the files of the first training count as used"
    report = run.report.read_text()
    assert "Before and after" in report and "The test files of cnn, as far as they still exist" in report


def test_an_interrupted_fine_tuning_leaves_the_run_as_it_was_and_goes_on(run, mine, monkeypatch, capsys, eager):
    before = tree(run.folder)
    with monkeypatch.context() as patch:
        patch.setattr("tfdetect.api.train.finish", interrupt)
        fine_tune(run, mine, "--train.epochs", "1", code=130)
    assert {name: text for name, text in tree(run.folder).items() if not name.startswith("versions/")} == before
    assert versions.listed(run.folder) == []
    with monkeypatch.context() as patch:
        patch.setattr("tfdetect.workflow.adaptation.publish", interrupt)
        fine_tune(run, mine, "--train.epochs", "1", code=130)
    assert f"Resuming {run.folder}/versions/next" in capsys.readouterr().out and versions.listed(run.folder) == []
    with artifacts.lock(Artifact(run.folder / "versions")):
        calibrate(run.folder, "--data.path", mine, code=2)
        assert "Another process is making a new version" in capsys.readouterr().err
    fine_tune(run, mine, "--train.epochs", "1")
    assert artifacts.find(run.folder) and artifacts.find(run.folder / "versions" / "1"), "with the hashes of their files"
    assert versions.listed(run.folder) == [1, 2] and not (run.folder / "versions" / "next").exists()
    kernels = [models.load(folder / "model.keras").get_weights()[0] for folder in (run.folder, run.folder / "versions" / "1")]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize("flags, message", [
    (["--detector.width", "8"], "--detector.width was 4 and is now 8"),
    (["--data.size", "64"], "--data.size was 32 and is now 64"),
])  # fmt: skip
def test_what_shapes_the_network_stays(run, mine, capsys, flags, message):
    before = tree(run.folder)
    fine_tune(run, mine, *flags, code=2)
    assert message in capsys.readouterr().err and tree(run.folder) == before


def test_fine_tuning_takes_files_that_the_run_has_not_seen(run, tmp_path, capsys):
    pd.read_csv(run.manifest)[["path", "label"]].to_csv(tmp_path / "all.csv", index=False)
    before = tree(run.folder)
    fine_tune(run, tmp_path / "all.csv", code=2)
    assert "No file is left: the run was trained or tested on all of them" in capsys.readouterr().err
    assert tree(run.folder) == before and not (run.folder / "versions").exists()


@pytest.mark.slow
def test_a_head_is_fitted_anew_on_old_and_new_files(mine, tmp_path, capsys):
    flags = ["--detector.preset", "tiny", "--data.sample", "40", "--data.size", "32", "--train.epochs", "3", "--stress", "0"]
    where = ["--data.cache_dir", tmp_path / "cache", "--out", tmp_path]
    assert cli.main([*map(str, ["train", "clip", *flags, *where])]) == 0
    run = Artifact(tmp_path / "clip")
    fine_tune(run, mine)
    out = capsys.readouterr().out
    rate = yaml.safe_load((run.folder / "versions" / "1" / "config.yaml").read_text())["train"]["learning_rate"]
    assert "56 of 56 old training files still exist" in out and f"with a learning rate of {rate:g}" in out
    rows = pd.read_csv(run.manifest)
    assert (rows["split"] == "train").sum() == 26 + 56 + 8, "half of the new files, the old training and validation files"
    shutil.rmtree(tmp_path / "cache")
    fine_tune(run, mine.parent / "gone", code=2)
    more = write(Sample("image", count=30, size=32, seed=9), tmp_path / "more").parent
    fine_tune(run, more, "--data.cache_dir", tmp_path / "new")
    out = capsys.readouterr().out
    assert "old training files still exist" in out and versions.number(run.folder) == 3


@pytest.mark.parametrize("argv, message", [(["calibrate", "nowhere", "--data.path", "x"], "No run folder 'nowhere'"),
                                           (["calibrate", "nowhere"], "add --data.path DIR"),
                                           (["train", "--from", "nowhere", "--data.path", "x"], "--from nowhere is no run"),
                                           (["train", "cnn", "--rehearse", "old"], "give it with --from RUN")])  # fmt: skip
def test_a_mistake_is_one_sentence(argv, message, capsys):
    call(*argv, code=2)
    assert message in re.sub(r"[│\s]+", " ", capsys.readouterr().err)
