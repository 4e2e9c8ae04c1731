"""`cnn_lstm`: a convolutional network or a trained image detector on each frame, then a temporal network over the frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tfdetect.detector import Detector, FeatureFitContext, register
from tfdetect.errors import UserError, require_minimum


@register("cnn_lstm")
@dataclass(frozen=True)
class CnnLstm(Detector):
    """Three convolutions and a dense layer on each frame, then an LSTM over the frames, which sees changes over time.

    At 64 x 64 pixels it has 552,609 parameters. Commands: `tfdetect train cnn_lstm`, and with a trained image
    detector `--detector.frame_model saved_models/cnn --data.size 256`. The frames pass through a frozen frame model once, and
    its features are stored. The README has measured results. Published models: recipes/glem_cnn_lstm.yaml and its PyTorch
    replica recipes/glem_torch.yaml.
    """

    input_kind = "clip"
    heat_map = "integrated_gradients"
    default_overrides = {"data.size": 64, "data.frames": 16, "train.batch": 8, "train.learning_rate": 5e-4, "train.epochs": 12}

    frame_model: str | None = None
    """Trained image detector, such as saved_models/cnn, to start from in place of the convolutions."""
    freeze: bool = False
    """Keep the frame model frozen: its features are computed once per file and stored, and only the layers after it train."""
    views: int = 1
    """Views of each training clip whose features are stored; all but the first are augmented by --train.augment."""
    temporal: Literal["lstm", "gru", "bidirectional", "convolution", "attention"] = "lstm"
    """Temporal network: LSTM, GRU, bidirectional LSTM, convolutions over time, or attention pooling."""
    differences: bool = False
    """Add a second frame network on the differences between consecutive frames; every epoch then runs a frozen frame model."""
    dropout: float = 0.1
    """Dropout rate after each convolution."""

    def __post_init__(self) -> None:
        require_minimum(1, "detector", self, "views")
        if self.freeze and not self.frame_model:
            raise UserError("--detector.freeze needs --detector.frame_model: without it there is no trained model to freeze.")
        if self.views > 1 and not self.caches_features:
            raise UserError("--detector.views augments stored features: it needs --detector.frame_model and --detector.freeze, "
                            "without --detector.differences.")  # fmt: skip

    @property
    def caches_features(self) -> bool:
        return self.freeze and not self.differences

    def resolve_runs(self, find_model: Callable[[str], str]) -> Self:
        if not self.frame_model:
            return self
        return replace(self, frame_model=find_model(self.frame_model))

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers.common import FrameDifferences, PerFrame, clip_input, score_layer

        inputs, pixels = clip_input(clip_shape)
        if self.frame_model:
            x = PerFrame(self.load_frame_model(self.frame_model, clip_shape), name="frames")(inputs)
        else:
            x = PerFrame(self.build_frame_network(clip_shape[1:], "frame_network"), name="frames")(pixels)
        if self.caches_features:
            shape = x.shape[1:]
            x = layers.Flatten(dtype="float32", name="features")(x)  # a file has one row of features
            x = fixed_scale(name="standardise")(layers.Reshape(shape)(x))
        if self.differences:
            difference_network = self.build_frame_network(clip_shape[1:], "difference_network")
            differences = PerFrame(difference_network, name="differences")(FrameDifferences()(pixels))
            x = layers.Concatenate()([x, differences])
        name = "clip_features" if self.caches_features else "features"
        x = layers.Dense(64, activation="relu", name=name)(temporal_features(x, self.temporal))
        return keras.Model(inputs, score_layer(x), name="cnn_lstm")

    def fit_head(self, model: Any, context: FeatureFitContext) -> Any:
        from tfdetect.models.heads import mean_and_std
        from tfdetect.models.layers.common import submodel_from

        train, validation, standardise = context.train, context.validation, model.get_layer("standardise")
        mean, scale = mean_and_std(train.features.reshape(-1, standardise.output.shape[-1]))
        standardise.set_weights([mean, scale**2])
        head = submodel_from(model, "features")
        context.fit_by_gradient(head, train.features, train.labels, validation.features, validation.labels)
        return model

    def build_frame_network(self, frame_shape: tuple[int, int, int], name: str) -> Any:
        """Return a Keras model from frames (batch, height, width, 3) in -1..1 to features (batch, 256)."""
        import keras
        from keras import layers

        network = keras.Sequential([keras.Input(frame_shape)], name=name)
        for filters, kernel_size in ((16, 3), (32, 3), (64, 5)):
            network.add(layers.Conv2D(filters, kernel_size, activation="relu"))
            network.add(layers.MaxPooling2D())
            network.add(layers.Dropout(self.dropout))
        network.add(layers.Flatten())
        network.add(layers.Dense(256, activation="relu"))
        return network

    def load_frame_model(self, path: str, clip_shape: tuple[int, int, int, int]) -> Any:
        """Load an image detector (.keras file) up to its features: frames (batch, height, width, 3) uint8 -> (batch, n).

        Raises UserError if it is no image detector, or was trained at another image size.
        """
        import keras

        from tfdetect import models
        from tfdetect.models.layers.common import batch_norm_layers

        model = models.load(path)
        size = model.input_shape[2:4]
        if model.input_shape[1] != 1 or size != tuple(clip_shape[1:3]):
            raise UserError(
                f"{path} takes {model.input_shape[1]} frame(s) of {size[0]} x {size[1]} pixels, but this run "
                f"has {clip_shape[1]} x {clip_shape[2]}: give an image detector and --data.size {size[0]}."
            )
        features = keras.Model(model.inputs, model.get_layer("features").output)
        features.trainable = not self.freeze
        for layer in batch_norm_layers(features):  # a batch of few clips gives poor statistics
            layer.trainable = False
        frame = keras.Input(clip_shape[1:], dtype="uint8")
        return keras.Model(frame, features(keras.ops.expand_dims(frame, 1)), name="frame_model")


def fixed_scale(name: str) -> Any:
    """Return a layer that subtracts a mean from each feature and divides by a deviation; set_weights([mean, variance])."""
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-7, center=False, scale=False, trainable=False, dtype="float32", name=name)


def temporal_features(x: Any, kind: str) -> Any:
    """Summarise frame features over time, (batch, frames, features) -> (batch, n), with the given kind of temporal network."""
    from keras import layers

    # Float32 also in mixed precision: on JAX, cuDNN's recurrent layers take no bfloat16, which Keras notices too late.
    if kind == "lstm":
        return layers.LSTM(64, dtype="float32")(x)
    if kind == "gru":
        return layers.GRU(64, dtype="float32")(x)
    if kind == "bidirectional":
        return layers.Bidirectional(layers.LSTM(64, dtype="float32"), dtype="float32")(x)
    if kind == "convolution":
        for dilation in (1, 2):
            x = layers.Conv1D(64, 3, padding="same", dilation_rate=dilation, activation="relu")(x)
        return layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(64, activation="relu")(x)
    attention = layers.Softmax(axis=1)(layers.Dense(1)(layers.Dense(64, activation="tanh")(x)))
    return layers.Flatten()(layers.Dot(axes=1)([attention, x]))
