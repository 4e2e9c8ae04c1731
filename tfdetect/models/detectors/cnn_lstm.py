"""`cnn_lstm`: a convolutional net, or any image detector, on each frame, then a recurrent net over time."""

from dataclasses import dataclass, replace
from typing import Literal

from tfdetect.detector import Detector, register
from tfdetect.errors import UserError


@register("cnn_lstm")
@dataclass(frozen=True)
class CnnLstm(Detector):
    """Three convolutions and a dense layer on each frame, an LSTM over the frames: sees what changes in time.

    At 64 x 64 pixels it has 552,609 parameters. Commands: `python scripts/train.py cnn_lstm`, and with a trained image
    detector `--detector.frame_model saved_models/cnn --data.size 256`. Measured results are in the README. Published:
    recipes/glem_cnn_lstm.yaml and its PyTorch replica recipes/glem_torch.yaml.
    """

    input_kind = "clip"
    default_overrides = {"data.size": 64, "data.frames": 16, "train.batch": 8, "train.learning_rate": 5e-4, "train.epochs": 12}

    frame_model: str | None = None
    """Start from a trained image detector, such as saved_models/cnn, in place of the convolutions here."""
    freeze: bool = False
    """Keep that image detector as it is and train only what follows."""
    temporal: Literal["lstm", "gru", "bidirectional", "convolution", "attention"] = "lstm"
    """What reads the frames' features in time: a recurrent net, one in both directions, convolutions, or attention pooling."""
    differences: bool = False
    """Look, besides each frame, at what changed since the one before, by a small net of its own."""
    dropout: float = 0.1
    """Share of features dropped after each convolution, in training."""

    def __post_init__(self):
        if self.freeze and not self.frame_model:
            raise UserError("--detector.freeze needs --detector.frame_model: there is nothing trained to keep.")

    def resolve_runs(self, find_model):
        if not self.frame_model or self.frame_model.endswith(".keras"):
            return self
        return replace(self, frame_model=find_model(self.frame_model))

    def build(self, clip_shape):
        import keras
        from keras import layers

        from tfdetect.models.layers.common import FrameDifferences, PerFrame, clip_input, score

        inputs, pixels = clip_input(clip_shape)
        if self.frame_model:
            x = PerFrame(self.trained(clip_shape), name="frames")(inputs)
        else:
            x = PerFrame(self.frame_net(clip_shape[1:], "frame_net"), name="frames")(pixels)
        if self.differences:
            moved = PerFrame(self.frame_net(clip_shape[1:], "difference_net"), name="changes")(FrameDifferences()(pixels))
            x = layers.Concatenate()([x, moved])
        x = layers.Dense(64, activation="relu", name="features")(over_time(x, self.temporal))
        return keras.Model(inputs, score(x), name="cnn_lstm")

    def frame_net(self, frame_shape, name):
        """Frames (batch, height, width, 3) in -1..1 -> (batch, 256)."""
        import keras
        from keras import layers

        net = keras.Sequential([keras.Input(frame_shape)], name=name)
        for filters, kernel in ((16, 3), (32, 3), (64, 5)):
            net.add(layers.Conv2D(filters, kernel, activation="relu"))
            net.add(layers.MaxPooling2D())
            net.add(layers.Dropout(self.dropout))
        net.add(layers.Flatten())
        net.add(layers.Dense(256, activation="relu"))
        return net

    def trained(self, clip_shape):
        """The image detector of `frame_model` (a .keras file) up to its features: (batch, height, width, 3) uint8."""
        import keras

        from tfdetect import models
        from tfdetect.models.layers.common import batch_norm_layers

        whole = models.load(self.frame_model)
        size = whole.input_shape[2:4]
        if whole.input_shape[1] != 1 or size != tuple(clip_shape[1:3]):
            raise UserError(
                f"{self.frame_model} takes {whole.input_shape[1]} frame(s) of {size[0]} x {size[1]} pixels, this run "
                f"has {clip_shape[1]} x {clip_shape[2]}: give an image detector and --data.size {size[0]}."
            )
        features = keras.Model(whole.inputs, whole.get_layer("features").output)
        features.trainable = not self.freeze
        for layer in batch_norm_layers(features):  # a few clips have no statistics to speak of
            layer.trainable = False
        frame = keras.Input(clip_shape[1:], dtype="uint8")
        return keras.Model(frame, features(keras.ops.expand_dims(frame, 1)), name="frame_model")


def over_time(x, how):
    """(batch, frames, features) -> (batch, n)."""
    from keras import layers

    if how == "lstm":
        return layers.LSTM(64)(x)
    if how == "gru":
        return layers.GRU(64)(x)
    if how == "bidirectional":
        return layers.Bidirectional(layers.LSTM(64))(x)
    if how == "convolution":
        for dilation in (1, 2):
            x = layers.Conv1D(64, 3, padding="same", dilation_rate=dilation, activation="relu")(x)
        return layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(64, activation="relu")(x)
    weight = layers.Softmax(axis=1)(layers.Dense(1)(layers.Dense(64, activation="tanh")(x)))
    return layers.Flatten()(layers.Dot(axes=1)([weight, x]))
