"""Layers, losses and helpers that several detectors share. They use `keras.ops` only, so they run on every Keras backend."""

from collections.abc import Iterator
from typing import Any, Self, TypeAlias

import keras
from keras import ops

PACKAGE = "tfdetect"
BLOCK_SIZE = 8  # pixels; width and height of a JPEG block

Tensor: TypeAlias = Any  # a backend tensor, or a KerasTensor while a model is being built
Shape: TypeAlias = tuple[int | None, ...]


class Float32Layer(keras.layers.Layer):
    """Base class of layers that compute in float32 under every dtype policy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32"})


class PerImageScore(Float32Layer):
    """Base class of layers that return one score per image, (batch, 1)."""

    def compute_output_shape(self, input_shape: Any) -> Shape:
        first = input_shape[0] if isinstance(input_shape[0], tuple | list) else input_shape
        return (first[0], 1)


class SeededLayer(keras.layers.Layer):
    """Base class of layers that draw from `generator` in training; with a seed, the draws can be repeated."""

    def __init__(self, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class PerFrame(keras.layers.Wrapper):
    """Apply a layer or model to every frame: (batch, frames, ...) -> (batch, frames, ...).

    Folds the frames into the batch axis and back. `keras.layers.TimeDistributed` is documented to do the same, but returns wrong
    results when both batch size and number of frames are unknown, and unrolls the frames when they are known. The number of
    frames must be static; `build` raises ValueError otherwise.
    """

    def build(self, input_shape: Shape) -> None:
        if input_shape[1] is None:
            raise ValueError(f"PerFrame needs a known number of frames, got the input shape {input_shape}.")
        if not self.layer.built:
            self.layer.build((None, *input_shape[2:]))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        num_frames = inputs.shape[1]
        frames = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        outputs = self.layer(frames, training=training)
        return ops.reshape(outputs, (-1, num_frames, *outputs.shape[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        frame_shape = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (input_shape[0], input_shape[1], *frame_shape[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class FrameDifferences(keras.layers.Layer):
    """Subtract the previous frame from each frame, (batch, frames, ...) -> same shape. The first frame becomes 0."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.concatenate([ops.zeros_like(inputs[:, :1]), inputs[:, 1:] - inputs[:, :-1]], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RandomHorizontalFlip(SeededLayer):
    """Flip half of the clips (batch, frames, height, width, 3) horizontally, in training only.

    All frames of a clip are flipped together. Pixel values are unchanged, so traces of a generator survive.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return inputs
        flip = keras.random.uniform((ops.shape(inputs)[0], 1, 1, 1, 1), seed=self.generator) < 0.5
        return ops.where(flip, ops.flip(inputs, axis=3), inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class AlignedCrop(SeededLayer):
    """Random crop of images (batch, height, width, channels) to `size` pixels along the JPEG block grid, in training only.

    The whole batch shares one position. A side that is no longer than `size` is left as it is.
    """

    def __init__(self, size: int, seed: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        self.size = size

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return inputs
        batch_size, *image_size, channels = ops.shape(inputs)
        crop_size = [min(self.size, side) for side in image_size]
        offsets = [
            BLOCK_SIZE * keras.random.randint((), 0, (side - crop) // BLOCK_SIZE + 1, seed=self.generator)
            for side, crop in zip(image_size, crop_size, strict=True)
        ]
        return ops.slice(inputs, ops.stack([0, *offsets, 0]), (batch_size, *crop_size, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], None, None, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(PACKAGE)
class FlipTTA(keras.layers.Layer):
    """Append horizontally flipped copies to a batch of images (batch, height, width, channels), for test-time augmentation.

    Doubles the batch in inference and returns it unchanged in training. `FlipTTAMean` averages the two halves.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return inputs if training else ops.concatenate([inputs, ops.flip(inputs, axis=2)], axis=0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (None, *input_shape[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class FlipTTAMean(keras.layers.Layer):
    """Average the features of images and their flipped copies, (2 x batch, n) -> (batch, n); identity in training."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return inputs if training else ops.mean(ops.reshape(inputs, (2, -1, inputs.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (None, *input_shape[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class LogVariancePooling(keras.layers.Layer):
    """Log variance of each channel over all positions, (batch, height, width, channels) -> (batch, channels), in float32."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.log(ops.var(ops.cast(inputs, "float32"), axis=(1, 2)) + 1e-3)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")


def clip_input(clip_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the model input, uint8 clips (batch, frames, height, width, 3) in 0..255, and the same clips as floats in -1..1."""
    inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
    return inputs, keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)


def caffe_preprocess(images: Tensor) -> Tensor:
    """Convert RGB images (batch, height, width, 3) in 0..255 to BGR and subtract the ImageNet mean.

    Weights that were converted from Caffe expect this (mode "caffe" of `keras.applications.imagenet_utils.preprocess_input`).
    """
    return keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="normalise")(ops.flip(images, axis=-1))


def score_layer(features: Tensor, kernel_initializer: Any = "glorot_uniform") -> Tensor:
    """Apply the output layer, (batch, features) -> (batch, 1), which is float32 even in mixed precision."""
    return keras.layers.Dense(1, dtype="float32", kernel_initializer=kernel_initializer, name="score")(features)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Euclidean distances of all pairs, (a, n) and (b, n) -> (a, b); rounding may make them negative."""
    squares = ops.sum(left * left, axis=1)[:, None] + ops.sum(right * right, axis=1)[None, :]
    return squares - 2 * ops.matmul(left, ops.transpose(right))


def root_mean_square(x: Tensor) -> Tensor:
    """Return the root mean square of vectors, (batch, n) -> (batch, 1); at least 1e-6, as 0 has no gradient."""
    return ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-12)


def batch_norm_layers(layer: Any) -> Iterator[keras.layers.BatchNormalization]:
    """Yield all BatchNormalization layers of a layer or model, at any depth."""
    if isinstance(layer, keras.layers.BatchNormalization):
        yield layer
    for inner in getattr(layer, "layers", [layer.layer] if isinstance(layer, keras.layers.Wrapper) else []):
        yield from batch_norm_layers(inner)


def synchronise_batch_norms(model: keras.Model, synchronised: bool) -> None:
    """Switch whether BatchNormalization uses the statistics of all devices in training.

    Switch it off before a model is saved: backends other than TensorFlow refuse to load synchronised layers.
    """
    for layer in batch_norm_layers(model):
        layer.synchronized = synchronised


class _WrappedLoss(keras.losses.Loss):
    """Base class of losses that extend another loss, `base_loss`."""

    def __init__(self, base_loss: keras.losses.Loss, **options: Any) -> None:
        super().__init__(**options)
        self.base_loss = base_loss

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base_loss": keras.saving.serialize_keras_object(self.base_loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "base_loss": keras.saving.deserialize_keras_object(config["base_loss"])})


@keras.saving.register_keras_serializable(PACKAGE)
class DetectionAndAttributionLoss(_WrappedLoss):
    """`base_loss` on the score plus, for fakes with a known class, cross-entropy on the class logits.

    y_true (batch, 2): the label in 0..1 and the class index, which is -1 for reals and unknown classes.
    y_pred (batch, 1 + classes): the score and the class logits.
    """

    def __init__(self, base_loss: keras.losses.Loss, name: str = "detection_and_attribution", **options: Any) -> None:
        super().__init__(base_loss, name=name, **options)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        index = ops.cast(y_true[:, 1], "int32")
        attribution = keras.losses.sparse_categorical_crossentropy(ops.maximum(index, 0), y_pred[:, 1:], from_logits=True)
        return self.base_loss.call(y_true[:, :1], y_pred[:, :1]) + ops.where(index >= 0, attribution, 0.0)


@keras.saving.register_keras_serializable(PACKAGE)
class FocalLoss(_WrappedLoss):
    """`base_loss` weighted by (1 - p)^gamma, where p is the probability given to the true label.

    Lin et al., "Focal loss for dense object detection", 2017 (arXiv 1708.02002). With binary cross-entropy as `base_loss` it
    equals the focal loss of Keras. y_true (batch, 1): labels in 0..1. y_pred (batch, 1): logits.
    """

    def __init__(self, base_loss: keras.losses.Loss, gamma: float = 2.0, name: str = "focal", **options: Any) -> None:
        super().__init__(base_loss, name=name, **options)
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        probability = ops.sigmoid(y_pred[:, 0])
        true_probability = y_true[:, 0] * probability + (1 - y_true[:, 0]) * (1 - probability)
        return self.base_loss.call(y_true, y_pred) * ops.power(1 - true_probability, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}


@keras.saving.register_keras_serializable(PACKAGE)
class ScoreAUC(keras.metrics.AUC):
    """AUC of the first output column, the score. Labels that augmentation has mixed are rounded."""

    def __init__(self, name: str = "auc", **options: Any) -> None:
        super().__init__(name=name, **{"from_logits": True, **options})

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        super().update_state(ops.cast(y_true[:, :1] > 0.5, "float32"), y_pred[:, :1])


def submodel_until(model: keras.Model, name: str) -> keras.Model:
    """Return the part of a functional model from its inputs to the output of the layer called `name`."""
    return keras.Model(model.inputs, model.get_layer(name).output)


def submodel_from(model: keras.Model, name: str) -> keras.Model:
    """Return the part of a functional model from the output of the layer called `name` to the model's outputs."""
    return keras.Model(model.get_layer(name).output, model.outputs if len(model.outputs) > 1 else model.outputs[0])
