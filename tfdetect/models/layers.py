"""Layers that detectors share. They keep to `keras.ops`, so that they run on any backend."""

import keras
from keras import ops

PACKAGE = "tfdetect"


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
class Mirror(keras.layers.Layer):
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


def clip_input(clip_shape):
    """(input, normalised): uint8 clips (batch, frames, height, width, 3) in 0..255, and the same as floats in -1..1."""
    inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
    return inputs, keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)


def score(features):
    """The last layer: (batch, features) -> (batch, 1) float32, also where the rest is in mixed precision."""
    return keras.layers.Dense(1, dtype="float32", name="score")(features)
