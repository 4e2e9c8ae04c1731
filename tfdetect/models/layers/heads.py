"""Layers of heads on features: support vectors, a memory bank, the closest of some texts. Their numbers come from elsewhere
than gradients, so they are given sizes and are filled by `assign`."""

import keras
from keras import ops

from tfdetect.models.layers.common import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class SupportVectors(keras.layers.Layer):
    """The decision function of a binary scikit-learn SVC: (batch, n) -> (batch, 1) float32, higher is more likely class 1.

    Features are standardised first. All is computed in float64 (as far as the backend has it: jax has not by itself), since
    in float32 an RBF kernel's scores are off in the fourth digit.
    """

    def __init__(self, count=1, kernel="rbf", gamma=1.0, **options):
        super().__init__(**{**options, "dtype": "float64"})
        self.count, self.kernel, self.gamma = count, kernel, gamma

    def build(self, input_shape):
        width = input_shape[-1]
        self.mean = self.add_weight(shape=(width,), initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=(width,), initializer="ones", trainable=False, name="scale")
        self.vectors = self.add_weight(shape=(self.count, width), initializer="random_normal", trainable=False, name="vectors")
        self.duals = self.add_weight(shape=(self.count, 1), initializer="ones", trainable=False, name="duals")
        self.bias = self.add_weight(shape=(1,), initializer="zeros", trainable=False, name="bias")
        self.built = True

    def call(self, inputs):
        x = (ops.cast(inputs, self.compute_dtype) - self.mean) / self.scale
        products = x @ ops.transpose(self.vectors)  # ops.matmul and ops.maximum go down to float32 on torch
        if self.kernel == "rbf":
            lengths = ops.sum(x * x, axis=1, keepdims=True) + ops.sum(self.vectors * self.vectors, axis=1)
            products = ops.exp(-self.gamma * ops.relu(lengths - 2 * products))
        return ops.cast(products @ ops.convert_to_tensor(self.duals) + self.bias, "float32")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs.shape[0], 1), "float32")

    def get_config(self):
        return {**super().get_config(), "count": self.count, "kernel": self.kernel, "gamma": self.gamma}


@keras.saving.register_keras_serializable(PACKAGE)
class KNNMargin(keras.layers.Layer):
    """Unit vectors (batch, n) -> (batch, 1) float32: mean cosine to the `k` nearest fakes less that to the `k` nearest reals."""

    def __init__(self, reals=1, fakes=1, k=1, **options):
        super().__init__(**{**options, "dtype": "float32"})
        self.reals, self.fakes, self.k = reals, fakes, k

    def build(self, input_shape):
        self.banks = [
            self.add_weight(shape=(count, input_shape[-1]), initializer="random_normal", trainable=False, name=name)
            for name, count in (("reals", self.reals), ("fakes", self.fakes))
        ]
        self.built = True

    def call(self, inputs):
        real, fake = (self._closeness(inputs, bank) for bank in self.banks)
        return fake - real

    def _closeness(self, inputs, bank):
        found, _ = ops.top_k(ops.matmul(inputs, ops.transpose(bank)), min(self.k, bank.shape[0]))
        return ops.mean(found, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)

    def get_config(self):
        return {**super().get_config(), "reals": self.reals, "fakes": self.fakes, "k": self.k}


@keras.saving.register_keras_serializable(PACKAGE)
class ClosestText(keras.layers.Layer):
    """Image embeddings (batch, n) -> the embedding (batch, n) of the closest of `texts`, by cosine, and its number (batch,)."""

    def __init__(self, texts=("",), **options):
        super().__init__(**{**options, "dtype": "float32"})
        self.texts = [*texts]

    def build(self, input_shape):
        shape = (len(self.texts), input_shape[-1])
        self.bank = self.add_weight(shape=shape, initializer="random_normal", trainable=False, name="bank")
        self.built = True

    def call(self, inputs):
        directions = ops.normalize(ops.convert_to_tensor(self.bank))
        number = ops.argmax(ops.matmul(inputs, ops.transpose(directions)), axis=-1)
        return ops.take(ops.convert_to_tensor(self.bank), number, axis=0), ops.cast(number, "int32")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32"), keras.KerasTensor((inputs.shape[0],), "int32")

    def get_config(self):
        return {**super().get_config(), "texts": self.texts}


