"""Extreme scores: evaluate, predict and the SavedModel all average the scores of frames before calibrating them."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Media
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.evaluation import cross_source, metrics, predictions
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow import scoring

GREY = {-40.0: 48, 41.0: 210, 60.0: 248}  # score of a frame -> the grey level that fills it
CALIBRATION = {"slope": 1.5, "intercept": -0.25, "threshold": 0.5}


def brightness_model():
    """Return a model that gives each grey level in GREY its score."""
    clip = keras.Input((1, 16, 16, 3), dtype="uint8")
    mean = keras.layers.Flatten()(keras.layers.GlobalAveragePooling3D()(keras.ops.cast(clip, "float32")))
    score = keras.layers.Dense(1)
    model = keras.Model(clip, score(mean))
    score.set_weights([np.full((3, 1), 1 / 6, np.float32), np.array([-64], np.float32)])
    return model


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    artifact = Artifact(tmp_path_factory.mktemp("certain"))
    brightness_model().save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, Cnn(), artifact.saved_model)
    return Predictor(artifact, ClipSpec(1, 16), Cnn())


@pytest.mark.parametrize("scores", [(-40.0, 41.0), (-40.0, -40.0, 41.0, 41.0, -40.0), (60.0, -40.0), (41.0, 60.0)])
def test_all_three_give_the_same_probability_and_decision(predictor, tmp_path, scores):
    clip = np.stack([np.full((16, 16, 3), GREY[score], np.uint8) for score in scores])
    predictor.spec = ClipSpec(len(scores), 16)
    cache = Cache(tmp_path, predictor.spec)
    with cache.writer() as writer:
        writer.add_clip("a" * 64, clip, {"frames": len(clip), "width": 16, "height": 16, "note": ""})
    table = pd.DataFrame({"path": ["video.mp4"], "label": 1, "group": "a", "source": "", "split": "test", "sha": "a" * 64,
                          "frames": len(clip), "error": "", "source_class": -1})  # fmt: skip
    scored = scoring.score(predictor, table, cache)
    assert scored["score"].tolist() == pytest.approx(scores, abs=1e-5)
    by_file = predictions.by_file(scored).iloc[0]
    verdict = predictor.to_verdict("video.mp4", Media(clip, (), len(clip), 16, 16, ""))
    served = predictor.model.signatures["serving_default"](clip=tf.constant(clip[None]))
    mean = float(np.mean(scores))
    expected = 1 / (1 + np.exp(0.25 - 1.5 * mean))
    assert by_file["score"] == pytest.approx(mean, abs=1e-5) and verdict.score == pytest.approx(mean, abs=1e-5)
    probabilities = [by_file["probability"], verdict.probability, float(served["probability"][0])]
    assert probabilities == pytest.approx([expected] * 3, abs=1e-6)
    fake = mean >= 0.25 / 1.5
    assert verdict.label == cross_source.verdict_table(scored, 0.5)["verdict"][0] == ("fake" if fake else "real")
    assert bool(served["fake"][0]) == fake and metrics.summarise(scored, 0.5)["accuracy"] == fake


def test_log_odds_survive_writing_and_reading_the_table(tmp_path):
    rows = pd.DataFrame({"path": "v", "label": 1, "group": "g", "source": "", "split": "test", "frame": [0, 1]})
    table = predictions.add_probabilities(rows.assign(score=[90.0, -80.0]), predictions.Calibration(1.0, 0.0, 0.5))
    predictions.write(table, tmp_path / "p.csv")
    assert predictions.by_file(predictions.read(tmp_path / "p.csv"))["log_odds"].tolist() == [5.0]
    assert predictions.by_file(table)["probability"][0] == pytest.approx(1 / (1 + np.exp(-5.0)))
