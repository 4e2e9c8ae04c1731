"""Layers that say how unlike the reals of a training a vector is, with what was fitted to these as their weights."""

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.autoencoder import PerImageScore
from tfdetect.models.layers.common import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class KNNDistance(PerImageScore):
    """(batch, n) -> the mean Euclidean distance to the k nearest rows of a bank (rows, n)."""

    def __init__(self, bank=None, k=1, rows=None, **options):
        super().__init__(**options)
        self.k, self.rows, self.bank = k, len(bank) if rows is None else rows, bank

    def build(self, input_shape):
        self.kept = frozen(self, "bank", (self.rows, input_shape[-1]), self.bank)
        self.built = True

    def call(self, inputs):
        bank = ops.convert_to_tensor(self.kept)
        apart = ops.sum(ops.square(inputs), axis=1, keepdims=True) + ops.sum(ops.square(bank), axis=1)
        apart = apart - 2 * ops.matmul(inputs, ops.transpose(bank))
        nearest = -ops.top_k(-apart, min(self.k, self.rows))[0]
        return ops.mean(ops.sqrt(ops.maximum(nearest, 0.0) + 1e-12), axis=1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "k": self.k, "rows": self.rows}


@keras.saving.register_keras_serializable(PACKAGE)
class SubspaceResidual(PerImageScore):
    """(batch, n) -> the root mean square of what, standardised, a subspace leaves over; its axes (components, n) are
    orthonormal."""

    def __init__(self, mean=None, scale=None, axes=None, components=None, **options):
        super().__init__(**options)
        self.components = len(axes) if components is None else components
        self.given = {"mean": mean, "scale": scale, "axes": axes}

    def build(self, input_shape):
        width = input_shape[-1]
        shapes = {"mean": (width,), "scale": (width,), "axes": (self.components, width)}
        self.kept = [frozen(self, name, shape, self.given[name]) for name, shape in shapes.items()]
        self.built = True

    def call(self, inputs):
        mean, scale, axes = map(ops.convert_to_tensor, self.kept)
        z = (inputs - mean) / scale
        left = z - ops.matmul(ops.matmul(z, ops.transpose(axes)), axes)
        return ops.sqrt(ops.mean(ops.square(left), axis=1, keepdims=True) + 1e-12)

    def get_config(self):
        return {**super().get_config(), "components": self.components}


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianMixtureNLL(PerImageScore):
    """(batch, n) -> the negative log density, in nats, under a mixture of Gaussians with a variance for each number."""

    def __init__(self, weights=None, means=None, variances=None, parts=None, **options):
        super().__init__(**options)
        self.parts = len(weights) if parts is None else parts
        self.given = {"shares": weights, "means": means, "variances": variances}

    def build(self, input_shape):
        shapes = {"shares": (self.parts,), "means": (self.parts, input_shape[-1]), "variances": (self.parts, input_shape[-1])}
        self.kept = [frozen(self, name, shape, self.given[name]) for name, shape in shapes.items()]
        self.built = True

    def call(self, inputs):
        shares, means, variances = map(ops.convert_to_tensor, self.kept)
        apart = ops.square(inputs[:, None] - means) / variances + ops.log(2 * np.pi * variances)
        return -ops.logsumexp(ops.log(shares) - 0.5 * ops.sum(apart, axis=-1), axis=1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "parts": self.parts}


def frozen(layer, name, shape, value):
    """A weight that is not trained; of that value, or if none is given, as it will be loaded."""
    made = layer.add_weight(shape=shape, initializer="ones", trainable=False, name=name, dtype="float32")
    if value is not None:
        made.assign(value)
    return made
