"""--evaluate.calibration, .coverage, .fpr, .prevalence and .unfamiliar in train, predict and evaluate, on known files."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from tfdetect import cli, files
from tfdetect.api import load
from tfdetect.artifact import Artifact, load_calibration
from tfdetect.errors import UserError
from tfdetect.evaluation import calibration, predictions
from tfdetect.evaluation.familiarity import Familiarity
from tfdetect.verdict_settings import VerdictOverrides
from tfdetect.workflow import familiarity, operating_point, table_formats

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A detector trained on the embedded sample, 20 validation files of each class, with a band and a false positive rate."""
    folder = tmp_path_factory.mktemp("verdicts")
    flags = ["--data.sample", "200", "--data.size", "32", "--train.epochs", "2", "--stress", "0", "--detector.width", "4"]
    where = ["--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs")]
    assert cli.main(["train", "cnn", *flags, *where, "--evaluate.coverage", "0.8", "--evaluate.fpr", "0.1"]) == 0
    return Artifact(folder / "runs" / "cnn")


def validation(run):
    table = predictions.read(run.predictions)
    return predictions.file_scores(table[table["split"] == "validation"])


def test_training_stores_what_was_asked_for_and_reports_it(run):
    stored, rows = load_calibration(run), validation(run)
    fitted = calibration.fit(rows["score"], rows["label"], "fpr:0.1", "auto", rows["group"], 0.8)
    assert stored.method == fitted.method and stored.band.coverage == 0.8 and set(stored.losses) == {"temperature", "platt"}
    edges = [(each.band.fake_from, each.band.real_up_to) for each in (stored, fitted)]
    np.testing.assert_allclose(*edges, atol=1e-5)
    assert (stored.probability(rows["score"][rows["label"] == 0]) >= stored.threshold).mean() <= 0.1
    found = json.loads(run.metrics.read_text())
    assert found["threshold_rule"] == "fpr:0.1" and found["test"]["verdicts"]["level"] == 0.8
    test = predictions.by_file(predictions.read(run.predictions)).query("split == 'test'")
    known = Familiarity.load(run.familiarity)
    reasons = known.reasons(test["content_distance"], test["processing_distance"])
    verdicts = np.where(reasons == "", stored.verdicts(test["score"]), "inconclusive")
    assert found["test"]["verdicts"]["inconclusive"] == pytest.approx((verdicts == "inconclusive").mean())
    for kind, own, other in ((0, "real", "fake"), (1, "fake", "real")):
        wrong = found["test"]["verdicts"]["by_class"][own]["wrong"]
        assert wrong == pytest.approx((verdicts[test["label"] == kind] == other).mean())
    assert "<h2>Verdicts</h2>" in run.report.read_text() and "at most 20 %" in (run.folder / "SERVING.md").read_text()


