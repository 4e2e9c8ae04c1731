"""Base classes of one-class detectors that reconstruct images: an encoder and a decoder trained on reals, and anomaly scores.

No label is used in training: the model adds its own loss. A fake is detected because it is reconstructed differently from a real.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from tfdetect.detector import Detector
from tfdetect.errors import require_minimum

ScoreName = Literal["rmse", "latent", "kl", "elbo", "perceptual", "likelihood_regret", "frequency"]
NEEDS_VARIANCE = ("kl", "elbo", "likelihood_regret")  # scores that need a latent with a variance


@dataclass(frozen=True)
class Autoencoder(Detector):
    """An autoencoder that learns what real images look like. Subclasses implement `build_encoder` and `build_decoder`."""

    trains_on = "real"
    reconstructs = True
    scale: ClassVar[Any] = 1 / 127.5
    """Multiplier of the pixels in 0..255, before `offset` is added; by default to -1..1. A number, or one per channel."""
    offset: ClassVar[Any] = -1.0

    score: ScoreName | None = None
    """Anomaly score; by default rmse, the root mean squared reconstruction error. docs/oneclass.md describes all."""
    score_direction: Literal["far", "near"] = "far"
    """Which side counts as fake: far from the training reals, or near, for fakes more typical than real images are."""
    flips: Literal["none", "horizontal", "both"] = "both"
    """Random flips in training: none, horizontal, or horizontal and vertical."""

    @property
    def effective_score(self) -> ScoreName:
        """Name of the score that the model outputs."""
        return self.score or "rmse"

    @abstractmethod
    def build_encoder(self, image_shape: tuple[int, int, int]) -> Any:
        """Return a Keras model from normalised images (batch, *image_shape) to a list of outputs.

        The outputs are the latent means (batch, n), for a variational autoencoder also the latent log variances (batch, n), and
        then the feature maps (batch, height, width, channels) that the score `perceptual` compares.
        """

    @abstractmethod
    def build_decoder(self, latent_size: int, image_shape: tuple[int, int, int]) -> Any:
        """Return a Keras model from latents (batch, latent_size) to normalised images (batch, *image_shape)."""

    def losses(self) -> None:
        return None

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers.autoencoder import LikelihoodRegret, VAELoss

        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        image = layers.Reshape(clip_shape[1:])(inputs)
        if self.flips != "none":
            image = layers.RandomFlip("horizontal" if self.flips == "horizontal" else "horizontal_and_vertical")(image)
        image = layers.Rescaling(self.scale, self.offset, dtype="float32", name="picture")(image)
        encoder = self.build_encoder(clip_shape[1:])
        latent, maps = self.split_encoder_outputs(encoder(image))
        decoder = self.build_decoder(latent[0].shape[-1], clip_shape[1:])
        z = self.sample_latent(latent)
        with_regret = self.effective_score == "likelihood_regret"
        decoded = LikelihoodRegret(decoder, name="regret")([image, z, latent[0]]) if with_regret else [decoder(z)]
        image, reconstruction, *latent = VAELoss(**self.loss_arguments(), name="reconstruction")(
            [image, decoded[0], *latent, *decoded[1:]])  # fmt: skip
        score = latent[-1] if with_regret else self.compute_score(image, reconstruction, latent, maps, encoder, decoder)
        score = layers.Rescaling(1.0 if self.score_direction == "far" else -1.0, dtype="float32", name="score")(score)
        return keras.Model(inputs, score, name=self.name)

    def split_encoder_outputs(self, outputs: Any) -> tuple[list[Any], list[Any]]:
        """Split the encoder's outputs into latent parameters and feature maps."""
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return outputs[:1], outputs[1:]

    def sample_latent(self, latent: list[Any]) -> Any:
        """Return the decoder's input (batch, n) for the given latent parameters."""
        return latent[0]

    def loss_arguments(self) -> dict[str, Any]:
        """Return keyword arguments for `layers.autoencoder.VAELoss`."""
        return {}

    def compute_score(self, image: Any, reconstruction: Any, latent: list[Any], maps: list[Any], encoder: Any,
                      decoder: Any) -> Any:  # fmt: skip
        """Return the anomaly score (batch, 1), before `score_direction` is applied."""
        from keras import layers

        from tfdetect.models.layers import autoencoder

        if self.effective_score == "latent":
            return autoencoder.RMSE()([latent[0], self.split_encoder_outputs(encoder(reconstruction))[0][0]])
        if self.effective_score == "kl":
            return autoencoder.KLDivergence()(latent)
        if self.effective_score == "elbo":
            return autoencoder.NegativeELBO()([image, reconstruction, *latent])
        if self.effective_score == "perceptual":
            return autoencoder.PerceptualDistance()([*maps, *self.split_encoder_outputs(encoder(reconstruction))[1]])
        if self.effective_score == "frequency":
            # In training, too, the statistics must come from the decoded mean, because that is what inference scores.
            spectrum = autoencoder.ErrorSpectrum()([image, decoder(latent[0], training=False)])
            spectrum = autoencoder.StopGradient()(spectrum)
            normalise = layers.BatchNormalization(center=False, scale=False, momentum=0.9, dtype="float32", name="spectrum_norm")
            return autoencoder.VectorNorm()(normalise(spectrum))
        return autoencoder.RMSE()([image, reconstruction])


@dataclass(frozen=True)
class VariationalAutoencoder(Autoencoder):
    """An autoencoder whose latent is sampled from a normal distribution, given by mean and log variance."""

    beta: float = 1.0
    """Weight of the KL divergence relative to the squared error."""
    warmup: int = 0
    """Training steps over which beta rises from 0; prevents posterior collapse."""
    free_bits: float = 0.0
    """KL divergence in nats that each latent dimension may have at no cost; prevents posterior collapse."""

    def __post_init__(self) -> None:
        require_minimum(0, "detector", self, "beta", "warmup", "free_bits")

    def split_encoder_outputs(self, outputs: Any) -> tuple[list[Any], list[Any]]:
        return outputs[:2], outputs[2:]

    def sample_latent(self, latent: list[Any]) -> Any:
        from tfdetect.models.layers.autoencoder import GaussianSampling

        return GaussianSampling(name="sample")(latent)

    def loss_arguments(self) -> dict[str, Any]:
        return {"beta": self.beta, "warmup": self.warmup, "free_bits": self.free_bits}


def reconstruction_model(model: Any) -> Any:
    """Return the part of an autoencoder up to its layer `reconstruction`: normalised images, reconstructions and latents."""
    import keras

    return keras.Model(model.input, model.get_layer("reconstruction").output)


def to_pixels(model: Any, normalised: Any) -> Any:
    """Undo the model's layer `picture`: normalised images -> pixels of about 0..255, as reconstructions may exceed the range."""
    layer = model.get_layer("picture")
    return (normalised - np.float32(layer.offset)) / np.float32(layer.scale)
