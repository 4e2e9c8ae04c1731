"""The heat-maps of the SavedModel are those of `explain`, which tests/explain proves."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from detectors import clip_shape, make_detector
from keras import layers

from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import REGISTRY, Detector
from tfdetect.evaluation.calibration import Calibration
from tfdetect.explain import gradients, heatmaps
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.float_input import with_float_input
from tfdetect.serving import explain_graph
from tfdetect.serving.notes import format_serving_notes

SIZE = 32


def network(frames, differentiable=True):
    """Return a model of clips whose score depends on place, colour and frame."""
    keras.utils.set_random_seed(0)
    clip = keras.Input((frames, SIZE, SIZE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(clip) if differentiable else layers.Rescaling(1 / 255)(keras.ops.cast(clip, "uint8"))
    x = layers.Conv3D(4, (1, 5, 5), strides=(1, 4, 4), activation="tanh")(x)
    return keras.Model(clip, layers.Dense(1)(layers.Flatten()(x)))


def made(detector, model):
    """Return the method of a detector, its maps of clips as a graph computes them, and why it is not its own method."""
    method, maps, instead = explain_graph.make(model, detector, lambda clips: model(clips)[:, 0], None)
    return method, tf.function(maps, autograph=False), instead


@pytest.mark.parametrize("mirror", [True, False])
def test_grad_cam(rng, mirror):
    keras.utils.set_random_seed(0)
    model = Cnn(width=4, mirror=mirror).build((1, SIZE, SIZE, 3))
    clips = rng.integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8)
    method, maps, instead = made(type("Own", (Cnn,), {"heat_map": "gradcam"})(), model)
    expected = gradients.GradCam(with_float_input(model))(clips)
    np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-6 * expected.max())
    assert (method, instead) == ("gradcam", "") and expected.max() > 0


def test_integrated_gradients(rng):
    keras.utils.set_random_seed(0)
    model = CnnLstm().build((3, SIZE, SIZE, 3))
    clips = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8)
    method, maps, instead = made(CnnLstm(), model)
    expected = np.stack([gradients.smooth(gradients.integrated_gradients(with_float_input(model), clip)[0]) for clip in clips])
    np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-5 * np.abs(expected).max())
    assert (method, instead) == ("integrated_gradients", "") and np.ptp(expected) > 0


@pytest.mark.parametrize("frames", [1, 3])
def test_occlusion_where_that_is_the_method_or_there_is_no_gradient(rng, frames):
    model = network(frames, differentiable=False)
    clips = rng.integers(0, 256, (2, frames, SIZE, SIZE, 3), np.uint8)
    for heat_map in ("occlusion", "integrated_gradients"):
        detector = type("Own", (Cnn,), {"heat_map": heat_map})()
        method, maps, instead = made(detector, model)
        score = lambda clips: model(clips)[:, 0].numpy()  # noqa: E731
        expected = np.stack([np.repeat(heatmaps.occlusion_map(score, clip)[None], frames, axis=0) for clip in clips])
        np.testing.assert_allclose(maps(tf.constant(clips)), expected, atol=1e-6 * np.abs(expected).max())
        assert method == "occlusion" and np.ptp(expected) > 0
        assert instead == ("" if heat_map == "occlusion" else "`integrated_gradients`, the method of cnn, is not to be had: "
                           "it is a detector whose score has no gradient with respect to the pixels.")  # fmt: skip


def test_a_network_that_keras_cannot_rebuild_is_said():
    class Own(layers.Layer):
        def __init__(self, factor):
            super().__init__()

        def call(self, inputs):
            return inputs

    clip = keras.Input((1, SIZE, SIZE, 3), dtype="uint8")
    model = keras.Model(clip, layers.Dense(1)(layers.Flatten()(Own(2)(layers.Rescaling(1 / 255)(clip)))))
    method, _, instead = made(Cnn(), model)
    assert method == "occlusion"
    assert re.fullmatch(r"`integrated_gradients`, .*: Keras cannot rebuild it with .* \(.*Own.*\)\.", instead)
    notes = format_serving_notes({}, ClipSpec(1, SIZE), Calibration(1.0, 0.0, 0.5), method, instead=instead)
    assert f"It takes 50 scores. {instead}\n" in notes


PROMISE_A_GRADIENT = [name for name, cls in REGISTRY.items() if cls.heat_map in ("gradcam", "integrated_gradients")]


@pytest.mark.parametrize("name", PROMISE_A_GRADIENT)
def test_detectors_of_the_suite_that_promise_a_gradient_have_one(name):
    detector = make_detector(REGISTRY[name])
    method, _, instead = made(detector, detector.build(clip_shape(REGISTRY[name])))
    assert (method, instead) == (detector.heat_map, "")


def test_reconstruction_error_is_averaged_over_the_frames_of_a_clip(rng):
    errors = rng.random((2, 3, SIZE, SIZE), np.float32)
    detector: Detector = type("Own", (Cnn,), {"heat_map": "error"})()
    method, maps, instead = explain_graph.make(network(3), detector, None, lambda clips: tf.constant(errors))
    expected = np.repeat(errors.mean(axis=1, keepdims=True), 3, axis=1)
    np.testing.assert_allclose(maps(tf.zeros((2, 3, SIZE, SIZE, 3), tf.uint8)), expected, rtol=1e-6)
    assert (method, instead) == ("error", "")
