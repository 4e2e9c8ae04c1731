"""Corruptions of clips: compression, blur, resizing, cropping and the like, for augmentation and for stress tests.

    chain = parse("flip|jpeg(30,100,p=0.5)|blur(0,3,p=0.5)")
    clips, labels = chain(clips, labels, seed)

Published augmentations: "blur(0,3,p=0.5)|jpeg(30,100,p=0.5)" (Wang et al. 2020, CNNDetection; their other model uses p=0.1
for both) and "jpeg(80)|blur(1.1,p=0.5)" (CLIP features on ProGAN: JPEG 80 on all images, Gaussian blur 5x5 on half of
them; OpenCV takes a sigma of 1.1 for 5 pixels). docs/augment.md has the rest.

A corruption is a function of clips (batch, frames, height, width, 3) uint8, values (batch,) float32 in the unit of its
`Corruption`, and a seed (2,) int32. It returns clips, rounded after each step as saving to a file would do. It only gets
the clips that its probability selected, so rare steps are cheap. Nothing here keeps state, so that a resumed run repeats
the draws; keras_cv_steps.py gives the layers of keras-cv such draws, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from tfdetect import corruption_spec
from tfdetect.corruption_spec import CORRUPTIONS, CorruptionSpec, CorruptionStep
from tfdetect.data.input_pipeline import codecs, keras_cv_steps
from tfdetect.data.input_pipeline.face_blends import self_blending
from tfdetect.data.media.faces import FaceSettings

CUTOUT_LEVEL = 127  # mid-grey
CorruptionFunction = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class CorruptionChain(CorruptionSpec):
    """A corruption spec that can be applied to clips, eagerly, in a graph or in tf.data."""

    faces: FaceSettings | None = None
    """How `sbi` finds the face in a clip; by default it assumes the usual place in a face crop."""

    def __call__(self, clips: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return corrupted clips (batch, frames, height, width, 3) uint8 and labels (batch, 1 or more) float32.

        The first label is that of the file, 0 real and 1 fake. Mixup, cutmix and fourier_mix mix further labels with it;
        selfblend and sbi leave them unchanged. No other corruption changes labels. `seed` (2,) int32 determines all draws, on
        every machine. Each clip has its own draws, shared by its frames; only noise differs between frames.
        """
        with tf.device("CPU:0"):  # tf.data runs there; another device would round differently
            clips, labels, seed = tf.convert_to_tensor(clips), tf.convert_to_tensor(labels, tf.float32), tf.cast(seed, tf.int32)
            for number, step in enumerate(self.steps):
                changed, labels = _apply_step(step, clips, labels, tf.random.fold_in(seed, number), self.faces)
                clips = tf.ensure_shape(changed, clips.shape)
        return clips, labels

    def compiled(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """Return the same as a graph, which is several times faster than eager calls over many batches."""
        return tf.function(self, reduce_retracing=True)


def parse(text: str, faces: FaceSettings | None = None) -> CorruptionChain:
    """Parse a text such as "flip|jpeg(30,100,p=0.5)" into a chain. Raises UserError like `corruption_spec.parse`."""
    return CorruptionChain(corruption_spec.parse(text).steps, faces)


def _apply_step(step: CorruptionStep, clips: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor,
                faces: FaceSettings | None) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Apply one step to the clips that its probability selects."""
    draws = uniform(tf.random.fold_in(seed, 0), (2, tf.shape(clips)[0]))
    selected, values, seed = draws[0] < step.p, scale_draws(step, draws[1]), tf.random.fold_in(seed, 1)
    if step.name in MIXES:
        return _mix(clips, labels, MIXES[step.name](clips, tf.where(selected, values, 0), tf.random.fold_in(seed, 0)), seed)
    function = corruption_spec.REGISTERED.get(step.name) or FUNCTIONS.get(step.name) or self_blending(faces)
    if step.name in ("selfblend", "sbi"):
        real = labels[:, 0] == 0  # fakes stay as they are; a mixed clip is neither real nor fake
        labels = tf.concat([tf.where((selected & real)[:, None], 1.0, labels[:, :1]), labels[:, 1:]], 1)
        if step.name == "sbi":  # which recolours the reals that stay real
            values, selected = tf.cast(selected, tf.float32), tf.fill(tf.shape(selected), step.p > 0)
        selected &= real
    elif step.p == 1:
        return function(clips, values, seed), labels
    indices = tf.where(selected)[:, 0]

    def corrupt_selected() -> tf.Tensor:
        corrupted = function(tf.gather(clips, indices), tf.gather(values, indices), seed)
        return tf.tensor_scatter_nd_update(clips, indices[:, None], corrupted)

    return tf.cond(tf.size(indices) > 0, corrupt_selected, lambda: clips), labels


def scale_draws(step: CorruptionStep, draws: tf.Tensor) -> tf.Tensor:
    """Scale draws in 0..1 to the range of the step; all integers of an integer range are equally likely."""
    if CORRUPTIONS[step.name].integer:
        return tf.minimum(tf.floor(step.low + draws * (step.high - step.low + 1)), step.high)
    return tf.minimum(step.low + draws * (step.high - step.low), step.high)  # float rounding may exceed the upper bound


def uniform(seed: tf.Tensor, shape: Any, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Return float32 draws in low..high."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Round to uint8 and clip to 0..255."""
    return tf.saturate_cast(tf.round(values), tf.uint8)


def _per_clip(values: tf.Tensor) -> tf.Tensor:
    """Reshape (batch,) to (batch, 1, 1, 1, 1), to broadcast over clips."""
    return values[:, None, None, None, None]


def flip(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror horizontally."""
    return tf.reverse(clips, [3])


def jpeg(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Compress as JPEG with 4:2:0 chroma subsampling; decode to the same pixels as OpenCV and the reader."""

    def compress(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        frame, quality = item
        return tf.io.decode_jpeg(tf.raw_ops.EncodeJpegVariableQuality(images=frame, quality=quality), 3,
                                 dct_method="INTEGER_ACCURATE")  # fmt: skip

    quality = tf.repeat(tf.cast(values, tf.int32), tf.shape(clips)[1])
    return _unflatten(tf.map_fn(compress, (_flatten(clips), quality), fn_output_signature=tf.uint8), clips)


def resize(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Resize the sides by a factor, then back: sides shrink with area interpolation and grow with bilinear interpolation."""
    size = tf.shape(clips)[2:4]

    def resample(frames: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        small = tf.minimum(tf.shape(frames)[1:3], new)
        return tf.round(tf.image.resize(tf.round(tf.image.resize(frames, small, "area")), new))

    def there_and_back(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        frames, scale = item
        new = tf.maximum(tf.cast(tf.round(scale * tf.cast(size, tf.float32)), tf.int32), 1)
        return to_uint8(resample(resample(frames, new), size))

    return tf.map_fn(there_and_back, (clips, values), fn_output_signature=tf.uint8)


def side(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Resize so that the longer side has that many pixels, then back."""
    return resize(clips, values / tf.cast(tf.reduce_max(tf.shape(clips)[2:4]), tf.float32), seed)


def max_side(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The same, unless the longer side has no more pixels anyway."""
    return side(clips, tf.minimum(values, tf.cast(tf.reduce_max(tf.shape(clips)[2:4]), tf.float32)), seed)


def crop(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cut out a window at a random position and enlarge it to the full size."""
    return to_uint8(crop_float(clips, values, seed))


def crop_float(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Like `crop`, but return float32 without rounding."""
    first = uniform(seed, (2, tf.shape(values)[0])) * (1 - values)
    # Half a pixel beyond the border, TensorFlow paints black, and float rounding may get there.
    last = tf.where(values < 1, tf.minimum(first + values, 1 - 1e-5), 1)
    boxes = tf.repeat(tf.transpose(tf.concat([first, last], 0)), tf.shape(clips)[1], axis=0)
    frames = _flatten(clips)
    return _unflatten(tf.image.crop_and_resize(frames, boxes, tf.range(tf.shape(frames)[0]), tf.shape(clips)[2:4]), clips)


def noise(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add Gaussian noise, independent for each frame and channel."""
    return to_uint8(tf.cast(clips, tf.float32) + _per_clip(values) * tf.random.stateless_normal(tf.shape(clips), seed))


def brightness(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add the same number of levels to all pixels."""
    return to_uint8(tf.cast(clips, tf.float32) + _per_clip(values))


def contrast(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Scale the difference from the mean colour of the clip."""
    pixels = tf.cast(clips, tf.float32)
    mean = tf.reduce_mean(pixels, (1, 2, 3), keepdims=True)
    return to_uint8(mean + _per_clip(values) * (pixels - mean))


def cutout(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cover a window at a random position with grey."""
    return tf.where(windows(clips, values, seed), tf.cast(CUTOUT_LEVEL, tf.uint8), clips)


def grid_mask(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cover the squares of a rotated grid with grey (Chen et al. 2020)."""
    return tf.where(keras_cv_steps.grid_masks(clips, values, seed), tf.cast(CUTOUT_LEVEL, tf.uint8), clips)


def windows(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return masks (batch, 1, height, width, 1) bool of a window at a random position; values are its scale."""
    position = uniform(seed, (2, tf.shape(values)[0]))

    def covers(axis: int, length: tf.Tensor) -> tf.Tensor:
        covered = tf.round(values * tf.cast(length, tf.float32))
        first = tf.floor(position[axis] * (tf.cast(length, tf.float32) - covered + 1))
        indices = tf.range(tf.cast(length, tf.float32))
        return (indices >= first[:, None]) & (indices < (first + covered)[:, None])

    rows, columns = covers(0, tf.shape(clips)[2]), covers(1, tf.shape(clips)[3])
    return rows[:, None, :, None, None] & columns[:, None, None, :, None]


def mixup(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Both clips show through everywhere (Zhang et al. 2018)."""
    return _per_clip(values)


def cutmix(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A window of that area, inside the image, shows the other clip (Yun et al. 2019)."""
    return windows(clips, tf.sqrt(values), seed)


def _mix(clips: tf.Tensor, labels: tf.Tensor, share: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix each clip with another one of the batch, and the labels by the other clip's mean share.

    `share` (batch, 1, height or 1, width or 1, 1) is the weight of the other clip at each pixel, in 0..1.
    """
    other = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(clips)[0]), seed)
    pixels, share = tf.cast(clips, tf.float32), tf.cast(share, tf.float32)
    mixed, weight = to_uint8((1 - share) * pixels + share * tf.gather(pixels, other)), tf.reduce_mean(share, (2, 3, 4))
    return mixed, (1 - weight) * labels + weight * tf.gather(labels, other)


def selfblend(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Blend an image with a slightly shifted, recoloured and blurred copy of itself inside a soft ellipse.

    After self-blended images (Shiohara and Yamasaki 2022), whose mask follows facial landmarks. The ellipse here is for
    images that a face fills. In half of the draws image and copy swap roles, so that the mask itself reveals nothing.
    """
    count, seeds = tf.shape(values)[0], tf.unstack(tf.random.split(seed, 5))
    pixels = tf.cast(clips, tf.float32)
    copy = crop_float(clips, uniform(seeds[0], (count,), 0.95, 1.0), seeds[1])
    copy = tf.cast(blur(to_uint8(copy), uniform(seeds[2], (count,), 0.0, 1.5), seed), tf.float32)
    mean = tf.reduce_mean(copy, (1, 2, 3), keepdims=True)
    tint = uniform(seeds[3], (4, count, 1, 1, 1, 1), -1.0, 1.0)
    copy = mean + (1 + 0.15 * tint[3]) * (copy - mean) + 15 * tf.concat([tint[0], tint[1], tint[2]], -1)
    mask = _per_clip(values) * soft_ellipse(tf.shape(clips)[2], tf.shape(clips)[3], uniform(seeds[4], (6, count, 1, 1)))
    return to_uint8(pixels + mask * (copy - pixels))


def soft_ellipse(height: tf.Tensor, width: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Return masks (batch, 1, height, width, 1) in 0..1 of a soft ellipse near the centre, or inverted.

    `draws` (6, batch, 1, 1) in 0..1 determine position, size, softness and inversion.
    """
    y = (tf.range(tf.cast(height, tf.float32)) + 0.5)[:, None] / tf.cast(height, tf.float32)
    x = (tf.range(tf.cast(width, tf.float32)) + 0.5) / tf.cast(width, tf.float32)
    y = (y - 0.4 - 0.2 * draws[0]) / (0.2 + 0.2 * draws[1])
    x = (x - 0.4 - 0.2 * draws[2]) / (0.2 + 0.2 * draws[3])
    mask = tf.sigmoid((1 - tf.sqrt(y**2 + x**2)) / (0.03 + 0.2 * draws[4]))
    return tf.where(draws[5] < 0.5, mask, 1 - mask)[:, None, :, :, None]


def _flatten(clips: tf.Tensor) -> tf.Tensor:
    """Reshape (batch, frames, ...) to (batch * frames, ...)."""
    return tf.reshape(clips, tf.concat([[-1], tf.shape(clips)[2:]], 0))


def _unflatten(frames: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    """Reshape (batch * frames, ...) back to the shape of `clips`."""
    return tf.reshape(frames, tf.shape(clips))


def numpy_step(function: Callable[[np.ndarray, float], np.ndarray]) -> CorruptionFunction:
    """Turn a NumPy function of one clip (frames, height, width, 3) uint8 and its value into a corruption of batches.

    The function runs outside the TensorFlow graph.
    """

    def corrupt_batch(clips: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.stack([function(clip, float(value)) for clip, value in zip(clips, values, strict=True)])

    def step(clips: tf.Tensor, values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(corrupt_batch, [clips, values], tf.uint8, stateful=False), clips.shape)

    return step


# Images/s on 2 cores at 128 px: cv2 5700, a matrix product in the graph 2700, tf.nn.depthwise_conv2d 1400.
def _blur(clip: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip]) if sigma else clip


def _equalize(clip: np.ndarray, value: float) -> np.ndarray:
    """Equalise the histogram of each channel over all frames, which lie below each other."""
    stacked = Image.fromarray(clip.reshape(-1, *clip.shape[2:]))
    return np.asarray(ImageOps.equalize(stacked)).reshape(clip.shape)


def _rounded(function: CorruptionFunction) -> CorruptionFunction:
    """Return a step of keras-cv's with rounded results, without AutoGraph, which takes seconds and which it does not need."""
    return tf.autograph.experimental.do_not_convert(lambda clips, values, seed: to_uint8(function(clips, values, seed)))


blur, equalize, webp, avif = map(numpy_step, (_blur, _equalize, codecs.webp, codecs.avif))
h264, hevc = numpy_step(partial(codecs.video, "h264")), numpy_step(partial(codecs.video, "hevc"))
FUNCTIONS: dict[str, CorruptionFunction] = {
    "flip": flip, "jpeg": jpeg, "webp": webp, "avif": avif, "video": h264, "h264": h264, "hevc": hevc, "blur": blur,
    "resize": resize, "side": side, "max_side": max_side, "crop": crop, "square_crop": crop, "noise": noise,
    "brightness": brightness, "contrast": contrast, "cutout": cutout, "grid_mask": grid_mask, "equalize": equalize,
    "selfblend": selfblend, **{name: _rounded(function) for name, function in keras_cv_steps.FUNCTIONS.items()}}  # fmt: skip
# From clips, weights (batch,) of the other clip and a seed to its share of each pixel.
MIXES: dict[str, CorruptionFunction] = {"mixup": mixup, "cutmix": cutmix, "fourier_mix": keras_cv_steps.fourier_masks}
