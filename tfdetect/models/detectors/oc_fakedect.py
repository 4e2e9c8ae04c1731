"""`oc_ae` and `oc_fakedect`: a small autoencoder of reals, plain and variational."""

from dataclasses import dataclass
from typing import Any, Literal

from tfdetect.detector import register
from tfdetect.errors import UserError
from tfdetect.models.autoencoder import NEEDS_VARIANCE, Autoencoder, VariationalAutoencoder

STAGES = ((16, 1), (32, 2), (64, 1), (16, 2))  # channels and stride of each convolution
LATENT = 1024
RECIPE = {"data.size": 100, "data.frames": 8, "train.batch": 128, "train.epochs": 40, "train.eval_every": 5, "train.patience": 40,
          "train.monitor": "val_ap"}  # fmt: skip


def norm() -> Any:
    """Batch normalisation that follows the few steps of a small data set, and ReLU."""
    import keras

    return keras.Sequential([keras.layers.BatchNormalization(momentum=0.9), keras.layers.ReLU()])


def check(shape: tuple[int, int, int]) -> None:
    """ValueError for pictures that the decoder could not give back."""
    if shape[0] % 4 or shape[1] % 4:
        raise UserError(f"--data.size must be a multiple of 4 for this detector, which halves it twice; got {shape[0]}.")


def encode(shape: tuple[int, int, int], heads: int) -> Any:
    """Four convolutions and a dense layer, then `heads` dense layers of LATENT, one after the other's side; and the maps."""
    import keras
    from keras import layers

    check(shape)
    inputs = keras.Input(shape)
    x, maps = inputs, []
    for width, stride in STAGES:
        x = norm()(layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x))
        maps.append(x)
    x = norm()(layers.Dense(LATENT, use_bias=False)(layers.Flatten()(x)))
    return keras.Model(inputs, [*(layers.Dense(LATENT, dtype="float32")(x) for _ in range(heads)), *maps], name="encoder")


def decode(latent: int, shape: tuple[int, int, int]) -> Any:
    """The mirror of `encode`; the last layer has no activation."""
    import keras
    from keras import layers

    small = (shape[0] // 4, shape[1] // 4, STAGES[-1][0])
    inputs = keras.Input((latent,))
    x = norm()(layers.Dense(LATENT, use_bias=False)(inputs))
    x = norm()(layers.Dense(small[0] * small[1] * small[2], use_bias=False)(x))
    x = layers.Reshape(small)(x)
    for (_, stride), (width, _) in zip(STAGES[:0:-1], STAGES[-2::-1], strict=True):
        x = norm()(layers.Conv2DTranspose(width, 3, stride, padding="same", use_bias=False)(x))
    return keras.Model(inputs, layers.Conv2DTranspose(3, 3, padding="same", dtype="float32")(x), name="decoder")


@register("oc_ae")
@dataclass(frozen=True)
class OneClassAutoencoder(Autoencoder):
    """A plain autoencoder of real pictures: what it gives back badly is called fake. The published baseline.

    Khalid and Woo, "OC-FakeDect: Classifying deepfakes using one-class variational autoencoder", CVPR workshops 2020, compare
    with it; its layers are taken to be those of `oc_fakedect`, of whose latent it has the means alone. Published on
    FaceForensics++ Deepfakes: precision, recall and accuracy 0.492, threshold 0.017. Command: `python scripts/train.py oc_ae`.
    What is measured here is in docs/oneclass.md.
    """

    default_overrides = RECIPE

    def __post_init__(self):
        if self.scored in NEEDS_VARIANCE:
            raise UserError(f"--detector.score {self.score} needs a latent with a variance, and oc_ae has none: take rmse, "
                             "latent, perceptual or frequency, or the detector oc_fakedect.")  # fmt: skip

    def encoder(self, shape):
        return encode(shape, 1)

    def decoder(self, latent, shape):
        return decode(latent, shape)


@register("oc_fakedect")
@dataclass(frozen=True)
class OcFakeDect(VariationalAutoencoder):
    """OC-FakeDect: a variational autoencoder of real pictures; variant 2 compares the latents of before and after.

    Khalid and Woo, "OC-FakeDect: Classifying deepfakes using one-class variational autoencoder", CVPR workshops 2020. Published
    for variant 1 on FaceForensics++ Deepfakes: precision 0.860, recall 0.864, accuracy 0.862; others who repeated it got AUCs of
    0.50 to 0.62. How variant 2's second encoder learns is not known here: it learns to say of what came back what the first says
    of the picture, by the squared difference of their means, and the rest learns nothing from it. Command: `python
    scripts/train.py oc_fakedect`. What is measured here is in docs/oneclass.md.
    """

    default_overrides = RECIPE

    variant: Literal[1, 2] = 1
    """1 scores what came back, 2 has a second encoder on it and scores the difference of the two latents."""

    def __post_init__(self):
        super().__post_init__()
        if self.variant == 2 and self.scored != "latent":
            raise UserError(f"Variant 2 scores latents: leave out --detector.score {self.score}, or take variant 1.")

    @property
    def scored(self):
        return self.score or ("latent" if self.variant == 2 else "rmse")

    def encoder(self, shape):
        return encode(shape, 2)

    def decoder(self, latent, shape):
        return decode(latent, shape)

    def measure(self, x, again, latent, maps, encoder, decoder):
        if self.variant == 1:
            return super().measure(x, again, latent, maps, encoder, decoder)
        import keras

        from tfdetect.models.layers.autoencoder import RMSE, Agreement, StopGradient

        second = encode(x.shape[1:], 1)
        second = keras.Model(second.inputs, second.outputs[0], name="second_encoder")
        return RMSE()(Agreement(name="agreement")([latent[0], second(StopGradient()(again))]))
