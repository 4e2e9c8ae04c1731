"""Layers of heads on features: a support vector machine, nearest neighbours, the closest text, and the triplet loss.

The weights of the layers are not trained by gradient descent: a layer is created with their sizes and filled with `set_weights`.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect.models.layers.common import PACKAGE, Float32Layer, PerImageScore, Shape, Tensor, squared_distances


@keras.saving.register_keras_serializable(PACKAGE)
class SVMDecisionFunction(keras.layers.Layer):
    """Decision function of a binary scikit-learn SVC: (batch, n) -> (batch, 1) float32, higher is more likely class 1.

    The features are standardised first. Everything is computed in float64 (jax falls back to float32 by default), because in
    float32 the scores of an RBF kernel are wrong in the fourth digit. `kernel` is rbf or linear.
    """

    def __init__(self, num_vectors: int = 1, kernel: str = "rbf", gamma: float = 1.0, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float64"})
        self.num_vectors, self.kernel, self.gamma = num_vectors, kernel, gamma

    def build(self, input_shape: Shape) -> None:
        width, count = input_shape[-1], self.num_vectors
        self.mean = self.add_weight(shape=(width,), initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=(width,), initializer="ones", trainable=False, name="scale")
        self.vectors = self.add_weight(shape=(count, width), initializer="random_normal", trainable=False, name="vectors")
        self.dual_coef = self.add_weight(shape=(count, 1), initializer="ones", trainable=False, name="dual_coef")
        self.intercept = self.add_weight(shape=(1,), initializer="zeros", trainable=False, name="intercept")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x = (ops.cast(inputs, self.compute_dtype) - self.mean) / self.scale
        kernel = x @ ops.transpose(self.vectors)  # on torch, ops.matmul and ops.maximum would cast to float32
        if self.kernel == "rbf":
            squares = ops.sum(x * x, axis=1, keepdims=True) + ops.sum(self.vectors * self.vectors, axis=1)
            kernel = ops.exp(-self.gamma * ops.relu(squares - 2 * kernel))
        return ops.cast(kernel @ ops.convert_to_tensor(self.dual_coef) + self.intercept, "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_vectors": self.num_vectors, "kernel": self.kernel, "gamma": self.gamma}


@keras.saving.register_keras_serializable(PACKAGE)
class SetScaling(Float32Layer):
    """Standardise features (batch, n) that consist of several sets: (x - mean) * factor, with weights (n,) each.

    `names` and `widths` name the sets and their numbers of features, in order; `parts` returns which columns they are.
    """

    def __init__(self, names: Sequence[str] = ("",), widths: Sequence[int] = (1,), **options: Any) -> None:
        super().__init__(**options)
        self.names, self.widths = [*names], [*widths]

    def build(self, input_shape: Shape) -> None:
        self.mean = self.add_weight(shape=input_shape[1:], initializer="zeros", trainable=False, name="mean")
        self.factor = self.add_weight(shape=input_shape[1:], initializer="ones", trainable=False, name="factor")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) * self.factor

    def parts(self) -> list[tuple[str, slice]]:
        """Return name and columns of each set."""
        ends = np.cumsum(self.widths).tolist()
        return [(name, slice(end - width, end)) for name, width, end in zip(self.names, self.widths, ends, strict=True)]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "names": self.names, "widths": self.widths}


@keras.saving.register_keras_serializable(PACKAGE)
class KNNMargin(PerImageScore):
    """Mean cosine to the `k` nearest fakes minus mean cosine to the `k` nearest reals: unit vectors (batch, n) -> (batch, 1)."""

    def __init__(self, num_reals: int = 1, num_fakes: int = 1, k: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.num_reals, self.num_fakes, self.k = num_reals, num_fakes, k

    def build(self, input_shape: Shape) -> None:
        self.banks = [
            self.add_weight(shape=(count, input_shape[-1]), initializer="random_normal", trainable=False, name=name)
            for name, count in (("reals", self.num_reals), ("fakes", self.num_fakes))
        ]
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        real, fake = (self._mean_cosine(inputs, bank) for bank in self.banks)
        return fake - real

    def _mean_cosine(self, inputs: Tensor, bank: Any) -> Tensor:
        nearest, _ = ops.top_k(ops.matmul(inputs, ops.transpose(bank)), min(self.k, bank.shape[0]))
        return ops.mean(nearest, axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_reals": self.num_reals, "num_fakes": self.num_fakes, "k": self.k}


@keras.saving.register_keras_serializable(PACKAGE)
class ClosestText(Float32Layer):
    """Return the embedding of the text closest to each image embedding by cosine, and its index in `texts`.

    (batch, n) -> ((batch, n) float32, (batch,) int32). The weight holds the embeddings of `texts`, (len(texts), n).
    """

    def __init__(self, texts: Sequence[str] = ("",), **options: Any) -> None:
        super().__init__(**options)
        self.texts = [*texts]

    def build(self, input_shape: Shape) -> None:
        shape = (len(self.texts), input_shape[-1])
        self.embeddings = self.add_weight(shape=shape, initializer="random_normal", trainable=False, name="embeddings")
        self.built = True

    def call(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = ops.convert_to_tensor(self.embeddings)
        index = ops.argmax(ops.matmul(inputs, ops.transpose(ops.normalize(embeddings))), axis=-1)
        return ops.take(embeddings, index, axis=0), ops.cast(index, "int32")

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return input_shape, input_shape[:1]

    def compute_output_spec(self, inputs: Tensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        return keras.KerasTensor(inputs.shape, "float32"), keras.KerasTensor((inputs.shape[0],), "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "texts": self.texts}


@keras.saving.register_keras_serializable(PACKAGE)
class TripletLoss(keras.losses.Loss):
    """Triplet loss over a batch of unit vectors: max(0, d(anchor, positive) - d(anchor, negative) + margin), d Euclidean.

    y_true (batch, 1): labels in 0..1. y_pred (batch, n): unit vectors. Every row is an anchor; `mining` chooses its triplets
    (Schroff et al. 2015, arXiv 1503.03832; Hermans et al. 2017, arXiv 1703.07737):

    - random: the mean over all positives and negatives, the expected value for random triplets
    - semihard: for each positive, the nearest negative that is farther away than it, or else the farthest negative
    - hard: the farthest positive and the nearest negative
    """

    def __init__(self, margin: float = 0.2, mining: str = "semihard", name: str = "triplet", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.margin, self.mining = margin, mining

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        labels = ops.reshape(y_true, (-1,)) > 0.5
        distance = pairwise_distances(y_pred, y_pred)
        same_class = ops.equal(labels[:, None], labels[None, :])
        diagonal = ops.cast(ops.eye(ops.shape(distance)[0]), "bool")
        negative, positive = ops.logical_not(same_class), ops.logical_and(same_class, ops.logical_not(diagonal))
        has_triplet = ops.cast(ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1)), distance.dtype)
        loss_function = {"random": self._random, "hard": self._hard}.get(self.mining, self._semihard)
        return ops.where(has_triplet > 0, loss_function(distance, positive, negative), 0.0)

    def _random(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the mean over all triplets of each anchor, (batch,)."""
        loss = ops.maximum(distance[:, :, None] - distance[:, None, :] + self.margin, 0)
        triplets = ops.cast(ops.logical_and(positive[:, :, None], negative[:, None, :]), distance.dtype)
        return ops.sum(loss * triplets, axis=(1, 2)) / ops.maximum(ops.sum(triplets, axis=(1, 2)), 1)

    def _hard(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of the hardest triplet of each anchor, (batch,)."""
        nearest_negative = ops.min(ops.where(negative, distance, 9.0), axis=1)  # unit vectors are at most 2 apart
        return ops.maximum(ops.max(ops.where(positive, distance, 0.0), axis=1) - nearest_negative + self.margin, 0)

    def _semihard(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the mean over the positives of each anchor, (batch,), without enumerating all triplets.

        All rows and the negatives alone are sorted by distance to the anchor. A positive with m negatives before it needs the
        negative at index m of the sorted negatives, the first one that is farther away.
        """
        count = ops.shape(distance)[0]
        negated_distance, order = ops.top_k(-distance, count)
        kind = ops.take_along_axis(ops.cast(positive, distance.dtype) - ops.cast(negative, distance.dtype), order, axis=1)
        sorted_negatives, _ = ops.top_k(ops.where(negative, -distance, -9.0), count)  # negated distances
        negatives_before = ops.cumsum(ops.cast(kind < 0, "int32"), axis=1)
        # Where no negative is farther away, the farthest one.
        index = ops.minimum(negatives_before, ops.maximum(negatives_before[:, -1:] - 1, 0))
        is_positive = ops.cast(kind > 0, distance.dtype)
        loss = ops.maximum(ops.take_along_axis(sorted_negatives, index, axis=1) - negated_distance + self.margin, 0) * is_positive
        return ops.sum(loss, axis=1) / ops.maximum(ops.sum(is_positive, axis=1), 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "mining": self.mining}


def pairwise_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the Euclidean distances of all pairs, (a, n) and (b, n) -> (a, b); at least 1e-6, as 0 has no gradient."""
    return ops.sqrt(ops.maximum(squared_distances(left, right), 1e-12))
