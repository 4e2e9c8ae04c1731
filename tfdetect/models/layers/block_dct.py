"""What `residual` is made of: cosines of 8 x 8 blocks, where a pixel keeps its place in the grid that JPEG works in."""

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import BLOCK, PACKAGE

PLANES = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # Y, Cb, Cr


@keras.saving.register_keras_serializable(PACKAGE)
class BlockDCT(keras.layers.Layer):
    """What JPEG stores: RGB pictures (batch, height, width, 3) in -1..1 -> (batch, height/8, width/8, channels).

    Of Y, Cb and Cr 64 each, in grey levels of 0..255, less the block's mean and what is finer than `finest` (the sum of
    the two frequencies, at most 14). Of each comes tanh(c / reach): signs, and small values apart. With `strength`, as many
    of log(1 + |c|) / 3 follow.
    """

    def __init__(self, reach=20.0, finest=14, strength=True, **options):
        super().__init__(**{"dtype": "float32", **options})  # eight bits of mantissa would be coarser than the traces
        self.reach, self.finest, self.strength = reach, finest, strength

    def build(self, input_shape):
        self.kernel = dct_kernel(self.finest)
        self.built = True

    def call(self, inputs):
        found = ops.conv(inputs, ops.convert_to_tensor(self.kernel), strides=BLOCK, padding="valid")
        signs = ops.tanh(found / self.reach)
        return ops.concatenate([signs, ops.log1p(ops.abs(found)) / 3], axis=-1) if self.strength else signs

    def compute_output_shape(self, input_shape):
        sides = [side and side // BLOCK for side in input_shape[1:3]]
        return (input_shape[0], *sides, (2 if self.strength else 1) * dct_kernel(self.finest).shape[-1])

    def get_config(self):
        return {**super().get_config(), "reach": self.reach, "finest": self.finest, "strength": self.strength}


@keras.saving.register_keras_serializable(PACKAGE)
class BlockDCTEnergies(keras.layers.Layer):
    """How strong each cosine is in each part of a picture: RGB (batch, height, width, 3) in -1..1 -> (batch, parts x cosines).

    The mean of log(1 + |c|) over the blocks of 8 x 8 pixels of each of `grid` x `grid` parts; fewer parts where there are fewer
    blocks.
    """

    def __init__(self, grid=8, **options):
        super().__init__(**{"dtype": "float32", **options})
        self.grid = grid

    def build(self, input_shape):
        self.kernel = dct_kernel(14)
        self.pool = tuple(max(1, side // BLOCK // self.grid) for side in input_shape[1:3])
        self.built = True

    def call(self, inputs):
        found = ops.conv(inputs, ops.convert_to_tensor(self.kernel), strides=BLOCK, padding="valid")
        mean = ops.average_pool(ops.log1p(ops.abs(found)), tuple(self.pool), tuple(self.pool), padding="valid")
        return ops.reshape(mean, (-1, int(np.prod(mean.shape[1:]))))

    def compute_output_shape(self, input_shape):
        pool = [max(1, side // BLOCK // self.grid) for side in input_shape[1:3]]
        parts = [side // BLOCK // size for side, size in zip(input_shape[1:3], pool, strict=True)]
        return (input_shape[0], parts[0] * parts[1] * dct_kernel(14).shape[-1])

    def get_config(self):
        return {**super().get_config(), "grid": self.grid}


def dct_kernel(finest):
    """The orthonormal cosines of a block but its mean, for each plane, times 127.5: float32 (8, 8, 3, planes x waves)."""
    steps = np.arange(BLOCK)
    wave = np.cos(np.pi * (2 * steps + 1) * steps[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    wave[0] /= np.sqrt(2)
    every = 127.5 * np.einsum("uy,vx,pc->yxcpuv", wave, wave, PLANES)
    kept = (steps[:, None] + steps > 0) & (steps[:, None] + steps <= finest)
    return every[..., kept].reshape(BLOCK, BLOCK, 3, -1).astype(np.float32)


@keras.saving.register_keras_serializable(PACKAGE)
class BranchDropout(keras.layers.Layer):
    """Features (batch, a) and (batch, b) -> (batch, a + b). In training, one of the two is zero for each picture.

    So each learns to tell by itself, and the one that learns by heart first does not keep the other from learning.
    """

    def __init__(self, share=0.5, seed=None, **options):
        super().__init__(**options)
        self.share, self.seed = share, seed  # of the pictures that the first learns from
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        first, second = inputs
        if training:
            chosen = keras.random.uniform((ops.shape(first)[0], 1), seed=self.generator) < self.share
            first, second = ops.where(chosen, first, 0), ops.where(chosen, 0, second)
        return ops.concatenate([first, second], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], input_shape[0][1] + input_shape[1][1])

    def get_config(self):
        return {**super().get_config(), "share": self.share, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class RunningMeanSubtraction(keras.layers.Layer):
    """(batch, features) less their mean over the training pictures, which follows the batches as BatchNormalization's does.

    The spread stays: features of little spread have little to say here, and must not be blown up.
    """

    def __init__(self, momentum=0.98, **options):
        super().__init__(**options)
        self.momentum = momentum

    def build(self, input_shape):
        self.mean = self.add_weight(shape=(input_shape[-1],), initializer="zeros", trainable=False, name="mean",
                                    aggregation="mean", dtype="float32")  # fmt: skip
        self.built = True

    def call(self, inputs, training=False):
        mean = ops.convert_to_tensor(self.mean)
        if training:
            here = ops.mean(ops.cast(inputs, "float32"), axis=0)
            mean = self.momentum * mean + (1 - self.momentum) * here
            self.mean.assign(mean)
        return inputs - ops.cast(mean, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
