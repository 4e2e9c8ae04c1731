"""Layers on the discrete cosine transform (DCT) of 8 x 8 blocks, the form in which JPEG stores an image."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import BLOCK_SIZE, PACKAGE, SeededLayer, Shape, Tensor

RGB_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
MAX_FREQUENCY = 2 * (BLOCK_SIZE - 1)  # the largest sum of the vertical and the horizontal frequency


@keras.saving.register_keras_serializable(PACKAGE)
class BlockDCT(keras.layers.Layer):
    """Block DCT coefficients of RGB images (batch, height, width, 3) in -1..1 -> (batch, height/8, width/8, channels).

    Each block yields the coefficients of Y, Cb and Cr in grey levels, without the block mean (DC) and without frequencies above
    `max_frequency`, the sum of the vertical and the horizontal frequency (14 keeps all 63 per plane). A coefficient c becomes
    tanh(c / saturation), which keeps its sign and resolves small values. With `log_magnitude`, log(1 + |c|) / 3 of every
    coefficient is appended.
    """

    def __init__(self, saturation: float = 20.0, max_frequency: int = MAX_FREQUENCY, log_magnitude: bool = True,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(**{"dtype": "float32", **options})  # the eight bits of a bfloat16 mantissa are coarser than the traces
        self.saturation, self.max_frequency, self.log_magnitude = saturation, max_frequency, log_magnitude

    def build(self, input_shape: Shape) -> None:
        self.kernel = dct_kernel(self.max_frequency)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        coefficients = ops.conv(inputs, ops.convert_to_tensor(self.kernel), strides=BLOCK_SIZE, padding="valid")
        saturated = ops.tanh(coefficients / self.saturation)
        return ops.concatenate([saturated, ops.log1p(ops.abs(coefficients)) / 3], axis=-1) if self.log_magnitude else saturated

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sides = [side and side // BLOCK_SIZE for side in input_shape[1:3]]
        return (input_shape[0], *sides, (2 if self.log_magnitude else 1) * dct_kernel(self.max_frequency).shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "saturation": self.saturation, "max_frequency": self.max_frequency,
                "log_magnitude": self.log_magnitude}  # fmt: skip


@keras.saving.register_keras_serializable(PACKAGE)
class BlockDCTEnergies(keras.layers.Layer):
    """Mean log magnitudes of block DCT coefficients per image region.

    RGB images (batch, height, width, 3) in -1..1 -> (batch, regions x coefficients): the mean of log(1 + |c|) over the 8 x 8
    blocks of each region of a `grid` x `grid` raster, or of fewer regions where the image has fewer blocks.
    """

    def __init__(self, grid: int = 8, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.grid = grid

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.kernel = dct_kernel(MAX_FREQUENCY)
        self.pool_size = self._pool_size(input_shape)
        self.built = True

    def _pool_size(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Blocks per region, vertically and horizontally."""
        return tuple(max(1, side // BLOCK_SIZE // self.grid) for side in input_shape[1:3])

    def call(self, inputs: Tensor) -> Tensor:
        coefficients = ops.conv(inputs, ops.convert_to_tensor(self.kernel), strides=BLOCK_SIZE, padding="valid")
        pool_size = tuple(self.pool_size)
        mean = ops.average_pool(ops.log1p(ops.abs(coefficients)), pool_size, pool_size, padding="valid")
        return ops.reshape(mean, (-1, int(np.prod(mean.shape[1:]))))

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> Shape:
        pool_size = self._pool_size(input_shape)
        rows, columns = (side // BLOCK_SIZE // size for side, size in zip(input_shape[1:3], pool_size, strict=True))
        return (input_shape[0], rows * columns * dct_kernel(MAX_FREQUENCY).shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}


def dct_kernel(max_frequency: int) -> np.ndarray:
    """Return the orthonormal DCT basis of an 8 x 8 block in Y, Cb and Cr, without DC and frequencies above `max_frequency`.

    float32 (8, 8, 3, 3 x frequencies), a convolution kernel on RGB in -1..1; times 127.5, so that coefficients are grey levels.
    """
    from scipy.fft import dct

    index, basis = np.arange(BLOCK_SIZE), dct(np.eye(BLOCK_SIZE), axis=0, norm="ortho")
    kernel = 127.5 * np.einsum("uy,vx,pc->yxcpuv", basis, basis, RGB_TO_YCBCR)
    frequency = index[:, None] + index
    selected = (frequency > 0) & (frequency <= max_frequency)
    return kernel[..., selected].reshape(BLOCK_SIZE, BLOCK_SIZE, 3, -1).astype(np.float32)


@keras.saving.register_keras_serializable(PACKAGE)
class BranchDropout(SeededLayer):
    """Concatenate two feature branches (batch, a) and (batch, b) -> (batch, a + b); in training, zero one of them per image.

    An image keeps its first branch with probability `first_rate`, else its second. This stops the branch that overfits first
    from starving the other.
    """

    def __init__(self, first_rate: float = 0.5, seed: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        self.first_rate = first_rate

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        first, second = inputs
        if training:
            keep_first = keras.random.uniform((ops.shape(first)[0], 1), seed=self.generator) < self.first_rate
            first, second = ops.where(keep_first, first, 0), ops.where(keep_first, 0, second)
        return ops.concatenate([first, second], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[tuple[int, ...]]) -> Shape:
        return (input_shape[0][0], input_shape[0][1] + input_shape[1][1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "first_rate": self.first_rate}


@keras.saving.register_keras_serializable(PACKAGE)
class RunningMeanSubtraction(keras.layers.Layer):
    """Subtract the moving average of the training features, (batch, features) -> same shape.

    BatchNormalization would also divide by the standard deviation, which would amplify features that hardly vary.
    """

    def __init__(self, momentum: float = 0.98, **options: Any) -> None:
        super().__init__(**options)
        self.momentum = momentum

    def build(self, input_shape: Shape) -> None:
        self.mean = self.add_weight(shape=(input_shape[-1],), initializer="zeros", trainable=False, name="mean",
                                    aggregation="mean", dtype="float32", autocast=False)  # fmt: skip
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        mean = ops.convert_to_tensor(self.mean)
        if training:
            batch_mean = ops.mean(ops.cast(inputs, "float32"), axis=0)
            mean = self.momentum * mean + (1 - self.momentum) * batch_mean
            self.mean.assign(mean)
        return inputs - ops.cast(mean, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}
