"""`mesonet`: Meso-4 and MesoInception-4, the small nets for face crops."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfdetect.detector import Detector, register
from tfdetect.models.pretrained.hdf5 import load, resolve


@register("mesonet")
@dataclass(frozen=True)
class MesoNet(Detector):
    """Meso-4 and MesoInception-4 on single face crops, from scratch or from the published weights.

    Afchar et al., "MesoNet: a Compact Facial Video Forgery Detection Network", 2018 (arXiv 1809.00888), which counts 27,977
    and 28,615 trainable parameters at 256 x 256 pixels, as these have. Commands:
    `python scripts/train.py mesonet --data.path DIR --data.faces yunet`, and `--detector.weights Meso4_DF.h5` with
    `--train.epochs 0` to judge the published weights as they are (github.com/DariusAf/MesoNet, Apache-2.0).
    Published for MesoInception-4 on Deepfakes: 0.917 of frames and 0.984 of videos decided right.
    """

    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 20}

    variant: Literal["meso4", "mesoinception4"] = "meso4"
    """Four plain convolutions, or the first two of them as small inception modules."""
    weights: Literal["none"] | Path = "none"
    """Random, or one of the four published files, Meso4_DF.h5 and the like, which needs --data.size 256."""
    dropout: float = 0.5
    """Share of features dropped before each of the two dense layers, in training."""
    mirror: bool = True
    """Flip half of the training pictures."""

    @property
    def initial_weights(self):
        return str(self.weights)

    @property
    def offline_overrides(self):
        return {"weights": "none"}

    def require(self):
        resolve(self.weights, None)

    def build(self, clip_shape):
        import keras
        from keras import layers

        from tfdetect.models.layers.common import RandomHorizontalFlip

        path = resolve(self.weights, None)
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        x = RandomHorizontalFlip()(inputs) if self.mirror else inputs
        x = layers.Rescaling(1 / 255)(layers.Reshape(clip_shape[1:])(x))
        pooled = layers.Flatten(name="features")((meso4 if self.variant == "meso4" else mesoinception4)(x))
        # The layers have the names of the published files.
        first, last = ("dense_3", "dense_4") if self.variant == "meso4" else ("dense_1", "dense_2")
        x = layers.Dense(16, name=first)(layers.Dropout(self.dropout)(pooled))
        x = layers.Dropout(self.dropout)(layers.LeakyReLU(0.1)(x))
        model = keras.Model(inputs, layers.Dense(1, dtype="float32", name=last)(x), name=self.variant)
        if path:
            load(model, path)
            score = model.get_layer(last)
            score.set_weights([-weight for weight in score.get_weights()])  # theirs is 1 for real
        return model


def meso4(x):
    """Pictures (batch, height, width, 3) in 0..1 -> (batch, height / 32, width / 32, 16)."""
    for number, (filters, kernel, pool) in enumerate(((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4)), 5):
        x = convolution(x, f"conv2d_{number}", filters, kernel)
        x = normalised(x, number, pool)
    return x


def mesoinception4(x):
    """The same, with modules that look at several scales."""
    x = inception(x, 1, (1, 4, 4, 2), number=1)
    x = inception(x, 8, (2, 4, 4, 2), number=2)
    x = normalised(convolution(x, "conv2d_15", 16, 5), 3, 2)
    return normalised(convolution(x, "conv2d_16", 16, 5), 4, 4)


def inception(x, first, filters, number):
    """1 x 1 convolutions, and 3 x 3 ones behind them with dilation 1, 2 and 3, side by side; `first` is the first's number."""
    from keras import layers

    branches = [convolution(x, f"conv2d_{first}", filters[0], 1)]
    for dilation, count in enumerate(filters[1:], 1):
        at = first + 2 * dilation - 1
        narrow = convolution(x, f"conv2d_{at}", count, 1)
        branches.append(convolution(narrow, f"conv2d_{at + 1}", count, 3, dilation))
    return normalised(layers.Concatenate()(branches), number, 2)


def convolution(x, name, filters, kernel, dilation=1):
    from keras import layers

    return layers.Conv2D(filters, kernel, padding="same", dilation_rate=dilation, activation="relu", name=name)(x)


def normalised(x, number, pool):
    from keras import layers

    x = layers.BatchNormalization(name=f"batch_normalization_{number}")(x)
    return layers.MaxPooling2D(pool, padding="same")(x)
