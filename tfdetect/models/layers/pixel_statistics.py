"""Some twenty statistics of a clip's pixels, which say how it was processed: contrast, sharpness, noise, change over time."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.block_dct import RGB_TO_YCBCR
from tfdetect.models.layers.common import PACKAGE, Float32Layer, Shape, Tensor

BANDS = 4  # octaves of spatial frequency, the highest first
FLOOR = 1e-4  # a fortieth of a grey level: keeps logarithms finite
# Luma is a multiple of 1/1000 grey level: limits between two of these are the same whichever way a backend rounds.
FLAT = 0.4995 / 255  # neighbours that differ by less than half a level are equal
BLACK, WHITE = 2.0005 / 255, 252.9995 / 255  # levels up to 2, and from 253 on


@keras.saving.register_keras_serializable(PACKAGE)
class PixelStatistics(Float32Layer):
    """Statistics of RGB clips (batch, frames, height, width, 3) in 0..255, averaged over their frames -> (batch, n) float32.

    Means of red, green and blue; logarithms of the deviation of Y, Cb and Cr, of the energy in octaves of spatial frequency, of
    horizontal and vertical gradients, of the residual of a noise filter (J. Immerkaer, "Fast noise variance estimation", 1996)
    and its kurtosis; the share of diagonal detail, of equal neighbours, and of black and white pixels; for clips of several
    frames the logarithms of the change from frame to frame, of its change, and of the change in brightness. Colours are in 0..1.
    """

    def call(self, inputs: Tensor) -> Tensor:
        frames, height, width = inputs.shape[1:4]
        rgb = ops.cast(inputs, "float32") / 255.0
        planes = ops.matmul(rgb, ops.convert_to_tensor(RGB_TO_YCBCR.T.astype(np.float32)))
        images = ops.reshape(planes, (-1, height, width, 3))
        stills = ops.concatenate([ops.mean(ops.reshape(rgb, (-1, height, width, 3)), axis=(1, 2)), *_stills(images)], axis=-1)
        out = [ops.mean(ops.reshape(stills, (-1, frames, stills.shape[-1])), axis=1)]
        if frames > 1:
            out.append(_changes(planes[..., 0]))
        return ops.concatenate(out, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        bands = _band_count(input_shape[2], input_shape[3])
        return (input_shape[0], 3 + 3 + bands + min(bands, 2) + 1 + 2 + 2 + 3 + (3 if (input_shape[1] or 0) > 1 else 0))


def _band_count(height: Any, width: Any) -> int:
    return min(BANDS, int(np.log2(min(height, width))))


def _stills(images: Tensor) -> list[Tensor]:
    """Return statistics (batch, n) of single images in Y, Cb and Cr, (batch, height, width, 3), with white at 1."""
    luma = images[..., :1]
    across, down = luma[:, :, 1:] - luma[:, :, :-1], luma[:, 1:] - luma[:, :-1]
    bends = across[:, :, 1:] - across[:, :, :-1]
    residual = bends[:, :-2] + bends[:, 2:] - 2 * bends[:, 1:-1]
    power = _mean(ops.square(residual))
    kurtosis = _mean(ops.square(ops.square(residual))) / ops.square(power + FLOOR**2)
    flat = ops.mean(ops.cast(ops.abs(across) < FLAT, "float32"), axis=(1, 2))
    ends = [ops.mean(ops.cast(at_end, "float32"), axis=(1, 2)) for at_end in (luma < BLACK, luma > WHITE)]
    return [_log(ops.std(images, axis=(1, 2))), *_bands(images), _log(_mean(ops.abs(across))), _log(_mean(ops.abs(down))),
            _log(ops.sqrt(power)), ops.log(kurtosis + 1.0), flat, *ends]  # fmt: skip


def _bands(images: Tensor) -> list[Tensor]:
    """Return the logarithms of the energy of luma in each octave, and of chroma in the two highest, and the share of diagonal
    detail in the highest: that of Haar's wavelets."""
    luma, chroma = [], []
    diagonal: Tensor = None
    for band in range(_band_count(*images.shape[1:3])):
        height, width = images.shape[1] // 2, images.shape[2] // 2
        blocks = ops.reshape(images[:, : 2 * height, : 2 * width], (-1, height, 2, width, 2, 3))
        images = ops.mean(blocks, axis=(2, 4))
        energy = ops.mean(ops.square(blocks - images[:, :, None, :, None]), axis=(1, 2, 3, 4))
        luma.append(_log(ops.sqrt(energy[:, :1])))
        if band < 2:
            chroma.append(_log(ops.sqrt(ops.mean(energy[:, 1:], axis=1, keepdims=True))))
        if not band:
            corners = (blocks[:, :, 0, :, 0] - blocks[:, :, 0, :, 1] - blocks[:, :, 1, :, 0] + blocks[:, :, 1, :, 1])[..., :1] / 4
            diagonal = _mean(ops.square(corners)) / (energy[:, :1] + FLOOR**2)
    return [*luma, *chroma, diagonal]


def _changes(luma: Tensor) -> Tensor:
    """Return the logarithms of how clips (batch, frames, height, width) in 0..1 change over time, (batch, 3)."""
    change = luma[:, 1:] - luma[:, :-1]
    jerk = change[:, 1:] - change[:, :-1] if luma.shape[1] > 2 else change
    means = [ops.mean(_mean(values, (3, 2)), axis=1) for values in (ops.abs(change), ops.abs(jerk))]
    brightness = ops.mean(ops.abs(_mean(change, (3, 2))), axis=1)
    return _log(ops.stack([*means, brightness], axis=-1))


def _mean(values: Tensor, axes: tuple[int, ...] = (2, 1)) -> Tensor:
    """Return the mean over width and height, one after the other: ONNX Runtime adds up numbers in turn in float32, and over a
    whole picture loses all but four digits."""
    for axis in axes:
        values = ops.mean(values, axis=axis)
    return values


def _log(values: Tensor) -> Tensor:
    return ops.log(values + FLOOR)
