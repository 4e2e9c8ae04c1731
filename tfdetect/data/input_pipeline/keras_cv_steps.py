"""Corruptions carried out by the layers of keras-cv, with draws from the run's seed.

The layers draw from generators of their own, so a resumed run would see other draws. Here each layer gets its draw: as the
`transformations` of `augment_images`, or from `Draws` in place of its generator. keras-cv is imported when a graph with such
a step is built, because the import takes seconds. The layers compute in float32, whatever the precision of the training.

Not used are `CutMix`, which mixes labels by the whole window, even if part of it lies outside the image; `Equalization`, which
turns the white of an overexposed image grey; and `RandomJpegQuality`, which is for 0..1 only.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

RANGE = (0, 255)


class Draws:
    """The methods of `tf.random.Generator` that the layers call, without state: the n-th call uses the n-th fold of a seed."""

    def __init__(self, seed: tf.Tensor) -> None:
        self.seed, self.calls = seed, 0

    def _next(self) -> tf.Tensor:
        self.calls += 1
        return tf.random.fold_in(self.seed, self.calls)

    def uniform(self, shape: Any, minval: Any = 0, maxval: Any = 1, dtype: tf.DType = tf.float32) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, self._next(), minval, maxval, dtype)

    def normal(self, shape: Any) -> tf.Tensor:
        return tf.random.stateless_normal(shape, self._next())


def build_layer(name: str, **settings: Any) -> Any:
    """Return the layer `name` of keras-cv, while the graph of the input pipeline is built.

    Each layer creates a generator. It is not used here, but its variable is not allowed in the graph, so a constant stands
    for it; and without a seed it would be TensorFlow's global generator, which a deterministic training forbids.
    """
    import keras_cv

    with tf.init_scope(), tf.variable_creator_scope(lambda create, initial_value, **settings: initial_value):
        return getattr(keras_cv.layers, name)(seed=1, dtype="float32", **settings)


def _augment(clips: tf.Tensor, layer: Any, transformations: Any = None) -> tf.Tensor:
    """Apply a layer to clips, with their frames below each other, so that they share draw, minimum and maximum."""
    shape = tf.shape(clips)
    stacked = tf.reshape(tf.cast(clips, tf.float32), [shape[0], shape[1] * shape[2], shape[3], 3])
    return tf.reshape(layer.augment_images(stacked, transformations=transformations), shape)


def posterize(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Keep the upper bits of each channel."""
    layers = [build_layer("Posterization", value_range=RANGE, bits=bits) for bits in range(1, 9)]

    def keep_bits(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        clip, bits = item
        return tf.switch_case(tf.cast(bits, tf.int32) - 1, [lambda layer=layer: layer.augment_image(clip) for layer in layers])

    return tf.map_fn(keep_bits, (clips, values), fn_output_signature=tf.float32)


def solarize(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Invert the levels from a threshold upwards."""
    draw = {"thresholds": values[:, None, None, None], "additions": 0.0}
    return _augment(clips, build_layer("Solarization", value_range=RANGE), draw)


def autocontrast(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Stretch each channel of the clip to 0..255."""
    return _augment(clips, build_layer("AutoContrast", value_range=RANGE))


def saturation(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Multiply the saturation of HSV; the layer takes x for a factor of x / (1 - x)."""
    return _augment(clips, build_layer("RandomSaturation", factor=0.5), values / (1 + values))


def hue(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Rotate the hue of HSV; the layer takes fractions of a full turn."""
    return _augment(clips, build_layer("RandomHue", factor=0.5, value_range=RANGE), values / 360)


def sharpness(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Scale the difference from a smoothed copy, except at the border; the layer takes the weight of the smoothed copy."""
    layer = build_layer("RandomSharpness", factor=0.5, value_range=RANGE)
    shape = tf.shape(clips)
    frames = tf.reshape(tf.cast(clips, tf.float32), [-1, shape[2], shape[3], 3])  # frames below each other would blend
    weights = tf.repeat(1 - values, shape[1])[:, None, None, None]
    return tf.reshape(layer.augment_images(frames, transformations=weights), shape)


@tf.autograph.experimental.do_not_convert
def grid_masks(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return masks (batch, 1, height, width, 1) bool of a rotated grid of squares; values are side / spacing."""
    from keras_cv import core

    layer = build_layer("GridMask", fill_value=1)

    def draw_mask(canvas: tf.Tensor, value: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        layer.ratio_factor = core.ConstantFactorSampler(value)
        layer._random_generator = layer.random_rotate._random_generator = Draws(seed)
        return layer.augment_image(canvas, transformation=layer.get_random_transformation(image=canvas))

    return _draw_masks(draw_mask, clips, values, seed)


@tf.autograph.experimental.do_not_convert
def fourier_masks(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return masks (batch, 1, height, width, 1) bool of random blobs; values are the covered share of the area.

    The masks come from two private methods of the layer, because all others also draw from TensorFlow's global state.
    """
    layer = build_layer("FourierMix")

    def draw_mask(canvas: tf.Tensor, value: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        layer._random_generator = Draws(seed)
        size = tf.shape(canvas)[:2]
        return layer._binarise_mask(layer._sample_mask_from_transform(layer.decay_power, size), value, size)[..., None]

    return _draw_masks(draw_mask, clips, values, seed)


def _draw_masks(draw_mask: Callable[..., tf.Tensor], clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw the mask of each clip on an empty canvas, with a seed of its own; for a value of 0 it stays empty at no cost."""
    canvas, seeds = tf.zeros([tf.shape(clips)[2], tf.shape(clips)[3], 1]), tf.random.split(seed, tf.shape(values)[0])

    def draw_one(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return tf.cond(item[0] > 0, lambda: draw_mask(canvas, *item), lambda: canvas)

    return tf.map_fn(draw_one, (values, seeds), fn_output_signature=tf.float32)[:, None] > 0


FUNCTIONS = {"posterize": posterize, "solarize": solarize, "autocontrast": autocontrast, "saturation": saturation, "hue": hue,
             "sharpness": sharpness}  # fmt: skip
