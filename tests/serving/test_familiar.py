"""What exported models say about familiarity is what Python says, for frames, clips, several frames and encoded images."""

import keras
import light
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfdetect import files
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.familiarity import Vectors, fit
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.vectors import WithVectors, content_layer
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor

SIZE = 16


def draw(rng, count, frames):
    """Clips of a colour and a bit of noise, some brighter or noisier than others; each frame has its own noise."""
    colour = rng.integers(20, 120, (count, 1, 1, 1, 3)) + rng.integers(0, 60, (count, 1, SIZE, 1, 3))
    noise = rng.normal(size=(count, frames, SIZE, SIZE, 3)) * rng.uniform(2, 6, (count, 1, 1, 1, 1))
    return np.uint8(np.clip(colour + noise, 0, 255))


def decode(images, *arguments):
    """`light.decode_plain_images`, to which short strings are damaged."""
    damaged = tf.strings.length(images) < 20
    rows, decoded, error = light.decode_plain_images(tf.where(damaged, images[0], images), *arguments)
    return rows, decoded, tf.where(damaged, "damaged", error)


@pytest.fixture(scope="module", params=["frame", "clip"])
def exported(request, tmp_path_factory):
    """An artifact with familiarity, its predictor, the detector and the number of frames of a clip."""
    rng, single = np.random.default_rng(0), request.param == "frame"
    detector, count = (Cnn(), 1) if single else (CnnLstm(), 3)
    clip = keras.Input((count, SIZE, SIZE, 3), dtype="uint8")
    maps = layers.Conv3D(6, (1, 3, 3), activation="relu", name="maps")(layers.Rescaling(1 / 127.5, -1)(clip))
    model = keras.Model(clip, layers.Dense(1, name="score")(layers.GlobalAveragePooling3D()(maps)))
    layer = content_layer(model, detector)
    network = WithVectors(model, layer)
    reference, usual = (Vectors(*network.predict_on_batch(draw(rng, rows, count))[1:], *[np.arange(rows)] * 2)
                        for rows in (200, 60))  # fmt: skip
    known, artifact = fit(layer, reference, usual), Artifact(tmp_path_factory.mktemp("familiar"))
    known.save(artifact.familiarity)
    model.save(artifact.model)
    files.write_json(artifact.calibration, Calibration(1.0, 0.0, 0.5).to_dict())
    spec = ClipSpec(count if not single else 3, SIZE)
    with light.stubs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdetect.data.media.tf_images.decode_images", decode)
        export(model, Calibration(1.0, 0.0, 0.5).to_dict(), detector, artifact.saved_model, spec, familiarity=known)
    return artifact, Predictor(artifact, spec, detector), detector


def clips(rng):
    """Usual clips, brighter ones, noise and black ones, of 3 frames."""
    usual, bright = draw(rng, 12, 3), np.uint8(np.clip(draw(rng, 4, 3) * 1.2, 0, 255))
    noise = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8)
    return np.concatenate([usual, bright, noise, np.zeros((1, 3, SIZE, SIZE, 3), np.uint8)])


def test_the_saved_model_says_what_python_says(exported, rng):
    _, predictor, _ = exported
    frames, signature = clips(rng), predictor.model.signatures["serving_default"]
    served = {name: value.numpy() for name, value in signature(clip=tf.constant(frames)).items()}
    verdicts = [predictor.to_verdict("a", Media(frame, (), 3, SIZE, SIZE, "")) for frame in frames]
    np.testing.assert_allclose(served["familiarity"], [verdict.familiarity for verdict in verdicts], atol=1e-6)
    assert served["unfamiliar"].tolist() == [verdict.unfamiliar for verdict in verdicts]
    assert (served["unfamiliar"] == (served["familiarity"] <= 0.05)).all() and 2 < served["unfamiliar"].sum() < len(frames) - 5
    reasons = np.where(served["other_content"], "other content", np.where(served["other_processing"], "other processing", None))
    assert reasons.tolist() == [verdict.unfamiliar_reason for verdict in verdicts]
    assert (served["inconclusive"] == served["unfamiliar"]).all()  # there is no band
    assert (served["band_from"] == served["threshold"]).all() and (served["band_to"] == served["threshold"]).all(), "no NaN"
    assert [verdict.verdict == "inconclusive" for verdict in verdicts] == served["unfamiliar"].tolist()
    known = predictor.familiarity
    np.testing.assert_allclose(served["familiarity"], known.p_values(served["content_distance"], served["processing_distance"]),
                               atol=1e-6)  # fmt: skip


def test_without_a_saved_model_the_keras_model_says_the_same(exported, rng, tmp_path):
    artifact, predictor, detector = exported
    other = Artifact(tmp_path)
    for name in ("familiarity", "calibration", "model"):
        getattr(other, name).write_bytes(getattr(artifact, name).read_bytes())
    frames = clips(rng)
    found, expected = (each.outputs(frames) for each in (Predictor(other, predictor.spec, detector), predictor))
    for name in ("score", "content_distance", "processing_distance"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_encoded_images_get_it_too_and_damaged_ones_are_not_marked(exported, rng):
    _, predictor, _ = exported
    frames = clips(rng)[:, 0]
    images = [tf.io.encode_png(frame).numpy() for frame in frames] + [b"damaged"]
    found = {name: value.numpy() for name, value in predictor.model.signatures["serve_bytes"](image=tf.constant(images)).items()}
    whole = predictor.outputs(frames[:, None])
    np.testing.assert_allclose(found["content_distance"][:-1], whole["content_distance"], atol=1e-5)
    assert np.isnan(found["familiarity"][-1]) and not found["unfamiliar"][-1] and not found["inconclusive"][-1]
    assert found["unfamiliar"][-2]
