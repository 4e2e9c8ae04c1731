"""`resnet_vae`: variational autoencoders of reals on a ResNet-18, with a simple decoder or one that mirrors it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfdetect.detector import register
from tfdetect.errors import UserError
from tfdetect.models.autoencoder import VariationalAutoencoder

PRESET = "resnet_18_imagenet"
WIDTHS = (64, 128, 256, 512)  # channels of the four stages, of two basic blocks each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in 0..1


@register("resnet_vae")
@dataclass(frozen=True)
class ResNetVae(VariationalAutoencoder):
    """ResNet-18 variational autoencoders of real pictures: asymmetric (ImageNet weights, a simple decoder) or symmetric.

    He et al., "Deep residual learning for image recognition", 2016 (arXiv 1512.03385); Kingma and Welling 2014 (arXiv
    1312.6114). They repeat ResNetOCVAE1 and ResNetOCVAE2, published on FaceForensics++ Deepfakes with precision, recall and
    accuracy 0.519, 0.828, 0.528 and 0.604, 0.964, 0.664 of reals, at a threshold that had seen the test set; the second 0.910,
    0.888, 0.900 at one from 250 + 250 validation images. The size of their latents is not known here. Command: `python
    scripts/train.py resnet_vae`. What is measured here is in docs/oneclass.md.
    """

    min_size = 32
    scale = tuple(1 / (255 * s) for s in STD)
    offset = tuple(-m / s for m, s in zip(MEAN, STD, strict=True))
    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 32, "train.epochs": 50, "train.eval_every": 10,
              "train.patience": 50, "train.monitor": "val_ap"}  # fmt: skip

    variant: Literal["asymmetric", "symmetric"] = "symmetric"
    """The decoder: five transposed convolutions, or the encoder's mirror, block by block."""
    weights: Literal["imagenet", "none"] | Path = "none"
    """Where the encoder starts: keras-hub's resnet_18_imagenet (fetched once), random weights, or the folder of such a preset."""
    latent: int = 256
    """Numbers of the latent."""

    def __post_init__(self):
        super().__post_init__()
        if self.latent < 1:
            raise UserError(f"--detector.latent must be at least 1, got {self.latent}.")

    @property
    def initial_weights(self):
        return str(self.weights)

    @property
    def offline_overrides(self):
        return {"weights": "none"}

    def require(self):
        published(self.weights)

    def encoder(self, shape):
        import keras
        from keras import layers

        if shape[0] % 32 or shape[1] % 32:
            raise UserError(f"--data.size must be a multiple of 32 for resnet_vae, which halves it five times; got {shape[0]}.")
        inputs = keras.Input(shape)
        maps = resnet18(inputs)
        body = keras.Model(inputs, maps[-1])
        fill(body, published(self.weights))
        x = layers.GlobalAveragePooling2D()(maps[-1])
        latent = [layers.Dense(self.latent, dtype="float32", name=name)(x) for name in ("mean", "log_variance")]
        return keras.Model(inputs, [*latent, *maps], name="encoder")

    def decoder(self, latent, shape):
        import keras
        from keras import layers

        small = (shape[0] // 32, shape[1] // 32, WIDTHS[-1])
        inputs = keras.Input((latent,))
        x = layers.Reshape(small)(layers.Dense(small[0] * small[1] * small[2])(inputs))
        x = simple(x) if self.variant == "asymmetric" else mirrored(x)
        return keras.Model(inputs, layers.Activation("linear", dtype="float32")(x), name="decoder")


def published(weights: str | Path) -> Any:
    """keras-hub's backbone with the weights that the flag means; None for `none`. ValueError where they are not at hand."""
    if weights == "none":
        return None
    import keras_hub

    try:
        return keras_hub.models.ResNetBackbone.from_preset(PRESET if weights == "imagenet" else str(weights))
    except Exception as error:  # keras-hub and kagglehub raise whatever their parts do
        reason = " ".join(str(error).split(" with url")[0].split())[:200].rstrip(".")
        raise UserError(f"--detector.weights {weights}: no ResNet-18 of keras-hub could be opened ({reason}). Fetch "
                         f"https://www.kaggle.com/models/keras/resnetv1/keras/{PRESET} elsewhere and give its folder as "
                         "--detector.weights FOLDER; --detector.weights none starts from random weights.") from error  # fmt: skip


def fill(body: Any, backbone: Any) -> None:
    """The weights of keras-hub's ResNet-18 into ours, by the layers' names, which are the same. ValueError for another net."""
    if backbone is None:
        return
    ours, theirs = ({layer.name: layer for layer in net.layers if layer.weights} for net in (body, backbone))
    if shapes(ours) != shapes(theirs):
        raise UserError(f"--detector.weights: {backbone.name} of {len(theirs)} layers with weights is no ResNet-18, which has "
                         f"{len(ours)}.")  # fmt: skip
    for name, layer in ours.items():
        layer.set_weights(theirs[name].get_weights())


def shapes(layers: dict[str, Any]) -> dict[str, list[tuple[int, ...]]]:
    """Of each layer's weights."""
    return {name: [tuple(weight.shape) for weight in layer.weights] for name, layer in layers.items()}


def norm(x: Any, name: str | None = None) -> Any:
    """Batch normalisation as ResNet has it."""
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)(x)


