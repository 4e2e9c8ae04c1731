"""`cnn`: a small convolutional network on single frames, trained from scratch."""

from dataclasses import dataclass
from typing import Any

from tfdetect.detector import Detector, register


@register("cnn")
@dataclass(frozen=True)
class Cnn(Detector):
    """Four convolutions and two dense layers on single frames; small enough for a laptop.

    Command: `tfdetect train cnn`. The README has measured results.
    """

    heat_map = "integrated_gradients"
    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 16, "train.epochs": 20}

    width: int = 16
    """Channels of the first convolution; the following ones have 2, 4 and 8 times as many."""
    dropout: float = 0.3
    """Dropout rate before each of the two dense layers."""
    mirror: bool = True
    """Flip half of the training images horizontally."""

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers.common import RandomHorizontalFlip, clip_input, score_layer

        inputs, x = clip_input(clip_shape)
        if self.mirror:
            x = RandomHorizontalFlip()(x)
        x = layers.Reshape(clip_shape[1:])(x)
        for block in range(4):
            x = layers.Conv2D(self.width * 2**block, 3, padding="same", activation="relu")(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Dropout(self.dropout)(layers.Flatten()(x))
        x = layers.Dense(64, activation="relu", name="features")(x)
        x = layers.Dropout(self.dropout)(x)
        return keras.Model(inputs, score_layer(x), name="cnn")
