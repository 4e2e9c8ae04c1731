"""`mesonet`: Meso-4 and MesoInception-4, small networks for face crops."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfdetect.detector import Detector, register
from tfdetect.models.pretrained.hdf5 import resolve_weights
from tfdetect.models.pretrained.optional_weights import OptionalWeights
from tfdetect.models.pretrained.weight_files import load_weights


@register("mesonet")
@dataclass(frozen=True)
class MesoNet(OptionalWeights, Detector):
    """Meso-4 and MesoInception-4 on single face crops, from scratch or from the published weights.

    Afchar et al., "MesoNet: a Compact Facial Video Forgery Detection Network", 2018 (arXiv 1809.00888), which counts 27,977
    and 28,615 trainable parameters at 256 x 256 pixels, as do these. Commands:
    `tfdetect train mesonet --data.path DIR --data.faces yunet`, and `--detector.weights Meso4_DF.h5` with
    `--train.epochs 0` to evaluate the published weights as they are (github.com/DariusAf/MesoNet, Apache-2.0).
    Published accuracy of MesoInception-4 on Deepfakes: 0.917 of frames and 0.984 of videos.
    """

    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 20}

    variant: Literal["meso4", "mesoinception4"] = "meso4"
    """Four plain convolutions, or small inception modules in place of the first two."""
    weights: Literal["none"] | Path = "none"
    """Random weights, or one of the four published files such as Meso4_DF.h5, which need --data.size 256."""
    dropout: float = 0.5
    """Dropout rate before each of the two dense layers."""
    mirror: bool = True
    """Flip half of the training images horizontally."""

    def require(self) -> None:
        resolve_weights(self.weights, None)

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers.common import RandomHorizontalFlip

        path = resolve_weights(self.weights, None)
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        x = RandomHorizontalFlip()(inputs) if self.mirror else inputs
        x = layers.Rescaling(1 / 255)(layers.Reshape(clip_shape[1:])(x))
        features = layers.Flatten(name="features")((meso4 if self.variant == "meso4" else mesoinception4)(x))
        # The layers are named as in the published files.
        first, last = ("dense_3", "dense_4") if self.variant == "meso4" else ("dense_1", "dense_2")
        x = layers.Dense(16, name=first)(layers.Dropout(self.dropout)(features))
        x = layers.Dropout(self.dropout)(layers.LeakyReLU(0.1)(x))
        model = keras.Model(inputs, layers.Dense(1, dtype="float32", name=last)(x), name=self.variant)
        if path:
            load_weights(model, path)
            score = model.get_layer(last)
            score.set_weights([-weight for weight in score.get_weights()])  # in the published weights, 1 means real
        return model


def meso4(x: Any) -> Any:
    """Apply the convolutions of Meso-4 to images (batch, height, width, 3) in 0..1 -> (batch, height / 32, width / 32, 16)."""
    for number, (filters, kernel_size, pool_size) in enumerate(((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4)), 5):
        x = conv(x, f"conv2d_{number}", filters, kernel_size)
        x = norm_and_pool(x, number, pool_size)
    return x


def mesoinception4(x: Any) -> Any:
    """Apply the convolutions of MesoInception-4; shapes as for `meso4`."""
    x = inception_module(x, 1, (1, 4, 4, 2), norm_number=1)
    x = inception_module(x, 8, (2, 4, 4, 2), norm_number=2)
    x = norm_and_pool(conv(x, "conv2d_15", 16, 5), 3, 2)
    return norm_and_pool(conv(x, "conv2d_16", 16, 5), 4, 4)


def inception_module(x: Any, first_number: int, filters: tuple[int, int, int, int], norm_number: int) -> Any:
    """Concatenate a 1 x 1 convolution and three branches of a 1 x 1 and a 3 x 3 convolution with dilation 1, 2 and 3.

    `first_number` is the number of the first convolution in the published layer names; the others follow.
    """
    from keras import layers

    branches = [conv(x, f"conv2d_{first_number}", filters[0], 1)]
    for dilation, width in enumerate(filters[1:], 1):
        number = first_number + 2 * dilation - 1
        bottleneck = conv(x, f"conv2d_{number}", width, 1)
        branches.append(conv(bottleneck, f"conv2d_{number + 1}", width, 3, dilation))
    return norm_and_pool(layers.Concatenate()(branches), norm_number, 2)


def conv(x: Any, name: str, filters: int, kernel_size: int, dilation: int = 1) -> Any:
    """Apply a convolution with ReLU."""
    from keras import layers

    return layers.Conv2D(filters, kernel_size, padding="same", dilation_rate=dilation, activation="relu", name=name)(x)


def norm_and_pool(x: Any, number: int, pool_size: int) -> Any:
    """Apply batch normalisation and max pooling."""
    from keras import layers

    x = layers.BatchNormalization(name=f"batch_normalization_{number}")(x)
    return layers.MaxPooling2D(pool_size, padding="same")(x)