def test_predict_prints_and_writes_the_verdicts_that_its_flags_ask_for(run, tmp_path, capsys):
    paths = predictions.read(run.predictions)["path"].tolist()[:12]
    for flags, given in (([], VerdictOverrides()), (["--evaluate.coverage", "0.95"], VerdictOverrides(coverage=0.95)),
                         (["--evaluate.coverage", "0", "--evaluate.calibration", "isotonic", "--evaluate.fpr", "0.3"],
                          VerdictOverrides("isotonic", 0.0, None, 0.3))):  # fmt: skip
        flags = [*flags, "--any"]
        fitted = operating_point.calibration_of(run, given)
        capsys.readouterr()
        assert cli.main(["predict", str(run.folder), *paths, "--json", *flags]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        scores = [row["score"] for row in rows]
        assert [row["verdict"] for row in rows] == fitted.verdicts(scores).tolist()
        np.testing.assert_allclose([row["probability"] for row in rows], fitted.probability(scores), atol=1e-9)
        assert cli.main(["predict", str(run.folder), *paths, "--out", str(tmp_path / f"{len(flags)}.csv"), *flags]) == 0
        table = list(table_formats.by_suffix(tmp_path / "a.csv").read(tmp_path / f"{len(flags)}.csv"))
        assert [row["verdict"] for row in table] == [row["verdict"] for row in rows]
        assert table[0]["threshold"] == fitted.threshold
    assert cli.main(["predict", str(run.folder), *paths, "--out", str(tmp_path / "1.csv"), "--evaluate.coverage", "0.5"]) == 2
    assert "another model, or with another threshold" in capsys.readouterr().err
    found = load.load(run.folder).predict(paths, coverage=0.95, any=True)
    careful = operating_point.calibration_of(run, VerdictOverrides(coverage=0.95))
    assert found["verdict"].tolist() == careful.verdicts(found["score"]).tolist()


def test_predict_says_in_words_what_its_probabilities_mean(run, capsys):
    path = predictions.read(run.predictions)["path"][0]
    assert cli.main(["predict", str(run.folder), path, "--evaluate.coverage", "0.94", "--evaluate.prevalence", "0.01"]) == 0
    last = next(line for line in capsys.readouterr().out.splitlines() if "Called fake" in line)
    fitted = operating_point.calibration_of(run, VerdictOverrides(coverage=0.94, prevalence=0.01))
    low, high = fitted.inconclusive
    assert last.endswith(f"Called fake from a probability of {fitted.threshold:.3f}; inconclusive from {low:.3f} to {high:.3f}. "
                         "Probabilities hold where 1 % of the files are fake.")  # fmt: skip


def test_evaluate_judges_other_settings_and_leaves_the_run_as_it_is(run):
    before = {path: path.read_bytes() for path in (run.calibration, run.metrics, run.predictions)}
    assert cli.main(["evaluate", str(run.folder), "--evaluate.fpr", "0.3", "--evaluate.prevalence", "0.01"]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    out = Artifact(run.folder / "evaluations" / "own_test-prevalence-0.01-fpr-0.3")
    found, stored = json.loads(out.metrics.read_text()), load_calibration(run)
    expected = operating_point.calibration_of(run, VerdictOverrides(fpr=0.3))
    assert found["threshold_rule"] == "fpr:0.3" and found["test"]["threshold"] == pytest.approx(expected.threshold)
    assert found["test"]["verdicts"]["prevalence"] == 0.01 and "Where 1 % of the files are fake" in out.report.read_text()
    scored = predictions.by_file(predictions.read(out.predictions))
    np.testing.assert_allclose(scored["probability"], stored.probability(scored["score"]), atol=1e-9)  # with the test's own share
    served = operating_point.calibration_of(run, VerdictOverrides(prevalence=0.01))
    assert (served.probability(scored["score"]) < scored["probability"]).all()


@pytest.fixture(scope="module")
def strange(run, tmp_path_factory):
    """Two test files of the run, and a picture of noise and a black one."""
    folder = tmp_path_factory.mktemp("strange")
    for name, picture in (("noise", np.random.default_rng(0).integers(0, 256, (32, 32, 3))), ("black", np.zeros((32, 32, 3)))):
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    test = predictions.by_file(predictions.read(run.predictions)).query("split == 'test'")
    known = Familiarity.load(run.familiarity)
    usual = test["path"][known.p_values(test["content_distance"], test["processing_distance"]) > 0.3]
    return [*usual.head(2), str(folder / "noise.png"), str(folder / "black.png")]


def test_files_unlike_the_training_data_are_inconclusive_unless_any(run, strange, capsys):
    for flags, verdict in (([], {"inconclusive"}), (["--any"], {"real", "fake", "inconclusive"})):
        assert cli.main(["predict", str(run.folder), *strange, "--json", "--evaluate.coverage", "0", *flags]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["unfamiliar"] for row in rows] == [False, False, True, True]
        assert all(row["familiarity"] > 0.3 and row["unfamiliar_reason"] is None for row in rows[:2])
        assert all(row["familiarity"] <= 0.05 and row["unfamiliar_reason"].startswith("other ") for row in rows[2:])
        assert {row["verdict"] for row in rows[2:]} <= verdict
        assert all(row["verdict"] == row["label"] for row in (rows if flags else rows[:2]))
    assert cli.main(["predict", str(run.folder), *strange]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 4 files are unlike the training data (")
    assert cli.main(["predict", str(run.folder), *strange, "--evaluate.unfamiliar", "0", "--json"]) == 0
    assert not any(json.loads(line)["unfamiliar"] for line in capsys.readouterr().out.splitlines())
    assert cli.main(["predict", str(run.folder), *strange, "--evaluate.unfamiliar", "0.01"]) == 2
    assert "needs 99 groups of validation files, but there are 20" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet", "xlsx"])
def test_tables_have_columns_for_it_and_go_on_from_tables_without(run, strange, suffix, tmp_path, capsys, monkeypatch):
    out = tmp_path / f"table.{suffix}"
    assert cli.main(["predict", str(run.folder), *strange, "--out", str(out)]) == 0
    assert "2 of 4 files are unlike the training data" in capsys.readouterr().out
    rows = [*table_formats.by_suffix(out).read(out)]
    assert [row["unfamiliar"] for row in rows] == [False, False, True, True] and rows[2]["unfamiliar_reason"].startswith("other ")
    with monkeypatch.context() as patch:
        patch.setattr(table_formats, "TYPES", {name: kind for name, kind in table_formats.TYPES.items() if "famil" not in name})
        table_formats.by_suffix(out).write(out, rows[:2])  # as an older version would have
    assert cli.main(["predict", str(run.folder), *strange, "--out", str(out)]) == 0
    assert [row.get("unfamiliar") for row in table_formats.by_suffix(out).read(out)] == [None, None, True, True]


def test_the_report_says_how_many_test_files_are_unlike_the_training_data(run):
    found = json.loads(run.metrics.read_text())["test"]["verdicts"]["unfamiliar"]
    assert (found["level"], found["groups"], found["n"]) == (0.05, 20, 80)
    assert found["share"] == pytest.approx(found["content"] + found["processing"]) and found["interval"][0] <= found["share"]
    real, *fakes = found["sources"]
    assert (real["label"], real["n"], sum(row["n"] for row in fakes)) == ("real", 40, 40) and fakes[0]["label"] == "fake"
    assert "Unlike the training data are" in run.report.read_text()
    assert "`unfamiliar` is true" in (run.folder / "SERVING.md").read_text()


def test_a_run_of_an_older_version_says_nothing_about_it(run, strange, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    Artifact(old).familiarity.unlink()
    (old / "SHA256SUMS").unlink()
    assert cli.main(["export", str(old)]) == 0
    assert cli.main(["predict", str(old), *strange, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert all(row["unfamiliar"] is None and row["familiarity"] is None for row in rows)
    assert cli.main(["predict", str(old), *strange, "--evaluate.unfamiliar", "0.1"]) == 2
    assert "does not know what its training files were like" in capsys.readouterr().err


def test_a_coverage_out_of_reach_is_refused_in_one_sentence(run, capsys):
    paths = predictions.read(run.predictions)["path"].tolist()[:1]
    assert cli.main(["predict", str(run.folder), *paths, "--evaluate.coverage", "0.99"]) == 2
    assert "A coverage of 0.99 needs 99 real and 99 fake validation" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "message"), [
    (["--evaluate.coverage", "1"], "--evaluate.coverage must be a share below 1"),
    (["--evaluate.prevalence", "0"], "--evaluate.prevalence must be a share between 0 and 1"),
    (["--evaluate.unfamiliar", "1"], "--evaluate.unfamiliar must be a share below 1"),
    (["--evaluate.fpr", "2"], "--evaluate.fpr must be a share in 0..1"),
    (["--evaluate.fpr", "0.01", "--train.threshold", "f1"], "both choose the threshold"),
])  # fmt: skip
def test_flags_without_sense_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "cnn", *flags])
    assert message in " ".join(capsys.readouterr().err.split())


def test_notes_say_what_validation_is_too_small_for():
    rows = pd.DataFrame({"split": "validation", "label": np.repeat([0, 1], 5), "group": np.arange(10)})
    fitted = calibration.fit(np.arange(10.0), rows["label"], coverage=0.9)
    text = " ".join(operating_point.notes(fitted, rows, None, "fpr:0.01"))
    assert "none inconclusive: A coverage of 0.9 needs 9 real" in text and "cannot be set on 5 real validation files" in text
    assert "It takes at least 100." in text and operating_point.notes(fitted, rows, 0.0, "youden") == ()
    with pytest.raises(UserError, match=r"0\.9 is out of reach"):
        operating_point.check(rows, None, 0.9, None, "youden")
    assert "needs 19 groups of validation files, but there are 10" in " ".join(familiarity.notes(None, rows))
    assert familiarity.notes(0.0, rows) == ()
    with pytest.raises(UserError, match=r"unfamiliar 0\.05 is out of reach"):
        operating_point.check(rows, None, None, None, "youden", 0.05)


def test_a_run_without_its_predictions_keeps_its_own_verdicts_only(run, tmp_path):
    bare = Artifact(tmp_path)
    files.write_json(bare.calibration, load_calibration(run).to_dict())
    assert operating_point.calibration_of(bare, VerdictOverrides()) == load_calibration(run)
    with pytest.raises(UserError, match=r"no predictions\.csv"):
        operating_point.calibration_of(bare, VerdictOverrides(coverage=0.5))