@keras.saving.register_keras_serializable(PACKAGE)
class TripletLoss(keras.losses.Loss):
    """The triplet loss over a batch of unit vectors: max(0, d(anchor, positive) - d(anchor, negative) + margin), d the distance.

    y_true (batch, 1) labels 0..1, y_pred (batch, n). Each row is an anchor. Its positive and negative by `mining` (Schroff et al.
    2015, arXiv 1503.03832; Hermans et al. 2017, arXiv 1703.07737): `random`, the mean over all of its class and of the other,
    which is what random triplets come to; `semihard`, for each positive the nearest negative that is farther than it, or else
    the farthest; `hard`, the farthest positive and the nearest negative.
    """

    def __init__(self, margin=0.2, mining="semihard", name="triplet", **options):
        super().__init__(name=name, **options)
        self.margin, self.mining = margin, mining

    def call(self, y_true, y_pred):
        labels = ops.reshape(y_true, (-1,)) > 0.5
        apart = distances(y_pred, y_pred)
        same = ops.equal(labels[:, None], labels[None, :])
        itself = ops.cast(ops.eye(ops.shape(apart)[0]), "bool")
        other, same = ops.logical_not(same), ops.logical_and(same, ops.logical_not(itself))
        usable = ops.cast(ops.logical_and(ops.any(same, axis=1), ops.any(other, axis=1)), apart.dtype)
        losses = {"random": self._all, "hard": self._hard}.get(self.mining, self._semihard)(apart, same, other)
        return ops.where(usable > 0, losses, 0.0)

    def _all(self, apart, same, other):
        """The mean over all triplets of each anchor."""
        loss = ops.maximum(apart[:, :, None] - apart[:, None, :] + self.margin, 0)
        triplets = ops.cast(ops.logical_and(same[:, :, None], other[:, None, :]), apart.dtype)
        return ops.sum(loss * triplets, axis=(1, 2)) / ops.maximum(ops.sum(triplets, axis=(1, 2)), 1)

    def _hard(self, apart, same, other):
        """Each anchor's one hardest triplet."""
        nearest = ops.min(ops.where(other, apart, 9.0), axis=1)
        return ops.maximum(ops.max(ops.where(same, apart, 0.0), axis=1) - nearest + self.margin, 0)

    def _semihard(self, apart, same, other):
        """The mean over each anchor's positives, without looking at all triplets: sorted from the nearest on, where so many
        negatives are before a positive, the one it needs is the next of the sorted negatives."""
        count = ops.shape(apart)[0]
        near, order = ops.top_k(-apart, count)
        kinds = ops.take_along_axis(ops.cast(same, apart.dtype) - ops.cast(other, apart.dtype), order, axis=1)
        negatives, _ = ops.top_k(ops.where(other, -apart, -9.0), count)
        before = ops.cumsum(ops.cast(kinds < 0, "int32"), axis=1)
        needed = ops.minimum(before, ops.maximum(before[:, -1:] - 1, 0))  # none is farther: the farthest
        positives = ops.cast(kinds > 0, apart.dtype)
        loss = ops.maximum(ops.take_along_axis(negatives, needed, axis=1) - near + self.margin, 0) * positives
        return ops.sum(loss, axis=1) / ops.maximum(ops.sum(positives, axis=1), 1)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin, "mining": self.mining}


def distances(left, right):
    """Euclidean distances of all pairs, (a, n) and (b, n) -> (a, b); never quite 0, where its gradient has no value."""
    squares = ops.sum(left * left, axis=1)[:, None] + ops.sum(right * right, axis=1)[None, :]
    return ops.sqrt(ops.maximum(squares - 2 * ops.matmul(left, ops.transpose(right)), 1e-12))
