"""The reader in the TensorFlow graph: the same resize, and TFRecords that hold frames or original images.

It serves the exported model, which takes encoded bytes and frames of any size, and the cache of TFRecords. `tf_images.py` decodes
the encoded images.
"""

import os
from collections.abc import Callable
from functools import cache

import numpy as np
import tensorflow as tf

from tfdetect.data.media.frames import LIMITS
from tfdetect.data.media.read import read_image
from tfdetect.data.media.sniff import media_kind
from tfdetect.data.media.tf_images import decode_image
from tfdetect.limits import Limits

# (old length, new length) -> first old row of each new row (new,) int32, weights of the rows from there on (new, taps) float32
_WeightFunction = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def resize(frames: tf.Tensor, size: int) -> tf.Tensor:
    """Resize (batch, height, width, 3) uint8 to (batch, size, size, 3) uint8; within one level of `frames.resize`.

    It consists of matrix products, which converters to TensorFlow Lite and ONNX support; none of them supports
    `tf.image.resize` with "area".
    """
    return _traced_resize(size)(frames) if tf.inside_function() else _resize_if_needed(frames, size)


@cache
def _traced_resize(size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `resize` to `size` as a graph, which is traced once and then only called."""
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    return tf.function(lambda frames: _resize_if_needed(frames, size), signature, autograph=False)


def _resize_if_needed(frames: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.shape(frames)[1:3]
    is_same = tf.reduce_all(shape == size)
    resized = tf.cond(is_same, lambda: frames, lambda: _resize(frames, shape, size))
    return tf.reshape(resized, (-1, size, size, 3))


def _resize(frames: tf.Tensor, shape: tf.Tensor, size: int) -> tf.Tensor:
    with tf.device("CPU"):  # a GPU might multiply with 10-bit mantissas (TF32)
        small = tf.minimum(shape, size)
        is_half = tf.reduce_all(shape == 2 * size)  # OpenCV then rounds halves up, otherwise to even
        scale = tf.reduce_prod(tf.cast(small, tf.float32) / tf.cast(shape, tf.float32))
        frames = scale * _resize_both_axes(frames, shape, small, _area_weights)
        frames = tf.where(is_half, tf.floor(frames + 0.5), tf.round(frames))
        grows = tf.reduce_any(small < size)
        frames = tf.cond(
            grows, lambda: tf.round(_resize_both_axes(frames, small, [size, size], _linear_weights)), lambda: frames
        )
        return tf.cast(tf.clip_by_value(frames, 0, 255), tf.uint8)


def _resize_both_axes(frames: tf.Tensor, old: tf.Tensor, new: tf.Tensor, weights: _WeightFunction) -> tf.Tensor:
    """Resize (batch, height, width, 3) from `old` to `new` (height, width) as float32, rows first."""
    for axis in (0, 1):
        frames = tf.transpose(_weighted_rows(frames, *weights(old[axis], new[axis])), (0, 2, 1, 3))
    return frames


def _weighted_rows(frames: tf.Tensor, first: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum old rows from `first` (new,) on with `weights` (new, taps) for each new row.

    This is a product with a banded matrix whose zeros are left out.
    """
    height, width = tf.unstack(tf.shape(frames)[1:3])
    rows = tf.minimum(first[:, None] + tf.range(tf.shape(weights)[1]), height - 1)
    taps = tf.gather(tf.reshape(frames, (-1, height, width * 3)), rows, axis=1)
    return tf.reshape(tf.matmul(weights[:, None], tf.cast(taps, tf.float32)), (-1, tf.shape(rows)[0], width, 3))


def _area_weights(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for each new, larger pixel its first old pixel and the share 0..1 of each old pixel that it covers.

    Where all shares are whole numbers, so is their sum, as in OpenCV.
    """
    start = tf.range(new) * old  # in units of 1/new of an old pixel: integers lose no precision
    first = start // new
    pixel = (first[:, None] + tf.range((old - 1) // new + 2)) * new
    covered = tf.minimum(start[:, None] + old, pixel + new) - tf.maximum(start[:, None], pixel)
    return first, tf.cast(tf.maximum(covered, 0), tf.float32) / tf.cast(new, tf.float32)


def _linear_weights(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for each new, smaller pixel the first of the two old pixels around its centre, and the weights of both."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    centre = tf.clip_by_value((tf.cast(tf.range(new), tf.float32) + 0.5) * scale - 0.5, 0.0, tf.cast(old - 1, tf.float32))
    fraction = centre - tf.floor(centre)
    return tf.cast(centre, tf.int32), tf.stack([1 - fraction, fraction], axis=1)


def write_record(target: str | os.PathLike[str], path: str | os.PathLike[str] | None, frames: np.ndarray,
                 limits: Limits = LIMITS) -> None:  # fmt: skip
    """Write a TFRecord with a single Example.

    An image keeps its encoded bytes if the graph decodes them to the reader's pixels; otherwise it is stored as lossless PNG at
    native size. `frames` (frames, size, size, 3) uint8 are stored as they are for a video, or if there is no path.
    """
    if path and media_kind(os.fspath(path)) == "image":
        features = {"image": _encoded_image(path, limits)}
    else:
        features = {"frames": frames.tobytes()}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in features.items()}
    with tf.io.TFRecordWriter(os.fsencode(target)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _encoded_image(path: str | os.PathLike[str], limits: Limits) -> bytes:
    native = read_image(os.fspath(path), limits=limits).frames[0]
    with open(path, "rb") as file:
        data = file.read()
    try:
        is_equal = np.array_equal(decode_image(tf.constant(data)).numpy()[0], native)
    except tf.errors.InvalidArgumentError:  # a format that the graph does not decode, such as TIFF or HEIC
        is_equal = False
    return data if is_equal else tf.io.encode_png(native).numpy()


def read_record(path: tf.Tensor, size: int) -> tf.Tensor:
    """Read the clip from a TFRecord, (frames, size, size, 3) uint8; usable in tf.data."""
    # A record is preceded by its length and a checksum (12 bytes) and followed by another checksum (4 bytes).
    data = tf.io.read_file(path)
    data = tf.strings.substr(data, 12, tf.strings.length(data) - 16)
    text = tf.io.FixedLenFeature([], tf.string, "")
    record = tf.io.parse_single_example(data, {"image": text, "frames": text})
    return tf.cond(
        tf.strings.length(record["image"]) > 0,
        lambda: resize(decode_image(record["image"]), size),
        lambda: tf.reshape(tf.io.decode_raw(record["frames"], tf.uint8), (-1, size, size, 3)),
    )
