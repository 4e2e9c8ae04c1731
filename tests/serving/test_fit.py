"""Files, encoded bytes and frames of any size give one score, whatever the fit."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from in_process import map_here

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Fit, to_squares
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.serving.convert import convert
from tfdetect.serving.export import export
from tfdetect.serving.functions import ServingFunctions
from tfdetect.serving.predictor import Predictor

SIZE = 24
SHAPES = [(24, 24), (61, 46), (46, 61), (30, 24), (9, 40), (13, 7), (1, 1)]
FITS = [Fit("pad"), Fit("crop", 5), *(pytest.param(fit, marks=pytest.mark.slow) for fit in (
    Fit("shortest_side"), Fit("crop"), Fit("crop", 7)))]  # fmt: skip
CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}


@pytest.fixture(scope="module", params=FITS, ids=lambda fit: fit.key)
def served(request, tmp_path_factory):
    """A model, its exported predictor and the SavedModel's folder; the score depends on every pixel and channel."""
    keras.utils.set_random_seed(0)
    artifact, spec = Artifact(tmp_path_factory.mktemp("fit")), ClipSpec(3, SIZE, fit=request.param)
    clip = keras.Input((1, SIZE, SIZE, 3), dtype="uint8")
    model = keras.Model(clip, keras.layers.Dense(1)(keras.layers.Flatten()(keras.ops.cast(clip, "float32") / 255)))
    model.save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, Cnn(), artifact.saved_model, spec)
    assert f"`--data.fit {spec.fit.mode}`" in (artifact.folder / "SERVING.md").read_text()
    return model, Predictor(artifact, spec, Cnn()), artifact.saved_model


def test_files_bytes_and_frames_get_the_score_of_the_live_model(served, tmp_path, rng, monkeypatch):
    monkeypatch.setattr("tfdetect.serving.decode_ahead.map_unordered", map_here)
    model, predictor, _ = served
    fit, frames = predictor.spec.fit, [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    squares = [to_squares(frame, SIZE, fit) for frame in frames]
    live = [model.predict_on_batch(tiles[:, None]).mean() for tiles in squares]
    paths = [tmp_path / f"{number}.png" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        cv2.imwrite(str(path), frame[..., ::-1])
    verdicts = list(predictor.predict_files(paths))
    np.testing.assert_allclose([verdict.score for verdict in verdicts], live, atol=1e-5)
    assert [verdict.frames for verdict in verdicts] == [len(tiles) for tiles in squares]
    out = predictor.model.signatures["serve_bytes"](image=tf.constant([path.read_bytes() for path in paths]))
    np.testing.assert_allclose(out["score"], live, atol=1e-5)
    native = [predictor.predict_clips(frame[None, None])[0][0] for frame in frames]
    np.testing.assert_allclose(native, live, atol=1e-5)
    assert np.ptp(live) > 0.2, "the images have different scores"


def test_a_run_without_a_saved_model_makes_the_same_squares(served, tmp_path, rng):
    """As on torch and jax."""
    model, predictor, _ = served
    artifact = Artifact(tmp_path)
    model.save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    plain, clips = Predictor(artifact, predictor.spec, Cnn()), rng.integers(0, 256, (2, 3, 40, 31, 3), np.uint8)
    np.testing.assert_allclose(plain.predict_clips(clips)[0], predictor.predict_clips(clips)[0], atol=1e-5)
    assert plain.scored_with != predictor.scored_with


@pytest.mark.slow
def test_each_fit_converts_to_litert(served, rng, tmp_path):
    """As `export --format litert` converts: one clip at a time, by operations that are built in."""
    model, predictor, _ = served
    functions = ServingFunctions(model, (), predictor.calibration, Cnn(), predictor.spec, predictor.aggregate)
    convert(functions, "litert", file := tmp_path / "model.tflite", "clip")
    lite = tf.lite.Interpreter(str(file)).get_signature_runner()
    clips = rng.integers(0, 256, (2, 3, 40, 31, 3), np.uint8)
    scores = np.concatenate([lite(clip=clip[None])["score"] for clip in clips])
    np.testing.assert_allclose(scores, predictor.predict_clips(clips)[0], atol=1e-5)


def test_clips_of_several_frames_and_bytes_that_are_refused(served, rng):
    model, predictor, _ = served
    fit, clips = predictor.spec.fit, rng.integers(0, 256, (2, 3, 40, 31, 3), np.uint8)
    live = [np.mean([model.predict_on_batch(to_squares(frame, SIZE, fit)[:, None]).mean() for frame in clip]) for clip in clips]
    np.testing.assert_allclose(predictor.predict_clips(clips)[0], live, atol=1e-5)
    good = cv2.imencode(".png", clips[0, 0])[1].tobytes()
    out = predictor.model.signatures["serve_bytes"](image=tf.constant([b"no", good, good[:-100], good]))
    assert list(np.isnan(out["score"])) == [True, False, True, False]

