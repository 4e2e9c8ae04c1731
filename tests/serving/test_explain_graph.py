"""The heat-maps of the SavedModel are those of `explain`, which tests/explain proves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfdetect.detector import Detector
from tfdetect.explain import gradients, heatmaps
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.float_input import with_float_input
from tfdetect.serving import explain_graph

SIZE = 32


def network(frames, differentiable=True):
    """Return a model of clips whose score depends on place, colour and frame."""
    keras.utils.set_random_seed(0)
    clip = keras.Input((frames, SIZE, SIZE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(clip) if differentiable else layers.Rescaling(1 / 255)(keras.ops.cast(clip, "uint8"))
    x = layers.Conv3D(4, (1, 5, 5), strides=(1, 4, 4), activation="tanh")(x)
    return keras.Model(clip, layers.Dense(1)(layers.Flatten()(x)))


def made(detector, model):
    """Return the method of a detector, and its maps of clips as a graph computes them."""
    method, maps = explain_graph.make(model, detector, lambda clips: model(clips)[:, 0], None)
    return method, tf.function(maps, autograph=False)


@pytest.mark.parametrize("mirror", [True, False])
def test_grad_cam(rng, mirror):
    keras.utils.set_random_seed(0)
    model = Cnn(width=4, mirror=mirror).build((1, SIZE, SIZE, 3))
    clips = rng.integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8)
    method, maps = made(type("Own", (Cnn,), {"heat_map": "gradcam"})(), model)
    expected = gradients.GradCam(with_float_input(model))(clips)
    np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-6 * expected.max())
    assert method == "gradcam" and expected.max() > 0


def test_integrated_gradients(rng):
    keras.utils.set_random_seed(0)
    model = CnnLstm().build((3, SIZE, SIZE, 3))
    clips = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8)
    method, maps = made(CnnLstm(), model)
    expected = np.stack([gradients.smooth(gradients.integrated_gradients(with_float_input(model), clip)[0]) for clip in clips])
    np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-5 * np.abs(expected).max())
    assert method == "integrated_gradients" and np.ptp(expected) > 0


@pytest.mark.parametrize("frames", [1, 3])
def test_occlusion_where_that_is_the_method_or_there_is_no_gradient(rng, frames):
    model = network(frames, differentiable=False)
    clips = rng.integers(0, 256, (2, frames, SIZE, SIZE, 3), np.uint8)
    for heat_map in ("occlusion", "integrated_gradients"):
        detector = type("Own", (Cnn,), {"heat_map": heat_map})()
        method, maps = made(detector, model)
        score = lambda clips: model(clips)[:, 0].numpy()  # noqa: E731
        expected = np.stack([np.repeat(heatmaps.occlusion_map(score, clip)[None], frames, axis=0) for clip in clips])
        np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-6 * np.abs(expected).max())
        assert method == "occlusion" and np.ptp(expected) > 0


def test_reconstruction_error_is_averaged_over_the_frames_of_a_clip(rng):
    errors = rng.random((2, 3, SIZE, SIZE), np.float32)
    detector: Detector = type("Own", (Cnn,), {"heat_map": "error"})()
    method, maps = explain_graph.make(network(3), detector, None, lambda clips: tf.constant(errors))
    expected = np.repeat(errors.mean(axis=1, keepdims=True), 3, axis=1)
    np.testing.assert_allclose(maps(tf.zeros((2, 3, SIZE, SIZE, 3), tf.uint8)), expected, rtol=1e-6)
    assert method == "error"
