"""Layers that detectors share. They keep to `keras.ops`, so that they run on any backend."""

import keras
from keras import ops

PACKAGE = "tfdetect"
BLOCK = 8  # pixels of the side of a JPEG block


@keras.saving.register_keras_serializable(PACKAGE)
class PerFrame(keras.layers.Wrapper):
    """Apply a layer or model to each frame: (batch, frames, ...) -> (batch, frames, ...).

    Frames are folded into the batch and back, which is what `keras.layers.TimeDistributed` promises; that one is wrong
    where batch and frames are both unknown and unrolls where they are known. The number of frames must be known.
    """

    def build(self, input_shape):
        if input_shape[1] is None:
            raise ValueError(f"PerFrame needs a known number of frames, got the shape {input_shape}.")
        if not self.layer.built:
            self.layer.build((None, *input_shape[2:]))
        self.built = True

    def call(self, inputs, training=None):
        frames = inputs.shape[1]
        folded = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        outputs = self.layer(folded, training=training)
        return ops.reshape(outputs, (-1, frames, *outputs.shape[1:]))

    def compute_output_shape(self, input_shape):
        inner = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (input_shape[0], input_shape[1], *inner[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class FrameDifferences(keras.layers.Layer):
    """Each frame less the one before it, (batch, frames, ...) -> the same shape; the first is 0."""

    def call(self, inputs):
        return ops.concatenate([ops.zeros_like(inputs[:, :1]), inputs[:, 1:] - inputs[:, :-1]], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RandomHorizontalFlip(keras.layers.Layer):
    """Augmentation: in training, flip half of the clips (batch, frames, height, width, 3) from left to right.

    All frames of a clip turn together, and no pixel changes its value: traces of a generator survive.
    """

    def __init__(self, seed=None, **options):
        super().__init__(**options)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        shape = (ops.shape(inputs)[0], 1, 1, 1, 1)
        chosen = keras.random.uniform(shape, seed=self.generator) < 0.5
        return ops.where(chosen, ops.flip(inputs, axis=3), inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class AlignedCrop(keras.layers.Layer):
    """Augmentation: in training, `size` pixels square of pictures (batch, height, width, channels), anywhere in the grid.

    One place for a batch, another for the next. A side that is not longer than `size` stays as it is.
    """

    def __init__(self, size, seed=None, **options):
        super().__init__(**options)
        self.size, self.seed = size, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        batch, *sides, channels = ops.shape(inputs)
        kept = [min(self.size, side) for side in sides]
        places = [
            BLOCK * keras.random.randint((), 0, (side - keep) // BLOCK + 1, seed=self.generator)
            for side, keep in zip(sides, kept, strict=True)
        ]
        return ops.slice(inputs, ops.stack([0, *places, 0]), (batch, *kept, channels))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None, None, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class FlipTTA(keras.layers.Layer):
    """Outside training, pictures (batch, height, width, channels) and after them the same from right to left: twice the batch.

    `FlipTTAMean` makes one of the two again.
    """

    def call(self, inputs, training=False):
        return inputs if training else ops.concatenate([inputs, ops.flip(inputs, axis=2)], axis=0)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class FlipTTAMean(keras.layers.Layer):
    """The mean of what the two sides of a picture gave, (2 x batch, features) -> (batch, features); in training nothing."""

    def call(self, inputs, training=False):
        return inputs if training else ops.mean(ops.reshape(inputs, (2, -1, inputs.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])


@keras.saving.register_keras_serializable(PACKAGE)
class LogVariancePooling(keras.layers.Layer):
    """Maps (batch, height, width, channels) -> (batch, channels): log of each channel's variance, in float32."""

    def call(self, inputs):
        return ops.log(ops.var(ops.cast(inputs, "float32"), axis=(1, 2)) + 1e-3)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])


def clip_input(clip_shape):
    """(input, normalised): uint8 clips (batch, frames, height, width, 3) in 0..255, and the same as floats in -1..1."""
    inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
    return inputs, keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)


def bgr(pixels):
    """Pictures (batch, height, width, 3) in RGB, 0..255 -> BGR less the mean of ImageNet, as weights that come from Caffe want
    it (keras.applications.imagenet_utils)."""
    return keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="normalise")(ops.flip(pixels, axis=-1))


def score(features, kernel="glorot_uniform"):
    """The last layer: (batch, features) -> (batch, 1) float32, also where the rest is in mixed precision."""
    return keras.layers.Dense(1, dtype="float32", kernel_initializer=kernel, name="score")(features)


def batch_norm_layers(layer):
    """All BatchNormalization layers in a layer or model."""
    if isinstance(layer, keras.layers.BatchNormalization):
        yield layer
    for inner in getattr(layer, "layers", [layer.layer] if isinstance(layer, keras.layers.Wrapper) else []):
        yield from batch_norm_layers(inner)


def synchronise_batch_norms(model, on):
    """Whether BatchNormalization, where it is trained, sees the batches of all devices.

    To be off when a model is saved: other backends than TensorFlow refuse to load it.
    """
    for layer in batch_norm_layers(model):
        layer.synchronized = on


@keras.saving.register_keras_serializable(PACKAGE)
class DetectionAndAttributionLoss(keras.losses.Loss):
    """`first` on the score, and for fakes of a known class cross-entropy on the logits of the classes.

    y_true (batch, 2): label 0..1 and number of the class, -1 for reals and where it is unknown; y_pred (batch, 1 + classes).
    """

    def __init__(self, first, name="two_levels", **options):
        super().__init__(name=name, **options)
        self.first = first

    def call(self, y_true, y_pred):
        number = ops.cast(y_true[:, 1], "int32")
        second = keras.losses.sparse_categorical_crossentropy(ops.maximum(number, 0), y_pred[:, 1:], from_logits=True)
        return self.first.call(y_true[:, :1], y_pred[:, :1]) + ops.where(number >= 0, second, 0.0)

    def get_config(self):
        return {**super().get_config(), "first": keras.saving.serialize_keras_object(self.first)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "first": keras.saving.deserialize_keras_object(config["first"])})


@keras.saving.register_keras_serializable(PACKAGE)
class FocalLoss(keras.losses.Loss):
    """`first`, a loss of scores, less the surer the score is right: times (1 - p)^2, p what it gives the label (Lin et al. 2017,
    arXiv 1708.02002). On binary cross-entropy it is Keras' focal loss.

    y_true (batch, 1) labels 0..1, y_pred (batch, 1).
    """

    def __init__(self, first, gamma=2.0, name="focal", **options):
        super().__init__(name=name, **options)
        self.first, self.gamma = first, gamma

    def call(self, y_true, y_pred):
        said = ops.sigmoid(y_pred[:, 0])
        right = y_true[:, 0] * said + (1 - y_true[:, 0]) * (1 - said)
        return self.first.call(y_true, y_pred) * ops.power(1 - right, self.gamma)

    def get_config(self):
        return {**super().get_config(), "first": keras.saving.serialize_keras_object(self.first), "gamma": self.gamma}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "first": keras.saving.deserialize_keras_object(config["first"])})


@keras.saving.register_keras_serializable(PACKAGE)
class ScoreAUC(keras.metrics.AUC):
    """AUC of the first column, the score; labels that augmentation mixed count as what they are more of."""

    def __init__(self, name="auc", **options):
        super().__init__(name=name, **{"from_logits": True, **options})

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(ops.cast(y_true[:, :1] > 0.5, "float32"), y_pred[:, :1])


def submodel_until(model, name):
    """What of a functional model leads to the output of the layer of that name."""
    return keras.Model(model.inputs, model.get_layer(name).output)


def submodel_from(model, name):
    """What of a functional model follows that layer: from its output to those of the model."""
    return keras.Model(model.get_layer(name).output, model.outputs if len(model.outputs) > 1 else model.outputs[0])
