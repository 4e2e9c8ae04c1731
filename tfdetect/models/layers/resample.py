"""Resizing with Pillow's filters, which published weights were trained with, identical on every backend.

Keras leaves resizing to TensorFlow, torch or jax, whose bicubic kernels and borders differ. Both sizes are static here, so
resizing is one matrix product for the rows and one for the columns.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import PACKAGE, Shape, Tensor

KERNELS = {  # filter weight as a function of the distance in pixels, and the filter's radius
    "bilinear": (lambda x: 1 - x, 1),
    "bicubic": (lambda x: np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2), 2),
}


@keras.saving.register_keras_serializable(PACKAGE)
class PillowResize(keras.layers.Layer):
    """Resize square images to `resize_to` pixels and crop the central `size` pixels.

    (batch, side, side, channels) -> (batch, size, size, channels), both float32 in 0..255; `resize_to` defaults to `size`. When
    an image shrinks, the filter is widened to prevent aliasing. Unlike in Pillow, values are not rounded. Raises ValueError for
    an unknown interpolation.
    """

    def __init__(self, size: int, resize_to: int | None = None, interpolation: str = "bicubic", **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})  # the eight bits of a bfloat16 mantissa would round the pixels
        if interpolation not in KERNELS:
            raise ValueError(f"The interpolation is {interpolation!r}, expected {' or '.join(KERNELS)}.")
        self.size, self.resize_to, self.interpolation = size, resize_to or size, interpolation

    def build(self, input_shape: tuple[int, ...]) -> None:
        margin = (self.resize_to - self.size) // 2
        self.weight_matrix = resampling_matrix(input_shape[1], self.resize_to, self.interpolation)[margin : margin + self.size]
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        weights = ops.convert_to_tensor(self.weight_matrix)
        resized = ops.einsum("oh,bhwc->bowc", weights, inputs)
        return ops.clip(ops.einsum("pw,bowc->bopc", weights, resized), 0.0, 255.0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.size, self.size, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "resize_to": self.resize_to, "interpolation": self.interpolation}


def resampling_matrix(source: int, target: int, interpolation: str) -> np.ndarray:
    """Return float32 (target, source): the weight of every pixel of a row in every pixel of the resized row."""
    kernel, radius = KERNELS[interpolation]
    step = source / target
    centres = (np.arange(target) + 0.5) * step
    distance = np.abs(np.arange(source) + 0.5 - centres[:, None]) / max(step, 1)
    weights = np.where(distance < radius, kernel(distance), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
