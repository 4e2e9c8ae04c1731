"""Layers of one-class autoencoders: latent sampling, training losses, and anomaly scores of the reconstruction.

Images are (batch, height, width, 3), normalised, or vectors (batch, n); latents are (batch, n). Everything is computed in
float32, because half precision cannot represent sums over 30,000 values.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfdetect import backend
from tfdetect.models.layers.common import PACKAGE, Float32Layer, PerImageScore, SeededLayer, Shape, Tensor, root_mean_square


def squared_error(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum of squared differences of each item of a batch, (batch,)."""
    return ops.sum(ops.square(left - right), axis=tuple(range(1, len(left.shape))))


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent dimension, (batch, n), in nats.

    Kingma and Welling, "Auto-encoding variational Bayes", 2014 (arXiv 1312.6114), appendix B.
    """
    log_variance = ops.clip(log_variance, -20, 20)  # images unlike the training data get extreme values; scores must be finite
    return 0.5 * (ops.square(mean) + ops.exp(log_variance) - 1 - log_variance)


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianSampling(SeededLayer, Float32Layer):
    """Sample a latent from (mean, log variance) in training; return the mean in inference, so that scores are deterministic."""

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        mean, log_variance = inputs
        if not training:
            return mean
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.generator)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]


@keras.saving.register_keras_serializable(PACKAGE)
class VAELoss(Float32Layer):
    """Return the inputs (image, reconstruction[, mean, log variance, ...]) and add the loss of a (variational) autoencoder.

    The loss is the sum of squared errors of an image plus `beta` times the KL divergence of its latent from the standard normal
    distribution (Kingma and Welling 2014, arXiv 1312.6114). `beta` rises linearly from 0 over the first `warmup` steps (Bowman
    et al. 2016, arXiv 1511.06349). The first `free_bits` nats of the KL divergence of each latent dimension, averaged over the
    batch, cost nothing (Kingma et al. 2016, arXiv 1606.04934). Without mean and log variance only the squared error counts.

    The two terms are also metrics, `reconstruction` and `kl`, except on jax, whose trainer loses the state of layer metrics.
    Where `adds_loss` is False, as in loaded models, the layer is the identity.
    """

    adds_loss = True

    def __init__(self, beta: float = 1.0, warmup: int = 0, free_bits: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.beta, self.warmup, self.free_bits = beta, warmup, free_bits

    def build(self, input_shape: Sequence[Shape]) -> None:
        names = () if keras.backend.backend() == "jax" else ("reconstruction", "kl")[: len(input_shape) // 2]
        self.term_metrics = [keras.metrics.Mean(name=name) for name in names]
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps", dtype="float32",
                                     aggregation="mean")  # fmt: skip
        self.built = True

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> list[Tensor]:
        if not self.adds_loss:
            return list(inputs)
        image, reconstruction, *latent = inputs
        loss = ops.mean(squared_error(image, reconstruction))
        terms = [loss]
        if len(latent) > 1:
            kl = ops.mean(kl_divergence(*latent[:2]), axis=0)
            terms.append(ops.sum(kl))
            loss = loss + self._current_beta(training) * ops.sum(ops.maximum(kl, self.free_bits))
        self.add_loss(loss)
        for metric, term in zip(self.term_metrics, terms, strict=False):
            metric.update_state(term)
        return list(inputs)

    def _current_beta(self, training: bool) -> Any:
        if not (self.warmup and training):
            return self.beta
        steps = ops.convert_to_tensor(self.steps) + 1
        self.steps.assign(steps)
        return self.beta * ops.minimum(steps / self.warmup, 1.0)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in input_shape]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "warmup": self.warmup, "free_bits": self.free_bits}


@keras.saving.register_keras_serializable(PACKAGE)
class LatentMatchingLoss(Float32Layer):
    """Return the inputs (target, prediction) and add their squared error, through which no gradient reaches the target.

    It trains a second encoder to predict, from the reconstruction, the latent that the first encoder computes from the image.
    """

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        target, prediction = inputs
        self.add_loss(ops.mean(squared_error(ops.stop_gradient(target), prediction)))
        return [target, prediction]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in input_shape]


@keras.saving.register_keras_serializable(PACKAGE)
class StopGradient(Float32Layer):
    """Return the input, and let no gradient through."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RMSE(PerImageScore):
    """Root mean squared error of two tensors of the same shape, over all axes but the batch."""

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        left, right = inputs
        return ops.sqrt(squared_error(left, right) / int(np.prod(left.shape[1:])) + 1e-12)[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class KLDivergence(PerImageScore):
    """KL divergence of a latent, given as (mean, log variance), from the standard normal distribution, in nats."""

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return ops.sum(kl_divergence(*inputs), axis=1, keepdims=True)


@keras.saving.register_keras_serializable(PACKAGE)
class NegativeELBO(PerImageScore):
    """Squared error plus KL divergence of (image, reconstruction, mean, log variance).

    Up to a constant, this is the negative evidence lower bound for a decoder with variance 1/2.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        image, reconstruction, mean, log_variance = inputs
        return (squared_error(image, reconstruction) + ops.sum(kl_divergence(mean, log_variance), axis=1))[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class PerceptualDistance(PerImageScore):
    """Distance between the feature maps (batch, height, width, channels) of two images, mostly in 0..1.

    Root mean squared difference of the feature directions in channel space, after Zhang et al. 2018 (LPIPS, arXiv 1801.03924)
    but without learned weights. The inputs are all maps of the first image, then all maps of the second. Every level of the
    network has the same weight.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        levels = len(inputs) // 2
        units = [maps / ops.sqrt(ops.sum(ops.square(maps), axis=-1, keepdims=True) + 1e-6) for maps in inputs]
        distances = [ops.mean(ops.square(units[level] - units[level + levels]), axis=(1, 2, 3)) for level in range(levels)]
        return ops.sqrt(sum(distances) / levels + 1e-12)[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class ErrorSpectrum(Float32Layer):
    """Radial power spectrum of the reconstruction error: (image, reconstruction) -> (batch, bins), log of the mean power.

    The absolute error is averaged over channels and transformed by the two-dimensional discrete Fourier transform. The bins are
    rings of equal width from 0 to half a cycle per pixel.
    """

    def __init__(self, bins: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.bins = bins

    def build(self, input_shape: Sequence[tuple[int, ...]]) -> None:
        height, width = input_shape[0][1:3]
        self.ring_average = ring_average_matrix(height, width, self.bins)
        self.built = True

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        error = ops.mean(ops.abs(inputs[0] - inputs[1]), axis=-1)
        real, imaginary = ops.fft2((error, ops.zeros_like(error)))
        power = ops.reshape(ops.square(real) + ops.square(imaginary), (-1, self.ring_average.shape[0]))
        return ops.log(ops.matmul(power, ops.convert_to_tensor(self.ring_average)) + 1e-8)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], self.bins)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}


