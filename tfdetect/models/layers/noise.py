"""Layers that describe the noise of an image, which generators and cameras leave behind: high-pass residuals and the spectrum."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.autoencoder import ring_average_matrix
from tfdetect.models.layers.block_dct import RGB_TO_YCBCR
from tfdetect.models.layers.common import PACKAGE, Float32Layer, Shape, Tensor

SQUARE_3 = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
SQUARE_5 = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
FILTERS = ([[0, -1, 1]], [[0], [-1], [1]], [[1, -2, 1]], [[1], [-2], [1]], SQUARE_3, SQUARE_5)
STEPS = (2.0, 1.0, 1.0)  # quantisation of the residuals of Y, Cb and Cr in grey levels
LEVELS = 5  # of quantised residuals: -2 to 2
PLANES = 3 * len(FILTERS)


@keras.saving.register_keras_serializable(PACKAGE)
class ResidualStatistics(Float32Layer):
    """Statistics of high-pass residuals: RGB images (batch, height, width, 3) in 0..255 -> (batch, 972).

    Six filters of the spatial rich model (Fridrich and Kodovsky 2012, doi 10.1109/TIFS.2012.2190402) on Y, Cb and Cr; generators
    show in the residuals of chroma, too (Li et al. 2020, arXiv 1808.07276). Of each residual plane: the logarithms of mean
    magnitude, standard deviation and kurtosis, and the square roots of the frequencies with which two neighbours have each pair
    of quantised values, horizontally and vertically. Of each filter: the correlations between the three planes.
    """

    def build(self, input_shape: Shape) -> None:
        self.kernel = residual_kernel()
        self.steps = np.repeat(STEPS, len(FILTERS)).astype(np.float32)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        planes = ops.matmul(inputs, ops.convert_to_tensor(RGB_TO_YCBCR.T.astype(np.float32)))
        residuals = ops.depthwise_conv(planes, ops.convert_to_tensor(self.kernel), padding="valid")
        size = (-1, int(np.prod(residuals.shape[1:3])), PLANES)
        quantised = ops.clip(ops.round(residuals / self.steps), -2, 2)
        # Image by image, because the indicators of all levels take five times the memory of the residuals.
        pairs = ops.map(co_occurrences, quantised)
        return ops.concatenate([moments(ops.reshape(residuals, size)), ops.sqrt(pairs)], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], PLANES * 3 + PLANES + PLANES * 2 * LEVELS**2)


def moments(residuals: Tensor) -> Tensor:
    """Return moments and correlations of residuals (batch, positions, planes): (batch, 4 x planes)."""
    magnitude, squares = ops.mean(ops.abs(residuals), axis=1), ops.mean(ops.square(residuals), axis=1)
    kurtosis = ops.mean(ops.square(ops.square(residuals)), axis=1) / ops.square(squares + 0.01)
    y, cb, cr = ops.split(residuals, 3, axis=-1)  # each with all filters
    y_power, cb_power, cr_power = ops.split(squares + 0.01, 3, axis=-1)
    pairs = (y, cb, y_power * cb_power), (cb, cr, cb_power * cr_power), (cr, y, cr_power * y_power)
    correlations = [ops.mean(left * right, axis=1) / ops.sqrt(power) for left, right, power in pairs]
    logarithms = [ops.log(magnitude + 0.1), 0.5 * ops.log(squares + 0.01), ops.log(kurtosis + 0.1)]
    return ops.concatenate([*logarithms, *correlations], axis=-1)


def co_occurrences(quantised: Tensor) -> Tensor:
    """Return the frequencies of pairs of neighbours in -2..2 of one image's planes (height, width, planes): (planes x 50,)."""
    planes = quantised.shape[-1]
    indicators = ops.cast(ops.equal(quantised[..., None], np.arange(-2, 3, dtype=np.float32)), "float32")
    out = []
    for first, second in ((indicators[:, :-1], indicators[:, 1:]), (indicators[:-1], indicators[1:])):
        count = int(np.prod(first.shape[:2]))
        first, second = (ops.transpose(ops.reshape(x, (count, planes, LEVELS)), (1, 0, 2)) for x in (first, second))
        out.append(ops.reshape(ops.matmul(ops.transpose(first, (0, 2, 1)), second) / count, (planes, LEVELS**2)))
    return ops.reshape(ops.concatenate(out, axis=1), (planes * 2 * LEVELS**2,))


def residual_kernel() -> np.ndarray:
    """Return the filters, divided by their largest coefficient: float32 (5, 5, 3, filters), a depthwise kernel."""
    kernel = np.zeros((5, 5, len(FILTERS)), np.float32)
    for number, values in enumerate(FILTERS):
        array = np.array(values, np.float32)
        top, left = ((5 - side) // 2 for side in array.shape)
        kernel[top : top + array.shape[0], left : left + array.shape[1], number] = array / np.abs(array).max()
    return np.repeat(kernel[:, :, None], 3, axis=2)


@keras.saving.register_keras_serializable(PACKAGE)
class RadialSpectrum(Float32Layer):
    """Radial power spectrum of Y, Cb and Cr: RGB images (batch, height, width, 3) in 0..255 -> (batch, 6 x bins).

    The discrete Fourier transform is taken under a Hann window. The bins are rings of equal width from 0 to half a cycle per
    pixel; of each: the logarithms of the mean power, and of the ratio of the largest power to the mean, which is high where
    upsampling has left periodic patterns. Rings without a coefficient give 0.
    """

    def __init__(self, bins: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.bins = bins

    def build(self, input_shape: tuple[int, ...]) -> None:
        height, width = input_shape[1:3]
        self.window = np.float32(np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]) / np.sqrt(height * width))
        self.ring_average = ring_average_matrix(height, width, self.bins)
        in_ring = self.ring_average > 0
        self.rings = np.where(in_ring.any(axis=1), in_ring.argmax(axis=1), self.bins).astype("int32")  # the last: the corners
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        planes = ops.matmul(inputs, ops.convert_to_tensor(RGB_TO_YCBCR.T.astype(np.float32)))
        planes = ops.transpose(planes - ops.mean(planes, axis=(1, 2), keepdims=True), (0, 3, 1, 2)) * self.window
        real, imaginary = ops.fft2((planes, ops.zeros_like(planes)))
        power = ops.reshape(ops.square(real) + ops.square(imaginary), (-1, 3, self.ring_average.shape[0]))
        mean = ops.matmul(power, ops.convert_to_tensor(self.ring_average)) + 1e-3
        columns = ops.transpose(ops.reshape(power, (-1, power.shape[-1])))
        largest = ops.transpose(ops.segment_max(columns, self.rings, self.bins + 1)[: self.bins])
        peaks = ops.log1p(ops.reshape(ops.maximum(largest, 0), (-1, 3, self.bins)) / mean)
        return ops.reshape(ops.concatenate([ops.log(mean), peaks], axis=-1), (-1, 6 * self.bins))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 6 * self.bins)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}
