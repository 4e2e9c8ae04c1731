"""Layers of one-class detectors: a latent that is drawn, the loss that teaches it, and scores of what comes back.

Pictures are (batch, height, width, 3), normalised, or vectors (batch, n); latents are (batch, n). All is computed in float32:
sums over 30,000 numbers need it.
"""

import keras
import numpy as np
from keras import ops

from tfdetect import backend
from tfdetect.models.layers.common import PACKAGE


class Float32(keras.layers.Layer):
    """A layer that computes in float32 whatever the policy is."""

    def __init__(self, **options):
        super().__init__(**{**options, "dtype": "float32"})


class PerImageScore(Float32):
    """A layer that gives a number for each picture, (batch, 1)."""

    def compute_output_shape(self, input_shape):
        first = input_shape[0] if isinstance(input_shape[0], tuple | list) else input_shape
        return (first[0], 1)


def squared_error(left, right):
    """The sum of squared differences of each item of a batch, (batch,)."""
    return ops.sum(ops.square(left - right), axis=tuple(range(1, len(left.shape))))


def kl_divergence(mean, log_variance):
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent number, (batch, n) nats (arXiv 1312.6114, appendix B)."""
    log_variance = ops.clip(log_variance, -20, 20)  # what is unlike all that was learnt may get any; its score must be finite
    return 0.5 * (ops.square(mean) + ops.exp(log_variance) - 1 - log_variance)


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianSampling(Float32):
    """(mean, log variance) -> in training a draw from that normal distribution, else the mean: a file has one score."""

    def __init__(self, seed=None, **options):
        super().__init__(**options)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        mean, log_variance = inputs
        if not training:
            return mean
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.generator)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class VAELoss(Float32):
    """(x, what came back[, mean, log variance, more]) -> the same, with the loss of a (variational) autoencoder.

    Loss: the sum of squared errors of a picture, and `beta` times its divergence from the standard normal distribution (Kingma
    and Welling 2014, arXiv 1312.6114). Over the first `warmup` steps beta rises from 0 (Bowman et al. 2016, arXiv 1511.06349);
    each latent number may diverge by `free_bits` nats, on a batch's average, for nothing (Kingma et al. 2016, arXiv 1606.04934).
    Without mean and log variance it is the first part alone. The parts are metrics, `reconstruction` and `kl`, but not on jax,
    whose trainer loses the state of layers' metrics. In a model that is loaded or served, not `telling`, it does nothing.
    """

    telling = True

    def __init__(self, beta=1.0, warmup=0, free_bits=0.0, **options):
        super().__init__(**options)
        self.beta, self.warmup, self.free_bits = beta, warmup, free_bits

    def build(self, input_shape):
        names = () if keras.backend.backend() == "jax" else ("reconstruction", "kl")[: len(input_shape) // 2]
        self.parts = [keras.metrics.Mean(name=name) for name in names]
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps", dtype="float32",
                                     aggregation="mean")  # fmt: skip
        self.built = True

    def call(self, inputs, training=False):
        if not self.telling:
            return list(inputs)
        picture, again, *latent = inputs
        loss = ops.mean(squared_error(picture, again))
        told = [loss]
        if len(latent) > 1:
            each = ops.mean(kl_divergence(*latent[:2]), axis=0)
            told.append(ops.sum(each))
            loss = loss + self._weight(training) * ops.sum(ops.maximum(each, self.free_bits))
        self.add_loss(loss)
        for part, value in zip(self.parts, told, strict=False):
            part.update_state(value)
        return list(inputs)

    def _weight(self, training):
        if not (self.warmup and training):
            return self.beta
        steps = ops.convert_to_tensor(self.steps) + 1
        self.steps.assign(steps)
        return self.beta * ops.minimum(steps / self.warmup, 1.0)

    def compute_output_shape(self, input_shape):
        return [tuple(shape) for shape in input_shape]

    def get_config(self):
        return {**super().get_config(), "beta": self.beta, "warmup": self.warmup, "free_bits": self.free_bits}


@keras.saving.register_keras_serializable(PACKAGE)
class Agreement(Float32):
    """(mean, the second encoder's mean of what came back) -> the same. The second learns the first by their squared
    difference; no gradient reaches the first."""

    def call(self, inputs):
        mean, second = inputs
        self.add_loss(ops.mean(squared_error(ops.stop_gradient(mean), second)))
        return [mean, second]

    def compute_output_shape(self, input_shape):
        return [tuple(shape) for shape in input_shape]


@keras.saving.register_keras_serializable(PACKAGE)
class StopGradient(Float32):
    """The same, for a part of a model that is not to be taught by what follows."""

    def call(self, inputs):
        return ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RMSE(PerImageScore):
    """Two of the same shape -> the root of their mean square difference, over channels and pixels alike."""

    def call(self, inputs):
        left, right = inputs
        return ops.sqrt(squared_error(left, right) / int(np.prod(left.shape[1:])) + 1e-12)[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class KLDivergence(PerImageScore):
    """(mean, log variance) -> their KL in nats."""

    def call(self, inputs):
        return ops.sum(kl_divergence(*inputs), axis=1, keepdims=True)


@keras.saving.register_keras_serializable(PACKAGE)
class NegativeELBO(PerImageScore):
    """(x, what came back, mean, log variance) -> the loss of this one, its squared error and KL: the negative evidence lower
    bound, for a decoder of variance 1/2, less a constant."""

    def call(self, inputs):
        picture, again, mean, log_variance = inputs
        return (squared_error(picture, again) + ops.sum(kl_divergence(mean, log_variance), axis=1))[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class PerceptualDistance(PerImageScore):
    """Maps (batch, height, width, channels) of two pictures in the same network -> how unlike they are, 0..1 or so.

    The root mean square difference of their directions in channel space, after Zhang et al. 2018 (LPIPS, arXiv 1801.03924) but
    without learnt weights. Inputs: the maps of the first, then those of the second; levels count alike.
    """

    def call(self, inputs):
        half = len(inputs) // 2
        units = [maps / ops.sqrt(ops.sum(ops.square(maps), axis=-1, keepdims=True) + 1e-6) for maps in inputs]
        apart = [ops.mean(ops.square(units[at] - units[at + half]), axis=(1, 2, 3)) for at in range(half)]
        return ops.sqrt(sum(apart) / half + 1e-12)[:, None]


@keras.saving.register_keras_serializable(PACKAGE)
class ErrorSpectrum(Float32):
    """(x, what came back) -> log of the mean power of the error at `bins` spatial frequencies, (batch, bins).

    Of the error's mean over channels, by the two-dimensional discrete Fourier transform; rings of equal width from 0 to half a
    cycle per pixel.
    """

    def __init__(self, bins=32, **options):
        super().__init__(**options)
        self.bins = bins

    def build(self, input_shape):
        self.rings = rings(*input_shape[0][1:3], self.bins)
        self.built = True

    def call(self, inputs):
        error = ops.mean(ops.abs(inputs[0] - inputs[1]), axis=-1)
        real, imaginary = ops.fft2((error, ops.zeros_like(error)))
        power = ops.reshape(ops.square(real) + ops.square(imaginary), (-1, self.rings.shape[0]))
        return ops.log(ops.matmul(power, ops.convert_to_tensor(self.rings)) + 1e-8)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.bins)

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


def rings(height, width, bins):
    """(height x width, bins) float32: what each frequency of a Fourier transform counts in the mean of each ring."""
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)).ravel()
    which = np.floor(distance / 0.5 * bins).astype(int)
    member = (which[:, None] == np.arange(bins)).astype(np.float32)
    return member / np.maximum(member.sum(axis=0), 1)


@keras.saving.register_keras_serializable(PACKAGE)
class VectorNorm(PerImageScore):
    """(batch, n) -> the root of their mean square."""

    def call(self, inputs):
        return ops.sqrt(ops.mean(ops.square(inputs), axis=-1, keepdims=True) + 1e-12)


@keras.saving.register_keras_serializable(PACKAGE)
class LikelihoodRegret(keras.layers.Wrapper):
    """A decoder. (picture, draw, mean) -> (what it makes of the draw, likelihood regret (batch, 1) in nats).

    How much lower the loss of this very picture gets when its mean is sought for it, by `steps` of gradient descent from where
    the encoder put it: Xiao et al., "Likelihood regret", 2020 (arXiv 2003.02977), who adapt the whole encoder. The variance, on
    which nothing depends where nothing is drawn, is left out.
    """

    def __init__(self, layer, steps=8, rate=0.05, **options):
        super().__init__(layer, **options)
        self.steps, self.rate = steps, rate

    def call(self, inputs, training=False):
        picture, draw, mean = inputs
        again = self.layer(draw, training=training)
        if training:
            return again, ops.zeros_like(mean[:, :1])

        def loss(z):
            return squared_error(picture, self.layer(z, training=False)) + 0.5 * ops.sum(ops.square(z), axis=1)

        at, start = mean, loss(mean)
        best = start
        for _ in range(self.steps):
            slope = backend.gradient(lambda z: ops.sum(loss(z)), at)
            at = at - self.rate * slope / (ops.sqrt(ops.mean(ops.square(slope), axis=1, keepdims=True)) + 1e-12)
            best = ops.minimum(best, loss(at))
        return again, (start - best)[:, None]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0]), (input_shape[0][0], 1)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps, "rate": self.rate}
