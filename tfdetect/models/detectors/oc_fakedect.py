"""`oc_ae` and `oc_fakedect`: a small autoencoder of real images, plain and variational."""

from dataclasses import dataclass
from typing import Any, Literal

from tfdetect.detector import register
from tfdetect.errors import UserError
from tfdetect.models.autoencoder import NEEDS_VARIANCE, Autoencoder, ScoreName, VariationalAutoencoder

STAGES = ((16, 1), (32, 2), (64, 1), (16, 2))  # channels and stride of each convolution
LATENT_SIZE = 1024
DEFAULT_OVERRIDES = {"data.size": 100, "data.frames": 8, "train.batch": 128, "train.epochs": 40, "train.eval_every": 5,
                     "train.patience": 40, "train.monitor": "val_ap"}  # fmt: skip


def norm_and_relu() -> Any:
    """Return batch normalisation and ReLU; the momentum suits the few steps that a small data set gives."""
    import keras

    return keras.Sequential([keras.layers.BatchNormalization(momentum=0.9), keras.layers.ReLU()])


def check_image_shape(image_shape: tuple[int, int, int]) -> None:
    """Raise UserError for an image size that the decoder could not restore."""
    if image_shape[0] % 4 or image_shape[1] % 4:
        raise UserError(f"--data.size must be a multiple of 4 for this detector, which halves it twice; got {image_shape[0]}.")


def small_encoder(image_shape: tuple[int, int, int], num_latent_outputs: int) -> Any:
    """Return a model of four convolutions and a dense layer.

    Its outputs are `num_latent_outputs` dense layers of LATENT_SIZE side by side, then the maps of the convolutions.
    """
    import keras
    from keras import layers

    check_image_shape(image_shape)
    inputs = keras.Input(image_shape)
    x, maps = inputs, []
    for width, stride in STAGES:
        x = norm_and_relu()(layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x))
        maps.append(x)
    x = norm_and_relu()(layers.Dense(LATENT_SIZE, use_bias=False)(layers.Flatten()(x)))
    latent = [layers.Dense(LATENT_SIZE, dtype="float32")(x) for _ in range(num_latent_outputs)]
    return keras.Model(inputs, [*latent, *maps], name="encoder")


def small_decoder(latent_size: int, image_shape: tuple[int, int, int]) -> Any:
    """Return a model that mirrors `small_encoder`; the last layer has no activation."""
    import keras
    from keras import layers

    map_shape = (image_shape[0] // 4, image_shape[1] // 4, STAGES[-1][0])
    inputs = keras.Input((latent_size,))
    x = norm_and_relu()(layers.Dense(LATENT_SIZE, use_bias=False)(inputs))
    x = norm_and_relu()(layers.Dense(map_shape[0] * map_shape[1] * map_shape[2], use_bias=False)(x))
    x = layers.Reshape(map_shape)(x)
    for (_, stride), (width, _) in zip(STAGES[:0:-1], STAGES[-2::-1], strict=True):
        x = norm_and_relu()(layers.Conv2DTranspose(width, 3, stride, padding="same", use_bias=False)(x))
    return keras.Model(inputs, layers.Conv2DTranspose(3, 3, padding="same", dtype="float32")(x), name="decoder")


@register("oc_ae")
@dataclass(frozen=True)
class OneClassAutoencoder(Autoencoder):
    """A plain autoencoder of real images: a large reconstruction error means fake. The published baseline of OC-FakeDect.

    Khalid and Woo, "OC-FakeDect: Classifying deepfakes using one-class variational autoencoder", CVPR workshops 2020, compare
    with it; its layers are assumed to be those of `oc_fakedect`, without the latent variance. Published on FaceForensics++
    Deepfakes: precision, recall and accuracy 0.492, threshold 0.017. Command: `tfdetect train oc_ae`. docs/oneclass.md
    has measured results.
    """

    default_overrides = DEFAULT_OVERRIDES

    def __post_init__(self) -> None:
        if self.effective_score in NEEDS_VARIANCE:
            raise UserError(f"--detector.score {self.score} needs a latent with a variance, which oc_ae lacks: use rmse, "
                             "latent, perceptual or frequency, or the detector oc_fakedect.")  # fmt: skip

    def build_encoder(self, image_shape: tuple[int, int, int]) -> Any:
        return small_encoder(image_shape, 1)

    def build_decoder(self, latent_size: int, image_shape: tuple[int, int, int]) -> Any:
        return small_decoder(latent_size, image_shape)


@register("oc_fakedect")
@dataclass(frozen=True)
class OcFakeDect(VariationalAutoencoder):
    """OC-FakeDect, a variational autoencoder of real images; variant 2 compares the latents of image and reconstruction.

    Khalid and Woo, "OC-FakeDect: Classifying deepfakes using one-class variational autoencoder", CVPR workshops 2020. Published
    for variant 1 on FaceForensics++ Deepfakes: precision 0.860, recall 0.864, accuracy 0.862; independent replications reached
    AUCs of 0.50 to 0.62. It is unknown how the second encoder of variant 2 was trained. Here it learns to predict, from the
    reconstruction, the latent mean of the image, by squared error; no gradient reaches the other layers. Command:
    `tfdetect train oc_fakedect`. docs/oneclass.md has measured results.
    """

    default_overrides = DEFAULT_OVERRIDES

    variant: Literal[1, 2] = 1
    """1 scores the reconstruction; 2 encodes it with a second encoder and scores the distance between the two latents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == 2 and self.effective_score != "latent":
            raise UserError(f"--detector.variant 2 scores latents: leave out --detector.score {self.score}, or use variant 1.")

    @property
    def effective_score(self) -> ScoreName:
        return self.score or ("latent" if self.variant == 2 else "rmse")

    def build_encoder(self, image_shape: tuple[int, int, int]) -> Any:
        return small_encoder(image_shape, 2)

    def build_decoder(self, latent_size: int, image_shape: tuple[int, int, int]) -> Any:
        return small_decoder(latent_size, image_shape)

    def compute_score(self, image: Any, reconstruction: Any, latent: list[Any], maps: list[Any], encoder: Any,
                      decoder: Any) -> Any:  # fmt: skip
        if self.variant == 1:
            return super().compute_score(image, reconstruction, latent, maps, encoder, decoder)
        import keras

        from tfdetect.models.layers.autoencoder import RMSE, LatentMatchingLoss, StopGradient

        model = small_encoder(image.shape[1:], 1)
        second_encoder = keras.Model(model.inputs, model.outputs[0], name="second_encoder")
        prediction = second_encoder(StopGradient()(reconstruction))
        return RMSE()(LatentMatchingLoss(name="latent_matching")([latent[0], prediction]))
