"""Layers that return novelty scores of feature vectors against the training reals, with fitted values as frozen weights."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import PACKAGE, PerImageScore, Shape, Tensor, root_mean_square, squared_distances


class FittedScore(PerImageScore):
    """Base class of scores whose weights are fitted elsewhere, not trained by gradient descent.

    `initial_values` maps the names of weights to their values; a value of None leaves ones, to be replaced when a saved model is
    loaded.
    """

    def __init__(self, initial_values: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.initial_values = initial_values

    def add_frozen_weights(self, shapes: Mapping[str, Shape]) -> None:
        """Create a non-trainable weight for each name, in this order."""
        self.frozen_weights = []
        for name, shape in shapes.items():
            weight = self.add_weight(shape=shape, initializer="ones", trainable=False, name=name, dtype="float32")
            if self.initial_values[name] is not None:
                weight.assign(self.initial_values[name])
            self.frozen_weights.append(weight)
        self.built = True


@keras.saving.register_keras_serializable(PACKAGE)
class KNNDistance(FittedScore):
    """Mean Euclidean distance to the `k` nearest rows of `bank` (num_rows, n): (batch, n) -> (batch, 1)."""

    def __init__(self, bank: np.ndarray | None = None, k: int = 1, num_rows: int | None = None, **options: Any) -> None:
        super().__init__({"bank": bank}, **options)
        self.k, self.num_rows = k, _first_size(bank, num_rows)

    def build(self, input_shape: Shape) -> None:
        self.add_frozen_weights({"bank": (self.num_rows, input_shape[-1])})

    def call(self, inputs: Tensor) -> Tensor:
        bank = ops.convert_to_tensor(self.frozen_weights[0])
        nearest = -ops.top_k(-squared_distances(inputs, bank), min(self.k, self.num_rows))[0]
        return ops.mean(ops.sqrt(ops.maximum(nearest, 0.0) + 1e-12), axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "num_rows": self.num_rows}


@keras.saving.register_keras_serializable(PACKAGE)
class SubspaceResidual(FittedScore):
    """Root mean square of the part of the standardised vector outside a subspace: (batch, n) -> (batch, 1).

    `mean` and `scale` (n,) standardise the vector; the rows of `axes` (num_components, n) are an orthonormal basis.
    """

    def __init__(self, mean: np.ndarray | None = None, scale: np.ndarray | None = None, axes: np.ndarray | None = None,
                 num_components: int | None = None, **options: Any) -> None:  # fmt: skip
        super().__init__({"mean": mean, "scale": scale, "axes": axes}, **options)
        self.num_components = _first_size(axes, num_components)

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        self.add_frozen_weights({"mean": (width,), "scale": (width,), "axes": (self.num_components, width)})

    def call(self, inputs: Tensor) -> Tensor:
        mean, scale, axes = map(ops.convert_to_tensor, self.frozen_weights)
        z = (inputs - mean) / scale
        return root_mean_square(z - ops.matmul(ops.matmul(z, ops.transpose(axes)), axes))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianMixtureNLL(FittedScore):
    """Negative log density, in nats, under a mixture of Gaussians with diagonal covariances: (batch, n) -> (batch, 1).

    `weights` (num_components,) sum to 1; `means` and `variances` are (num_components, n).
    """

    def __init__(self, weights: np.ndarray | None = None, means: np.ndarray | None = None, variances: np.ndarray | None = None,
                 num_components: int | None = None, **options: Any) -> None:  # fmt: skip
        super().__init__({"mixture_weights": weights, "means": means, "variances": variances}, **options)
        self.num_components = _first_size(weights, num_components)

    def build(self, input_shape: Shape) -> None:
        shape = (self.num_components, input_shape[-1])
        self.add_frozen_weights({"mixture_weights": shape[:1], "means": shape, "variances": shape})

    def call(self, inputs: Tensor) -> Tensor:
        weights, means, variances = map(ops.convert_to_tensor, self.frozen_weights)
        distance = ops.square(inputs[:, None] - means) / variances + ops.log(2 * np.pi * variances)
        return -ops.logsumexp(ops.log(weights) - 0.5 * ops.sum(distance, axis=-1), axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


def _first_size(values: np.ndarray | None, size: int | None) -> int:
    """Return `size`, which a saved config holds, or else the number of rows of `values`. Raises ValueError without either."""
    if size is not None:
        return size
    if values is None:
        raise ValueError("Give the fitted values, or the number of their rows.")
    return len(values)
