"""What the reconstructing one-class detectors share: an encoder and a decoder that learn reals, and scores of what comes back.

They learn no label: the loss is their own, and a fake is what comes back unlike a real.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from tfdetect.detector import Detector
from tfdetect.errors import UserError

Score = Literal["rmse", "latent", "kl", "elbo", "perceptual", "likelihood_regret", "frequency"]
NEEDS_VARIANCE = ("kl", "elbo", "likelihood_regret")  # scores that need a latent with a variance


@dataclass(frozen=True)
class Autoencoder(Detector):
    """Subclass it and write `encoder` and `decoder`: an autoencoder that learns what real looks like."""

    trains_on = "real"
    reconstructs = True
    scale: ClassVar[Any] = 1 / 127.5
    """Of the pixels 0..255, before `offset`: by default to -1..1."""
    offset: ClassVar[Any] = -1.0

    score: Score | None = None
    """What is taken for fake: a large rmse of what comes back, by default; latent and others are in docs/oneclass.md."""
    score_direction: Literal["far", "near"] = "far"
    """Where fakes are looked for: far from what real looks like, or nearer to it than reals are, as too typical."""
    flips: Literal["none", "horizontal", "both"] = "both"
    """In training, turn half of the pictures from left to right, and half upside down."""

    @property
    def scored(self) -> Score:
        """The score that it gives."""
        return self.score or "rmse"

    @abstractmethod
    def encoder(self, shape: tuple[int, int, int]) -> Any:
        """A Keras model from normalised pictures (batch, *shape) to the means of its latent (batch, n), for a variational one
        their log variances, and then the maps (batch, height, width, channels) by which `perceptual` compares."""

    @abstractmethod
    def decoder(self, latent: int, shape: tuple[int, int, int]) -> Any:
        """A Keras model from latents (batch, latent) to pictures (batch, *shape), normalised."""

    def losses(self):
        return None

    def build(self, clip_shape):
        import keras
        from keras import layers

        from tfdetect.models.layers.autoencoder import LikelihoodRegret, VAELoss

        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        x = layers.Reshape(clip_shape[1:])(inputs)
        if self.flips != "none":
            x = layers.RandomFlip("horizontal" if self.flips == "horizontal" else "horizontal_and_vertical")(x)
        x = layers.Rescaling(self.scale, self.offset, dtype="float32", name="picture")(x)
        encoder = self.encoder(clip_shape[1:])
        latent, maps = self.split(encoder(x))
        decoder = self.decoder(latent[0].shape[-1], clip_shape[1:])
        z = self.drawn(latent)
        regret = self.scored == "likelihood_regret"
        came = LikelihoodRegret(decoder, name="regret")([x, z, latent[0]]) if regret else [decoder(z)]
        x, again, *latent = VAELoss(**self.loss(), name="reconstruction")([x, came[0], *latent, *came[1:]])
        score = latent[-1] if regret else self.measure(x, again, latent, maps, encoder, decoder)
        score = layers.Rescaling(1.0 if self.score_direction == "far" else -1.0, dtype="float32", name="score")(score)
        return keras.Model(inputs, score, name=self.name)

    def split(self, encoded: Any) -> tuple[list[Any], list[Any]]:
        """The encoder's outputs as latent and maps."""
        encoded = encoded if isinstance(encoded, list) else [encoded]
        return encoded[:1], encoded[1:]

    def drawn(self, latent: list[Any]) -> Any:
        """What the decoder gets."""
        return latent[0]

    def loss(self) -> dict[str, Any]:
        """Arguments of `layers.autoencoder.VAELoss`."""
        return {}

    def measure(self, x: Any, again: Any, latent: list[Any], maps: list[Any], encoder: Any, decoder: Any) -> Any:
        """The score but for its sign, (batch, 1)."""
        from keras import layers

        from tfdetect.models.layers import autoencoder

        if self.scored == "latent":
            return autoencoder.RMSE()([latent[0], self.split(encoder(again))[0][0]])
        if self.scored == "kl":
            return autoencoder.KLDivergence()(latent)
        if self.scored == "elbo":
            return autoencoder.NegativeELBO()([x, again, *latent])
        if self.scored == "perceptual":
            return autoencoder.PerceptualDistance()([*maps, *self.split(encoder(again))[1]])
        if self.scored == "frequency":
            # By what comes back of the mean, in training too: it is what the score is of.
            spectrum = autoencoder.ErrorSpectrum()([x, decoder(latent[0], training=False)])
            spectrum = autoencoder.StopGradient()(spectrum)
            usual = layers.BatchNormalization(center=False, scale=False, momentum=0.9, dtype="float32", name="usual")
            return autoencoder.VectorNorm()(usual(spectrum))
        return autoencoder.RMSE()([x, again])


@dataclass(frozen=True)
class VariationalAutoencoder(Autoencoder):
    """Of a latent that is drawn: mean and log variance."""

    beta: float = 1.0
    """What the divergence of the latent from a standard normal distribution counts, beside the squared error."""
    warmup: int = 0
    """Steps over which beta rises from 0; against a latent that tells nothing."""
    free_bits: float = 0.0
    """Nats by which each latent number may diverge for nothing; against the same."""

    def __post_init__(self):
        for name in ("beta", "warmup", "free_bits"):
            if getattr(self, name) < 0:
                raise UserError(f"--detector.{name} must be at least 0, got {getattr(self, name)}.")

    def split(self, encoded):
        return encoded[:2], encoded[2:]

    def drawn(self, latent):
        from tfdetect.models.layers.autoencoder import GaussianSampling

        return GaussianSampling(name="drawn")(latent)

    def loss(self):
        return {"beta": self.beta, "warmup": self.warmup, "free_bits": self.free_bits}


def reconstruction_model(model: Any) -> Any:
    """A model with a layer `reconstruction` -> the same up to there: normalised pictures, what comes back, and the latent."""
    import keras

    return keras.Model(model.input, model.get_layer("reconstruction").output)


def to_pixels(model: Any, normalised: Any) -> Any:
    """What the model's layer `picture` undone makes of such pictures: about 0..255."""
    layer = model.get_layer("picture")
    return (normalised - np.float32(layer.offset)) / np.float32(layer.scale)
