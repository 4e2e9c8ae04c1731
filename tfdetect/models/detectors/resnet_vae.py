"""`resnet_vae`: variational autoencoders of real images with a ResNet-18 encoder, and a simple or a mirrored decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfdetect.detector import register
from tfdetect.errors import UserError, require_minimum
from tfdetect.models.autoencoder import VariationalAutoencoder
from tfdetect.models.pretrained.backbone import Preprocessing
from tfdetect.models.pretrained.optional_weights import OptionalWeights

PRESET = "resnet_18_imagenet"
WIDTHS = (64, 128, 256, 512)  # channels of the four stages of two basic blocks each
IMAGENET = Preprocessing.from_mean_and_std((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)


@register("resnet_vae")
@dataclass(frozen=True)
class ResNetVae(OptionalWeights, VariationalAutoencoder):
    """ResNet-18 variational autoencoders of real images: asymmetric (ImageNet weights, a simple decoder) or symmetric.

    He et al., "Deep residual learning for image recognition", 2016 (arXiv 1512.03385); Kingma and Welling 2014 (arXiv
    1312.6114). They repeat ResNetOCVAE1 (asymmetric) and ResNetOCVAE2 (symmetric), whose latent sizes are unknown. Published
    precision, recall and accuracy on FaceForensics++ Deepfakes, for the class real: 0.519, 0.828 and 0.528 (ResNetOCVAE1), 0.604,
    0.964 and 0.664 (ResNetOCVAE2) with a threshold from the test set; 0.910, 0.888 and 0.900 (ResNetOCVAE2) with a threshold
    from 250 + 250 validation images. Command: `tfdetect train resnet_vae`. docs/oneclass.md has measured results.
    """

    min_size = 32
    scale, offset = IMAGENET.scale, IMAGENET.offset
    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 32, "train.epochs": 50, "train.eval_every": 10,
              "train.patience": 50, "train.monitor": "val_ap"}  # fmt: skip

    variant: Literal["asymmetric", "symmetric"] = "symmetric"
    """Decoder: five transposed convolutions (asymmetric), or the mirrored encoder (symmetric)."""
    weights: Literal["imagenet", "none"] | Path = "none"
    """Initial encoder weights: keras-hub's resnet_18_imagenet (downloaded once), random ones, or the folder of such a preset."""
    latent: int = 256
    """Latent dimensions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_minimum(1, "detector", self, "latent")

    def require(self) -> None:
        load_backbone(self.weights)

    def build_encoder(self, image_shape: tuple[int, int, int]) -> Any:
        import keras
        from keras import layers

        if image_shape[0] % 32 or image_shape[1] % 32:
            raise UserError("--data.size must be a multiple of 32 for resnet_vae, which halves it five times; got "
                            f"{image_shape[0]}.")  # fmt: skip
        inputs = keras.Input(image_shape)
        maps = resnet18(inputs)
        copy_weights(keras.Model(inputs, maps[-1]), load_backbone(self.weights))
        x = layers.GlobalAveragePooling2D()(maps[-1])
        latent = [layers.Dense(self.latent, dtype="float32", name=name)(x) for name in ("mean", "log_variance")]
        return keras.Model(inputs, [*latent, *maps], name="encoder")

    def build_decoder(self, latent_size: int, image_shape: tuple[int, int, int]) -> Any:
        import keras
        from keras import layers

        map_shape = (image_shape[0] // 32, image_shape[1] // 32, WIDTHS[-1])
        inputs = keras.Input((latent_size,))
        x = layers.Reshape(map_shape)(layers.Dense(map_shape[0] * map_shape[1] * map_shape[2])(inputs))
        x = simple_decoder(x) if self.variant == "asymmetric" else mirrored_decoder(x)
        return keras.Model(inputs, layers.Activation("linear", dtype="float32")(x), name="decoder")


def load_backbone(weights: str | Path) -> Any:
    """Return keras-hub's backbone with the weights that `--detector.weights` names; None for `none`.

    Raises UserError if they are neither on disk nor downloadable.
    """
    if weights == "none":
        return None
    import keras_hub

    try:
        return keras_hub.models.ResNetBackbone.from_preset(PRESET if weights == "imagenet" else str(weights))
    except Exception as error:  # keras-hub and kagglehub raise many kinds of exceptions
        reason = " ".join(str(error).split(" with url")[0].split())[:200].rstrip(".")
        raise UserError(f"--detector.weights {weights}: could not open a keras-hub preset of ResNet-18 ({reason}). Download "
                         f"https://www.kaggle.com/models/keras/resnetv1/keras/{PRESET} on another machine and give its folder as "
                         "--detector.weights FOLDER; --detector.weights none starts from random weights.") from error  # fmt: skip


def copy_weights(model: Any, backbone: Any) -> None:
    """Copy the weights of keras-hub's ResNet-18, whose layers have the same names; do nothing if `backbone` is None.

    Raises UserError for another architecture.
    """
    if backbone is None:
        return
    targets, sources = ({layer.name: layer for layer in network.layers if layer.weights} for network in (model, backbone))
    if _weight_shapes(targets) != _weight_shapes(sources):
        raise UserError(f"--detector.weights: {backbone.name} with {len(sources)} layers of weights is not a ResNet-18, which "
                        f"has {len(targets)}; give the folder of a preset such as {PRESET}.")  # fmt: skip
    for name, layer in targets.items():
        layer.set_weights(sources[name].get_weights())


def _weight_shapes(layers: dict[str, Any]) -> dict[str, list[tuple[int, ...]]]:
    return {name: [tuple(weight.shape) for weight in layer.weights] for name, layer in layers.items()}


def batch_norm(x: Any, name: str | None = None) -> Any:
    """Apply batch normalisation with the constants of ResNet."""
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)(x)


def resnet18(x: Any) -> list[Any]:
    """Return the maps after each stage, at 1/4, 1/8, 1/16 and 1/32 of the image size. Layers are named as in keras-hub."""
    from keras import layers

    x = layers.Conv2D(64, 7, 2, use_bias=False, name="conv1_conv")(layers.ZeroPadding2D(3)(x))
    x = layers.ReLU()(batch_norm(x, "conv1_bn"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    maps: list[Any] = []
    for stage, width in enumerate(WIDTHS):
        for number in range(2):
            x = basic_block(x, width, 2 if stage and not number else 1, f"stack{stage}_block{number}")
        maps.append(x)
    return maps


def basic_block(x: Any, width: int, stride: int, name: str) -> Any:
    """Add two 3 x 3 convolutions to x; with a stride of 2, x is projected by a 1 x 1 convolution."""
    from keras import layers

    y = layers.ZeroPadding2D(1)(x) if stride > 1 else x
    y = layers.Conv2D(width, 3, stride, padding="valid" if stride > 1 else "same", use_bias=False, name=f"{name}_1_conv")(y)
    y = layers.ReLU()(batch_norm(y, f"{name}_1_bn"))
    y = batch_norm(layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y), f"{name}_2_bn")
    if stride > 1:
        x = batch_norm(layers.Conv2D(width, 1, stride, use_bias=False, name=f"{name}_0_conv")(x), f"{name}_0_bn")
    return layers.ReLU()(layers.Add()([x, y]))


def simple_decoder(x: Any, widths: Sequence[int] = (256, 128, 64, 32)) -> Any:
    """Apply five transposed convolutions, each of which doubles the resolution; the last returns images."""
    from keras import layers

    for width in widths:
        x = layers.ReLU()(batch_norm(layers.Conv2DTranspose(width, 4, 2, padding="same", use_bias=False)(x)))
    return layers.Conv2DTranspose(3, 4, 2, padding="same")(x)


def mirrored_decoder(x: Any) -> Any:
    """Apply the stages of `resnet18` in reverse, with transposed blocks, upsampling, and a transposed first convolution."""
    from keras import layers

    for stage in reversed(range(len(WIDTHS))):
        x = transposed_block(x, WIDTHS[stage], 1)
        x = transposed_block(x, WIDTHS[max(stage - 1, 0)], 2 if stage else 1)
    x = layers.UpSampling2D(2)(x)  # mirrors the max pooling
    return layers.Conv2DTranspose(3, 7, 2, padding="same")(x)


def transposed_block(x: Any, width: int, stride: int) -> Any:
    """Apply a basic block whose second convolution is transposed; a stride of 2 doubles the resolution."""
    from keras import layers

    y = layers.ReLU()(batch_norm(layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False)(x)))
    y = batch_norm(layers.Conv2DTranspose(width, 3, stride, padding="same", use_bias=False)(y))
    if stride > 1:
        x = batch_norm(layers.Conv2DTranspose(width, 1, stride, use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y]))
