"""--evaluate.aggregate: the choice of the epoch, calibration, SavedModel, predict and evaluate combine frames in one way."""

import json

import numpy as np
import pytest

from tfdetect import cli
from tfdetect.api import load
from tfdetect.artifact import Artifact
from tfdetect.data.media.read import read_media
from tfdetect.evaluation import calibration, metrics, predictions

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    flags = ["--data.frames", "5", "--data.size", "32", "--train.epochs", "2", "--train.batch", "8", "--detector.width", "4"]
    where = ["--data.path", str(videos), "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs")]
    assert cli.main(["train", "cnn", *where, *flags, "--evaluate.aggregate", "top:2"]) == 0
    return Artifact(folder / "runs" / "cnn")


def top_scores(table, split):
    frames = table[table["split"] == split]
    return frames.groupby("path", sort=False)["score"].agg(lambda values: values.nlargest(2).mean())


def test_epoch_and_calibration_come_from_combined_validation_scores(run):
    table = predictions.read(run.predictions)
    assert set(table["aggregate"]) == {"top:2"} and len(table) > table["path"].nunique()
    scores = top_scores(table, "validation")
    labels = table.drop_duplicates("path").set_index("path").loc[scores.index, "label"]
    fitted, stored = calibration.fit(scores.to_numpy(), labels.to_numpy()), json.loads(run.calibration.read_text())
    assert stored["slope"] == pytest.approx(fitted.slope, rel=1e-5)
    found = json.loads(run.metrics.read_text())
    assert found["validation"]["auc"] == pytest.approx(metrics.auc(labels, scores))
    with np.load(sorted((run.checkpoints / "worker-0").glob("validation-*.npz"))[-1]) as stored:
        assert len(stored["arr_1"]) == len(scores)


def test_predict_and_the_saved_model_combine_as_evaluate_does(run, capsys):
    expected = top_scores(predictions.read(run.predictions), "test")
    files = predictions.by_file(predictions.read(run.predictions)).set_index("path")
    np.testing.assert_allclose(files.loc[expected.index, "score"], expected)
    paths = list(expected.index)
    capsys.readouterr()
    assert cli.main(["predict", str(run.folder), "--json", *paths]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-5)
    np.testing.assert_allclose([row["probability"] for row in rows], files.loc[paths, "probability"], atol=1e-6)
    assert cli.main(["export", str(run.folder)]) == 0
    taken = np.stack([read_media(path, 5).frames for path in paths])
    single = load.load(run.folder).predictor.predict_clips(taken.reshape(-1, 1, *taken.shape[2:]))[0].reshape(len(paths), -1)
    clips = load.load(run.folder).predictor.predict_clips(taken)[0]
    np.testing.assert_allclose(clips, np.sort(single, axis=1)[:, -2:].mean(axis=1), atol=1e-5)
    assert np.abs(clips - single.mean(axis=1)).max() > 1e-4, "the rule makes no difference here"


def test_evaluate_with_another_rule_fits_calibration_and_threshold_to_validation_again_and_says_so(run):
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert cli.main(["evaluate", str(run.folder), "--evaluate.aggregate", "max"]) == 0
    own, other = (Artifact(run.folder / "evaluations" / name) for name in ("own_test", "own_test-max"))
    assert "calibrated for top:2" in other.report.read_text() and "calibrated for" not in own.report.read_text()
    table = predictions.read(other.predictions)
    highest = table.groupby("path", sort=False)["score"].max()
    np.testing.assert_allclose(predictions.by_file(table)["score"], highest)
    frames = predictions.with_aggregate(predictions.read(run.predictions).drop(columns="aggregate"), "max")
    files = predictions.file_scores(frames[frames["split"] == "validation"])
    fitted = calibration.fit(files["score"], files["label"], "youden", "auto", files["group"])
    np.testing.assert_allclose(predictions.by_file(table)["probability"], fitted.probability(highest), rtol=1e-9)
    assert json.loads(other.metrics.read_text())["test"]["threshold"] == pytest.approx(fitted.threshold)
    assert json.loads(own.metrics.read_text())["test"]["threshold"] == json.loads(run.calibration.read_text())["threshold"]
    labels = table.drop_duplicates("path")["label"]
    assert json.loads(other.metrics.read_text())["test"]["auc"] == pytest.approx(metrics.auc(labels, highest))
