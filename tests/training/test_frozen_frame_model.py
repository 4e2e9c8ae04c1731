"""`cnn_lstm` with a frozen frame model trains on stored features: each file passes through the frame model once."""

import json

import numpy as np
import pytest
from in_process import decode_here

from tfdetect import models
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.decode import prepare, usable_rows
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.layers import common
from tfdetect.serving import export as serving
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Train
from tfdetect.training.feature_extractor import FeatureExtractor, silent
from tfdetect.training.fit_head import fit_head

CALIBRATION = {"slope": 1, "intercept": 0, "threshold": 0.5}


@pytest.fixture(scope="module")
def table(videos, tmp_path_factory):
    """(Table of decoded videos, their cache)."""
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(4, 32))
    return usable_rows(prepare(manifest.split(detect.read(videos)), cache, runner=decode_here)), cache


def save_frame_model(detector, folder):
    detector.build((1, 32, 32, 3)).save(folder / "frames.keras")
    return str(folder / "frames.keras")


@pytest.fixture
def computed(monkeypatch):
    """List of the number of clips in each call of the frame model."""
    counts, compute = [], FeatureExtractor._compute
    monkeypatch.setattr(FeatureExtractor, "_compute",
                        lambda self, sets, rows, augment: counts.append(len(rows)) or compute(self, sets, rows, augment))
    return counts


def train(detector, table, folder, epochs=2):
    rows, cache = table
    return fit_head(detector, rows, cache, Train(epochs=epochs, batch=8), folder / "c", Artifact(folder).model, [])


def test_the_frame_model_runs_once_per_file_and_an_interrupted_training_continues(table, computed, tmp_path):
    frame_model, used = save_frame_model(Cnn(width=4), tmp_path), int((table[0]["split"] != "test").sum())
    detector = CnnLstm(frame_model=frame_model, freeze=True, temporal="attention")
    whole = train(detector, table, tmp_path / "whole", 3)
    train(detector, table, tmp_path / "parts", 2)
    np.testing.assert_allclose(train(detector, table, tmp_path / "parts", 3).history, whole.history, rtol=1e-4)
    other = train(CnnLstm(frame_model=frame_model, freeze=True, temporal="convolution"), table, tmp_path / "other")
    assert sum(computed) == used and len(other.history) == 2


def test_stored_features_are_those_of_each_frame_and_give_the_score_of_the_exported_clip(table, computed, tmp_path):
    rows, cache = table
    frame_model = save_frame_model(Clip(preset="tiny", head="nearest"), tmp_path)
    detector, artifact = CnnLstm(frame_model=frame_model, freeze=True), Artifact(tmp_path)
    train(detector, table, tmp_path)
    model = models.load(artifact.model)
    features = FeatureExtractor(model, detector, cache, silent).of(rows).features
    assert sum(computed) == len(rows), "the saved model has the stored features of the training"
    clips = np.stack([cache.load(sha) for sha in rows["sha"]])
    of_frames = common.submodel_until(models.load(frame_model), "features")
    frames = of_frames.predict(clips.reshape(-1, 1, 32, 32, 3), verbose=0)
    np.testing.assert_allclose(features, frames.reshape(len(clips), -1), atol=1e-4)
    scores = model.predict(clips, verbose=0)[:, 0]
    assert scores.std() > 1e-3
    serving.export(model, CALIBRATION, detector, artifact.saved_model, cache.spec)
    artifact.calibration.write_text(json.dumps(CALIBRATION))
    predictor = Predictor(artifact, cache.spec, detector)
    np.testing.assert_allclose(predictor.predict_clips(clips)[0], scores, atol=1e-4)
    np.testing.assert_allclose(predictor.predict_features(features)[0], scores, atol=1e-4)
    assert "(batch, 4 x n), the outputs of the frame model" in (tmp_path / serving.SERVING_NOTES).read_text()


def test_augmented_views_need_stored_features():
    assert not CnnLstm(frame_model="m.keras", freeze=True, differences=True).caches_features
    with pytest.raises(ValueError, match="needs --detector.frame_model and --detector.freeze, without"):
        CnnLstm(frame_model="m.keras", views=2)
