"""Resizing as Pillow does it, which published weights were trained with, the same on every backend.

Keras leaves resizing to TensorFlow, torch or jax, whose bicubic kernels and borders differ. Both sizes are known here, so it
is one matrix for the rows and one for the columns.
"""

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import PACKAGE

KERNELS = {  # weight at a distance in pixels, and how far it reaches
    "bilinear": (lambda x: 1 - x, 1),
    "bicubic": (lambda x: np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2), 2),
}


@keras.saving.register_keras_serializable(PACKAGE)
class Resample(keras.layers.Layer):
    """Square pictures (batch, side, side, channels), 0..255 -> (batch, size, size, channels), 0..255, in float32.

    The whole picture is resized to `whole` pixels, and the middle `size` of them kept. When it shrinks, the kernel widens
    (antialiasing), so that no texture folds over into coarser one. Unlike Pillow's, the values are not rounded.
    """

    def __init__(self, size, whole=None, interpolation="bicubic", **options):
        super().__init__(**{"dtype": "float32", **options})  # eight bits of mantissa would round the pixels
        if interpolation not in KERNELS:
            raise ValueError(f"The interpolation is {interpolation!r}, expected {' or '.join(KERNELS)}.")
        self.size, self.whole, self.interpolation = size, whole or size, interpolation

    def build(self, input_shape):
        margin = (self.whole - self.size) // 2
        self.matrix = matrix(input_shape[1], self.whole, self.interpolation)[margin : margin + self.size]
        self.built = True

    def call(self, inputs):
        weights = ops.convert_to_tensor(self.matrix)
        rows = ops.einsum("oh,bhwc->bowc", weights, inputs)
        return ops.clip(ops.einsum("pw,bowc->bopc", weights, rows), 0.0, 255.0)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "whole": self.whole, "interpolation": self.interpolation}


def matrix(source, target, interpolation):
    """float32 (target, source): how much of each pixel of a row goes into each one of the resized row."""
    kernel, reach = KERNELS[interpolation]
    step = source / target
    centres = (np.arange(target) + 0.5) * step
    distance = np.abs(np.arange(source) + 0.5 - centres[:, None]) / max(step, 1)
    found = np.where(distance < reach, kernel(distance), 0)
    return (found / found.sum(1, keepdims=True)).astype(np.float32)