def ring_average_matrix(height: int, width: int, bins: int) -> np.ndarray:
    """Return float32 (height x width, bins): the weight of each Fourier coefficient in the mean of each ring of frequencies."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)).ravel()
    ring = np.floor(frequency / 0.5 * bins).astype(int)
    member = (ring[:, None] == np.arange(bins)).astype(np.float32)
    return member / np.maximum(member.sum(axis=0), 1)


@keras.saving.register_keras_serializable(PACKAGE)
class VectorNorm(PerImageScore):
    """Root mean square of a vector, (batch, n) -> (batch, 1)."""

    def call(self, inputs: Tensor) -> Tensor:
        return root_mean_square(inputs)


@keras.saving.register_keras_serializable(PACKAGE)
class LikelihoodRegret(keras.layers.Wrapper):
    """A decoder that also returns the likelihood regret: (image, latent, mean) -> (decoded latent, (batch, 1) in nats).

    The regret is how much the loss of this image falls when its latent mean is optimised by `steps` steps of gradient descent,
    starting from the encoder's output; 0 in training. Xiao et al., "Likelihood regret", 2020 (arXiv 2003.02977), optimise the
    whole encoder instead. The variance is left out, because nothing depends on it where no latent is sampled.
    """

    def __init__(self, layer: Any, steps: int = 8, learning_rate: float = 0.05, **options: Any) -> None:
        super().__init__(layer, **{**options, "dtype": "float32"})
        self.steps, self.learning_rate = steps, learning_rate

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        image, latent, mean = inputs
        reconstruction = self.layer(latent, training=training)
        if training:
            return reconstruction, ops.zeros_like(mean[:, :1])

        def loss(z: Tensor) -> Tensor:
            return squared_error(image, self.layer(z, training=False)) + 0.5 * ops.sum(ops.square(z), axis=1)

        z, initial_loss = mean, loss(mean)
        best_loss = initial_loss
        for _ in range(self.steps):
            gradient = backend.gradient(lambda z: ops.sum(loss(z)), z)
            z = z - self.learning_rate * gradient / (ops.sqrt(ops.mean(ops.square(gradient), axis=1, keepdims=True)) + 1e-12)
            best_loss = ops.minimum(best_loss, loss(z))
        return reconstruction, (initial_loss - best_loss)[:, None]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> tuple[Shape, Shape]:
        return tuple(input_shape[0]), (input_shape[0][0], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps, "learning_rate": self.learning_rate}