def resnet18(x: Any) -> list[Any]:
    """Pictures -> the maps after each stage, at 1/4, 1/8, 1/16 and 1/32 of their size; layers are named as in keras-hub."""
    from keras import layers

    x = layers.Conv2D(64, 7, 2, use_bias=False, name="conv1_conv")(layers.ZeroPadding2D(3)(x))
    x = layers.ReLU()(norm(x, "conv1_bn"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    maps: list[Any] = []
    for stage, width in enumerate(WIDTHS):
        for number in range(2):
            x = block(x, width, 2 if stage and not number else 1, f"stack{stage}_block{number}")
        maps.append(x)
    return maps


def block(x: Any, width: int, stride: int, name: str) -> Any:
    """x plus two convolutions of it; where its size changes, x goes through one of 1 x 1."""
    from keras import layers

    y = layers.ZeroPadding2D(1)(x) if stride > 1 else x
    y = layers.Conv2D(width, 3, stride, padding="valid" if stride > 1 else "same", use_bias=False, name=f"{name}_1_conv")(y)
    y = layers.ReLU()(norm(y, f"{name}_1_bn"))
    y = norm(layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y), f"{name}_2_bn")
    if stride > 1:
        x = norm(layers.Conv2D(width, 1, stride, use_bias=False, name=f"{name}_0_conv")(x), f"{name}_0_bn")
    return layers.ReLU()(layers.Add()([x, y]))


def simple(x: Any, widths: Sequence[int] = (256, 128, 64, 32)) -> Any:
    """Five transposed convolutions that double the size, the last one to pictures."""
    from keras import layers

    for width in widths:
        x = layers.ReLU()(norm(layers.Conv2DTranspose(width, 4, 2, padding="same", use_bias=False)(x)))
    return layers.Conv2DTranspose(3, 4, 2, padding="same")(x)


def mirrored(x: Any) -> Any:
    """The stages of `resnet18` from last to first, each block turned round, then what undoes its first convolution."""
    from keras import layers

    for stage in reversed(range(len(WIDTHS))):
        x = turned(x, WIDTHS[stage], 1)
        x = turned(x, WIDTHS[max(stage - 1, 0)], 2 if stage else 1)
    x = layers.UpSampling2D(2)(x)  # the pooling's mirror
    return layers.Conv2DTranspose(3, 7, 2, padding="same")(x)


def turned(x: Any, width: int, stride: int) -> Any:
    """A basic block whose second convolution doubles the size, for a stride of 2."""
    from keras import layers

    y = layers.ReLU()(norm(layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False)(x)))
    y = norm(layers.Conv2DTranspose(width, 3, stride, padding="same", use_bias=False)(y))
    if stride > 1:
        x = norm(layers.Conv2DTranspose(width, 1, stride, use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y]))
