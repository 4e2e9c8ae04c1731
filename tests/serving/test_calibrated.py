"""Probabilities and verdicts of the SavedModel are those of Python, for every method of calibration."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from tfdetect import files
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.evaluation.calibration import METHODS, fit
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor
from tfdetect.serving.verdict_graph import verdict_outputs


def sample(rng, centre, spread, count=3000):
    """Return float32 scores, as models give them, and labels of two overlapping classes."""
    scores = np.float32(centre + spread * (rng.normal(size=count) + np.repeat([-1, 1], count // 2)))
    return scores, np.repeat([0, 1], count // 2)


@pytest.mark.parametrize("prevalence", [None, 0.01])
@pytest.mark.parametrize(("centre", "spread"), [(0, 1), (1000, 1), (0.05, 1e-3), (-3e6, 1e5)])
@pytest.mark.parametrize("method", METHODS)
def test_graph_and_python_agree(rng, method, centre, spread, prevalence):
    scores, labels = sample(rng, centre, spread)
    fitted = fit(scores, labels, "fpr:0.05", method, coverage=0.95, prevalence=prevalence)
    new = np.float32(np.concatenate([scores, rng.normal(size=3000) * 5 * spread + centre, [centre - 1e6, centre + 1e6]]))
    found = tf.function(lambda score: verdict_outputs(fitted, score))(tf.constant(new))
    np.testing.assert_allclose(found["probability"], fitted.probability(new), atol=1e-6, rtol=0)
    assert (found["fake"].numpy() == (fitted.probability(new) >= fitted.threshold)).all()
    assert (found["inconclusive"].numpy() == (fitted.verdicts(new) == "inconclusive")).all()
    assert 0.01 < found["inconclusive"].numpy().mean() < 0.9


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_served_verdicts_are_those_of_predict(rng, tmp_path, method, frames):
    """The score is the brightness of a frame, so that files cover the range of scores; those of several frames are averaged."""
    clip = keras.Input((1, 16, 16, 3), dtype="uint8")
    mean = keras.layers.Flatten()(keras.layers.GlobalAveragePooling3D()(keras.ops.cast(clip, "float32")))
    dense = keras.layers.Dense(1)
    model = keras.Model(clip, dense(mean))
    dense.set_weights([np.full((3, 1), 1 / 60, np.float32), np.array([-6], np.float32)])
    scores = sample(rng, 0, 1.5)[0]
    fitted = fit(scores, (rng.random(len(scores)) < expit(scores)).astype(int), method=method, coverage=0.8)
    artifact = Artifact(tmp_path)
    model.save(artifact.model)
    files.write_json(artifact.calibration, fitted.to_dict())
    export(model, fitted.to_dict(), Cnn(), artifact.saved_model, ClipSpec(frames, 16))
    predictor = Predictor(artifact, ClipSpec(frames, 16), Cnn())
    clips = np.stack([np.full((frames, 16, 16, 3), grey, np.uint8) for grey in range(0, 256, 5)])
    clips[..., 0] = rng.integers(0, 256, clips.shape[:2])[..., None, None]
    served = predictor.model.signatures["serving_default"](clip=tf.constant(clips))
    verdicts = [predictor.to_verdict("a", Media(frame, (), frames, 16, 16, "")) for frame in clips]
    np.testing.assert_allclose(served["probability"], fitted.probability(served["score"]), atol=1e-6, rtol=0)
    # Scores differ in their last digits between batches; the steps of isotonic calibration are steep, and enlarge that.
    tolerance = 1e-4 if method == "isotonic" else 1e-6
    np.testing.assert_allclose(served["probability"], [verdict.probability for verdict in verdicts], atol=tolerance, rtol=0)
    names = np.where(served["inconclusive"], "inconclusive", np.where(served["fake"], "fake", "real"))
    assert names.tolist() == [verdict.verdict for verdict in verdicts] and set(names) == {"real", "fake", "inconclusive"}
    assert [verdict.label for verdict in verdicts] == np.where(served["fake"], "fake", "real").tolist()
    assert served["verdict"].numpy().astype(str).tolist() == names.tolist()
    assert served["label"].numpy().astype(str).tolist() == [verdict.label for verdict in verdicts]
    edges = np.float32([fitted.threshold, *fitted.inconclusive])
    assert (np.column_stack([served[name] for name in ("threshold", "band_from", "band_to")]) == edges).all()
    assert f"method `{method}`" in (tmp_path / "SERVING.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_every_calibration_converts_to_tensorflow_lite(rng, method):
    fitted = fit(*sample(rng, 0, 1, 200), method=method, coverage=0.9)
    function = tf.function(lambda score: verdict_outputs(fitted, score)).get_concrete_function(tf.TensorSpec((None,), tf.float32))
    converted = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    interpreter = tf.lite.Interpreter(model_content=converted)
    given = np.float32([-3, -0.1, 0.2, 4])
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [4])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    found = [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]
    np.testing.assert_allclose(next(each for each in found if each.dtype == np.float32), fitted.probability(given), atol=1e-6)
