"""The exported model takes frames of any size, or encoded images, and gives the scores of the original model."""

import functools

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.layouts import detect
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.media.frames import evenly_spaced, resize
from tfdetect.data.media.read import read_media
from tfdetect.data.media.tf_images import evenly_spaced_indices
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor

CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}
DETECTORS = {"frame": (Cnn(width=4), (1, 32, 32, 3)), "clip": (CnnLstm(), (8, 32, 32, 3))}


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def exported(request, tmp_path_factory):
    """The artifact, the original model, and whether it is a frame detector."""
    keras.utils.set_random_seed(0)
    artifact = Artifact(tmp_path_factory.mktemp(request.param))
    detector, shape = DETECTORS[request.param]
    model = detector.build(shape)
    model.save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, detector, artifact.saved_model)
    return artifact, model, request.param == "frame"


@functools.cache
def predictor(artifact, single):
    """Return the predictor of an exported model, which takes seconds to load."""
    return Predictor(artifact, ClipSpec(8, 32, still=not single), DETECTORS["frame" if single else "clip"][0])


def test_scores_equal_the_original_model_and_are_calibrated(exported, rng):
    artifact, model, single = exported
    clips = rng.integers(0, 256, (3, 1 if single else 8, 32, 32, 3), np.uint8)
    score, probability = predictor(artifact, single).predict_clips(clips)
    np.testing.assert_allclose(score, model.predict(clips, verbose=0)[:, 0], atol=1e-5)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-(2 * score + 0.25))), atol=1e-6)
    assert score.dtype == np.float32


def test_frames_of_any_size_and_number(exported, rng):
    artifact, model, single = exported
    clip = rng.integers(0, 256, (11, 50, 20, 3), np.uint8)
    small = np.stack([resize(frame, 32) for frame in clip])
    if single:
        expected = model.predict(small[:, None], verbose=0).mean()
    else:
        expected = model.predict(small[list(evenly_spaced(11, 8))][None], verbose=0)[0, 0]
    score, _ = predictor(artifact, single).predict_clips(clip[None])
    assert score.shape == (1,) and score[0] == pytest.approx(expected, abs=1e-5)


def test_native_and_cached_clips_give_the_same_probability(exported, videos):
    artifact, _, single = exported
    exported_predictor = predictor(artifact, single)
    for path in detect.read(videos)["path"]:
        native, cached = (read_media(path, 8, size=size).frames for size in (None, 32))
        probabilities = [exported_predictor.predict_clips(clip[None])[1][0] for clip in (native, cached)]
        assert abs(probabilities[0] - probabilities[1]) < 1e-6


def test_bytes_and_frames_agree(exported, rng):
    artifact, _, single = exported
    signatures = predictor(artifact, single).model.signatures
    assert set(signatures) == {"serving_default", "serve_bytes", "explain"}
    image = cv2.GaussianBlur(rng.integers(0, 256, (60, 44, 3), np.uint8), (0, 0), 2)
    encoded = [cv2.imencode(extension, image)[1].tobytes() for extension in (".jpg", ".png", ".webp")]
    out = signatures["serve_bytes"](image=tf.constant(encoded))
    decoded = [cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB) for data in encoded]
    expected = [predictor(artifact, single).predict_clips(frame[None, None])[0][0] for frame in decoded]
    np.testing.assert_allclose(out["score"].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("total, frames", [(1, 4), (3, 8), (11, 8), (100, 16), (9, 1), (8, 8)])
def test_the_graph_selects_the_same_frames_as_the_reader(total, frames):
    assert tuple(np.array(evenly_spaced_indices(tf.constant(total), frames))) == evenly_spaced(total, frames)


def test_predict_files_keeps_the_order_and_reports_failures(exported, images, videos, tmp_path):
    artifact, _, single = exported
    (tmp_path / "bad.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    paths = [detect.read(images)["path"][0], tmp_path / "bad.mp4", tmp_path / "none.jpg", detect.read(videos)["path"][0]] * 3
    verdicts = list(predictor(artifact, single).predict_files(paths))
    assert [verdict.path for verdict in verdicts] == [str(path) for path in paths]
    assert [verdict.error is None for verdict in verdicts] == [True, False, False, True] * 3
    good, bad = verdicts[0], verdicts[1]
    assert good.label == ("fake" if good.probability >= 0.5 else "real") and 0 <= good.probability <= 1
    assert good.frames == (1 if single else 8) and verdicts[3].frames == 8
    assert bad.score is None and "not an image or video" in bad.error
    assert verdicts[2].error == "No such file or directory"


def test_a_run_on_faces_names_its_input_face_crop(tmp_path, rng):
    artifact, detector = Artifact(tmp_path), DETECTORS["frame"][0]
    clip_spec = ClipSpec(1, 32, faces=FaceSettings(tmp_path / "none.onnx", "0" * 64))
    model = detector.build((1, 32, 32, 3))
    files.write_json(artifact.calibration, CALIBRATION)
    export(model, CALIBRATION, detector, artifact.saved_model, clip_spec)
    served = tf.saved_model.load(str(artifact.saved_model)).signatures
    inputs = {name: list(signature.structured_input_signature[1]) for name, signature in served.items()}
    assert inputs == {name: ["face_crop"] for name in ("serve_face_crop", "serving_default", "explain")}
    notes = (tmp_path / "SERVING.md").read_text()
    assert "a whole image" in notes and "serve_bytes" not in notes
    crop = rng.integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
    score, _ = Predictor(artifact, clip_spec, detector).predict_clips(crop)
    np.testing.assert_allclose(score, model.predict(crop, verbose=0)[:, 0], atol=1e-5)


def test_serving_notes_name_the_signatures(exported):
    artifact, _, single = exported
    notes = (artifact.folder / "SERVING.md").read_text()
    assert "`serving_default`: clip" in notes and "`serve_bytes`: image" in notes and ("A still is repeated" in notes) != single
    assert f"(`method` is `{DETECTORS['frame' if single else 'clip'][0].heat_map}`)" in notes


def test_each_weight_is_written_once_and_the_model_is_traced_once(tmp_path, monkeypatch):
    detector, calls = Cnn(), []
    model = detector.build((1, 32, 32, 3))
    original = type(model).__call__

    def count(self, *args, **options):
        calls.append(self)
        return original(self, *args, **options)

    monkeypatch.setattr(type(model), "__call__", count)
    export(model, {"slope": 1.0, "intercept": 0.0, "threshold": 0.5}, detector, tmp_path / "1")
    assert len([called for called in calls if called is model]) == 1, "however many signatures call it"
    size = sum(path.stat().st_size for path in (tmp_path / "1" / "variables").glob("*.data-*"))
    assert size < 1.2 * sum(weight.numpy().nbytes for weight in model.weights) + 10_000


def test_lookup_tables_of_a_model_are_exported(tmp_path):
    inputs = keras.Input((1, 16, 16, 3), dtype="uint8")
    known = keras.layers.IntegerLookup(vocabulary=[1, 2, 3])(keras.ops.max(inputs, axis=(1, 2, 3, 4), keepdims=True)[:, 0, 0, 0])
    model = keras.Model(inputs, keras.ops.cast(known, "float32"))
    export(model, {"slope": 1.0, "intercept": 0.0, "threshold": 0.5}, Cnn(), tmp_path / "1")
    clip = np.full((1, 1, 16, 16, 3), 2, np.uint8)
    served = tf.saved_model.load(str(tmp_path / "1"))
    assert float(served.signatures["serving_default"](clip=tf.constant(clip))["score"][0]) == 2
