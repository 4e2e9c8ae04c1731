"""Heat-maps inside the SavedModel: those of `explain`, computed by TensorFlow operations from clips as the detector sees them.

Clips are (batch, frames, size, size, 3) uint8, RGB 0..255, their heat-maps (batch, frames, size, size) float32. They are made one
clip after the other, so memory does not grow with the batch.
"""

from collections.abc import Callable
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from tfdetect.detector import Detector
from tfdetect.explain import gradients, heatmaps
from tfdetect.models.float_input import with_float_input

HeatMaps = Callable[[tf.Tensor], tf.Tensor]
OCCLUSION = "occlusion"
CELLS = 4  # hidden squares per side; the default of `explain`
CANNOT_BE_REBUILT = (TypeError, ValueError, NotImplementedError)  # by Keras, with a float input: a layer of a plugin


def make(model: keras.Model, detector: Detector, score: Callable[[tf.Tensor], tf.Tensor],
         errors: HeatMaps) -> tuple[str, HeatMaps, str]:  # fmt: skip
    """Return the method of a detector's heat-maps, what makes them, and in a sentence why it is not its own method, "" if it is.

    It is occlusion where there is no gradient, or Keras cannot rebuild a plugin's network to take one. `score` maps clips to
    scores (batch,), `errors` to the reconstruction errors of an autoencoder at each pixel.
    """
    if detector.heat_map == "error":
        return "error", lambda clips: _of_all_frames(tf.reduce_mean(errors(clips), axis=1, keepdims=True), clips), ""
    reason, unavailable = "", f"`{detector.heat_map}`, the method of {detector.name}, is not to be had: "
    try:
        if detector.heat_map != OCCLUSION:
            heat_map = {"gradcam": _grad_cam, "integrated_gradients": _integrated_gradients}[detector.heat_map](model)
            clips = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
            return detector.heat_map, tf.function(_one_by_one(heat_map), autograph=False).get_concrete_function(clips), ""
    except gradients.NoGradient as error:
        reason = f"{unavailable}it is a detector {error}."
    except CANNOT_BE_REBUILT as error:
        reason = f"{unavailable}Keras cannot rebuild it with a float input ({' '.join(str(error).split())[:200]})."
    frames, size = model.input_shape[1:3]
    return OCCLUSION, lambda clips: _of_all_frames(_one_by_one(_occlusion(score, frames, size))(clips), clips), reason


def _one_by_one(heat_map: HeatMaps) -> HeatMaps:
    return lambda clips: tf.map_fn(heat_map, clips, parallel_iterations=1, fn_output_signature=tf.float32)


def _of_all_frames(maps: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    """Repeat the one map of each clip, (batch, 1, size, size), for all its frames."""
    return tf.tile(maps, (1, tf.shape(clips)[1], 1, 1))


def _grad_cam(model: keras.Model) -> HeatMaps:
    copy = with_float_input(model)
    grad_cam = gradients.GradCam(copy)
    return _with_weights(copy, model, lambda clip: grad_cam.maps(tf.cast(clip, tf.float32)[None])[0])


def _integrated_gradients(model: keras.Model) -> HeatMaps:
    """As `gradients.integrated_gradients` from black, blurred by `gradients.smooth`."""
    copy, size = with_float_input(model), model.input_shape[2]
    points, weights = np.polynomial.legendre.leggauss(gradients.STEPS)
    parts = tuple(tf.constant(values.reshape(-1, gradients.CLIPS_PER_CALL) / 2, tf.float32) for values in (points + 1, weights))
    blur = tf.constant(_blur_matrix(size))

    def heat_map(clip: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(clip, tf.float32)

        def weighted_gradient(part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            batch = part[0][:, None, None, None, None] * pixels
            with tf.GradientTape() as tape:
                tape.watch(batch)
                score = copy(batch, training=False)[:, 0]
            if (gradient := tape.gradient(score, batch)) is None:
                raise gradients.NoGradient("whose score has no gradient with respect to the pixels")
            return tf.tensordot(part[1], gradient, 1)

        gradient = tf.reduce_sum(tf.map_fn(weighted_gradient, parts, parallel_iterations=1, fn_output_signature=tf.float32), 0)
        return blur @ tf.reduce_sum(pixels * gradient, axis=-1) @ tf.transpose(blur)

    return _with_weights(copy, model, heat_map)


def _blur_matrix(size: int) -> np.ndarray:
    """Return the matrix (size, size) float32 that blurs the columns of a heat-map as `gradients.smooth` does."""
    sigma = size / gradients.BLUR
    taps = round(8 * sigma + 1) | 1  # as OpenCV chooses them for floats
    return cv2.GaussianBlur(np.eye(size, dtype=np.float32), (1, taps), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT)


def _with_weights(copy: keras.Model, model: keras.Model, function: HeatMaps) -> HeatMaps:
    """Return a function that calls `copy`, as one of the weights of `model`, which the SavedModel then holds once."""

    def call(clip: tf.Tensor) -> tf.Tensor:
        pairs = [(own, weight.value) for own, weight in zip(copy.weights, model.weights, strict=True)]
        with keras.StatelessScope(state_mapping=pairs):
            return function(clip)

    return call


def _occlusion(score: Callable[[tf.Tensor], tf.Tensor], frames: int, size: int) -> HeatMaps:
    """As `heatmaps.occlusion_map`, with all squares of a row of them at a time."""
    cells = min(CELLS, size)
    count = 2 * cells - 1
    masks = heatmaps.square_masks(size, size, cells).reshape(count, count, size, size)
    sides: Any = masks[:, 0].any(axis=2), masks[0].any(axis=1)  # (count, size): the graph holds these, not all masks
    covered = masks.sum(axis=(0, 1)).astype(np.float32)

    def heat_map(clip: tf.Tensor) -> tf.Tensor:
        def scores_of_row(rows: tf.Tensor) -> tf.Tensor:
            hidden = rows[:, None] & tf.constant(sides[1])[:, None]  # (count, size, size)
            weights = tf.cast(hidden, tf.float32)
            mean = tf.einsum("mhw,fhwc->mfc", weights, tf.cast(clip, tf.float32)) / tf.reduce_sum(weights, (1, 2))[:, None, None]
            mean = tf.cast(tf.round(mean), tf.uint8)[:, :, None, None]
            return score(tf.where(hidden[:, None, :, :, None], mean, clip))

        rows, columns = (tf.constant(side) for side in sides)
        hidden = tf.map_fn(scores_of_row, rows, parallel_iterations=1, fn_output_signature=tf.float32)
        drops = score(clip[None]) - hidden  # (count, count)
        total = tf.einsum("rk,rh,kw->hw", drops, tf.cast(rows, tf.float32), tf.cast(columns, tf.float32))
        return (total / tf.constant(covered))[None]

    return heat_map
