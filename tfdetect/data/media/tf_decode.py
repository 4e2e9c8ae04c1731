"""The reader in the TensorFlow graph: the same squares, and TFRecords that hold frames or original images.

It serves the exported model, which takes encoded bytes and frames of any size, and the cache of TFRecords. `tf_images.py` decodes
the encoded images.
"""

import os
import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfdetect.data.media.frames import BLOCK, LIMITS, SQUEEZE, Fit, centre_and_corners, crop_grids
from tfdetect.data.media.read import read_image
from tfdetect.data.media.sniff import media_kind
from tfdetect.data.media.tf_images import decode_image
from tfdetect.limits import Limits

# (old length, new length) -> first old row of each new row (new,) int32, weights of the rows from there on (new, taps) float32
_WeightFunction = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def to_squares(frames: tf.Tensor, size: int, fit: Fit = SQUEEZE) -> tf.Tensor:
    """Return the squares of each frame in turn, equal to those of `frames.to_squares`.

    (batch, height, width, 3) uint8 to (batch x squares, size, size, 3) uint8; all frames of a batch have the same squares.
    """
    shape = tf.shape(frames)[1:3]
    if fit.mode == "crop":
        return crop_at(frames, crop_positions(shape, size, fit.crops), size)
    shorter, longer = tf.reduce_min(shape), tf.reduce_max(shape)
    if fit.mode == "shortest_side":
        top, left = tf.unstack((shape - shorter) // 2)
        frames = frames[:, top : top + shorter, left : left + shorter]
    if fit.mode == "pad":  # the shorter side of an image within --data.limits.pixels does not overflow
        new = tf.where(shape == longer, size, tf.maximum((2 * shorter * size + longer) // (2 * longer), 1))
        return crop_at(resize_to(frames, new), tf.zeros((1, 2), tf.int32), size, step=1)
    return resize(frames, size)


def crop_at(frames: tf.Tensor, corners: tf.Tensor, size: int, step: int = BLOCK) -> tf.Tensor:
    """Crop (batch, height, width, 3) at each of `corners` (crops, 2), of sides that are first extended as `frames.reflect` does.

    Returns (batch x crops, size, size, 3).
    """
    batch, height, width = tf.unstack(tf.shape(frames)[:3])
    rows, columns = (_mirror(corners[:, k : k + 1], side, size, step) for k, side in enumerate((height, width)))
    pixels = tf.gather(tf.reshape(frames, (batch, height * width, 3)), rows[:, :, None] * width + columns[:, None], axis=1)
    return tf.reshape(pixels, (-1, size, size, 3))


def _mirror(start: tf.Tensor, length: tf.Tensor, size: int, step: int) -> tf.Tensor:
    """Return which of `length` pixels is at each of `size` positions from `start` (crops, 1) on, (crops, size)."""
    position, last = start + tf.range(size) - tf.maximum(size - length, 0) // 2 // step * step, length - 1
    return last - tf.abs(last - position % tf.maximum(2 * last, 1))


def corner_at(frames: tf.Tensor, place: tf.Tensor, size: int) -> tf.Tensor:
    """Return the (top, left) of the crop of frames (batch, height, width, 3) at `place` (2,) in 0..1; all are equally likely."""
    room = tf.maximum(tf.shape(frames)[1:3] - size, 0) // BLOCK
    return BLOCK * tf.minimum(tf.cast(place * tf.cast(room + 1, tf.float32), tf.int32), room)  # float rounding may exceed it


def crop_positions(shape: tf.Tensor, size: int, crops: int) -> tf.Tensor:
    """Return the (top, left) of each crop, (crops, 2) int32, as `frames.crop_positions` does; `shape` is the height and width."""
    room = tf.maximum(shape - size, 0) // BLOCK
    if crops <= 5:
        corners = tf.stack([room * [top, left] // 2 for top, left in centre_and_corners(crops)])
        is_equal = tf.reduce_all(corners[:, None] == corners, axis=2)
        is_first = tf.reduce_sum(tf.linalg.band_part(tf.cast(is_equal, tf.int32), -1, 0), axis=1) == 1
        return BLOCK * tf.boolean_mask(corners, is_first)
    grids = tf.constant(crop_grids(crops))
    gaps = tf.where(grids == 1, 2 * room, -(-room // tf.maximum(grids - 1, 1)))
    wider, narrower = tf.reduce_max(gaps, axis=1), tf.reduce_min(gaps, axis=1)
    narrower = tf.where(wider == tf.reduce_min(wider), narrower, tf.int32.max)
    grid = tf.gather(grids, tf.where(narrower == tf.reduce_min(narrower))[0, 0])
    tops, lefts = (tf.where(count == 1, length // 2, length * tf.range(count) // tf.maximum(count - 1, 1))
                   for length, count in zip(tf.unstack(room), tf.unstack(grid), strict=True))  # fmt: skip
    return BLOCK * tf.reshape(tf.stack(tf.meshgrid(tops, lefts, indexing="ij"), axis=-1), (-1, 2))


def resize(frames: tf.Tensor, size: int) -> tf.Tensor:
    """Resize (batch, height, width, 3) uint8 to (batch, size, size, 3) uint8, equal to `frames.resize`.

    It consists of gathers, products and sums, which converters to TensorFlow Lite and ONNX support; none of them supports
    `tf.image.resize` with "area".
    """
    return tf.reshape(resize_to(frames, tf.constant([size, size])), (-1, size, size, 3))


def resize_to(frames: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Like `resize`, to any height and width `new` (2,) int32."""
    return _traced_resize(frames, new) if tf.inside_function() else _resize_if_needed(frames, new)


def _resize_if_needed(frames: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(frames)[1:3]
    return tf.cond(tf.reduce_all(shape == new), lambda: frames, lambda: _resize(frames, shape, new))


def _resize(frames: tf.Tensor, shape: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    with tf.device("CPU"):  # a GPU would be no faster, since the frames come from the CPU, and might fuse products with sums
        small = tf.minimum(shape, new)
        is_half = tf.reduce_all(shape == 2 * new)  # OpenCV then rounds halves up, otherwise to even
        is_whole = tf.reduce_all(shape % small == 0)  # OpenCV then sums pixels and divides; else it sums weights that add up to 1
        scale = tf.where(is_whole, 1.0 / tf.cast(tf.reduce_prod(shape // small), tf.float32), 1.0)

        def weights(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first, covered = _area_weights(old, new)
            return first, covered / tf.cast(tf.where(is_whole, new, old), tf.float32)

        frames = scale * _resize_both_axes(frames, shape, small, weights)
        frames = tf.where(is_half, tf.floor(frames + 0.5), tf.round(frames))
        grows = tf.reduce_any(small < new)
        frames = tf.cond(grows, lambda: tf.round(_resize_both_axes(frames, small, new, _linear_weights)), lambda: frames)
        return tf.cast(tf.clip_by_value(frames, 0, 255), tf.uint8)


# Traced once, then only called, whatever the new size.
_traced_resize = tf.function(_resize_if_needed, autograph=False, input_signature=[
    tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)])  # fmt: skip


def _resize_both_axes(frames: tf.Tensor, old: tf.Tensor, new: tf.Tensor, weights: _WeightFunction) -> tf.Tensor:
    """Resize (batch, height, width, 3) from `old` to `new` (height, width) as float32, columns first, as OpenCV does."""
    columns = tf.transpose(tf.reshape(frames, (-1, old[0], old[1] * 3)), (0, 2, 1))
    columns = _weighted_sums(tf.reshape(columns, (-1, old[1], 3 * old[0])), *weights(old[1], new[1]))
    rows = tf.transpose(tf.reshape(columns, (-1, new[1] * 3, old[0])), (0, 2, 1))
    return tf.reshape(_weighted_sums(rows, *weights(old[0], new[0])), (-1, new[0], new[1], 3))


def _weighted_sums(rows: tf.Tensor, first: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum old rows, of (batch, old, values), from `first` (new,) on with `weights` (new, taps) for each new row.

    Every product and every sum is rounded to float32, one tap after the other, as OpenCV does: sums that end in one half, and
    there are many, are then rounded the same way. A matrix product adds in another order and rounds less.
    """
    last, by_tap = tf.shape(rows)[1] - 1, tf.expand_dims(tf.transpose(weights), 2)

    def term(tap: tf.Tensor | int) -> tf.Tensor:
        return tf.cast(tf.gather(rows, tf.minimum(first + tap, last), axis=1), tf.float32) * tf.gather(by_tap, tap)

    is_left, add = lambda tap, _: tap < tf.shape(by_tap)[0], lambda tap, total: (tap + 1, total + term(tap))
    return tf.while_loop(is_left, add, (1, term(0)))[1]


def _area_weights(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for each new, larger pixel its first old pixel, and how much it covers of each old pixel in units of 1/new of one.

    These are whole numbers, and those of a new pixel add up to `old`: their quotients by it are exact where it is a power of two.
    """
    whole, rest = tf.range(new) * (old // new), tf.range(new) * (old % new)  # old x new may exceed an int32
    first = whole + rest // new
    start = rest[:, None] % new  # within the first, in units of 1/new of an old pixel: integers lose no precision
    pixel = tf.range((old - 1) // new + 2) * new
    covered = tf.minimum(start + old, pixel + new) - tf.maximum(start, pixel)
    return first, tf.cast(tf.where(1000 * covered > new, covered, 0), tf.float32)  # OpenCV ignores less than 1/1000 of a pixel


def _linear_weights(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for each new, smaller pixel the first of the two old pixels around its centre, and the weights of both."""
    position = tf.clip_by_value((2 * tf.range(new) + 1) * old - new, 0, 2 * new * (old - 1))  # in units of 1/2new of an old pixel
    fraction = tf.cast(position % (2 * new), tf.float32) / tf.cast(2 * new, tf.float32)
    return position // (2 * new), tf.stack([1 - fraction, fraction], axis=1)


def make_record(path: str | os.PathLike[str] | None, frames: np.ndarray, limits: Limits = LIMITS) -> bytes:
    """Return a TFRecord with an Example, as in a file: length, checksum, data, checksum.

    An image keeps its encoded bytes if the graph decodes them to the reader's pixels; otherwise it is stored as lossless PNG at
    native size. `frames` (frames, size, size, 3) uint8 are stored as they are for a video, or if there is no path.
    """
    if path and media_kind(os.fspath(path)) == "image":
        features = {"image": _encoded_image(path, limits)}
    else:
        features = {"frames": frames.tobytes()}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in features.items()}
    in_memory = f"ram://{os.getpid()}-{threading.get_ident()}.tfrecord"
    with tf.io.TFRecordWriter(in_memory) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    with tf.io.gfile.GFile(in_memory, "rb") as file:
        record = bytes(file.read())
    tf.io.gfile.remove(in_memory)
    return record


def _encoded_image(path: str | os.PathLike[str], limits: Limits) -> bytes:
    native = read_image(os.fspath(path), limits=limits).frames[0]
    with open(path, "rb") as file:
        data = file.read()
    try:
        is_equal = np.array_equal(decode_image(tf.constant(data)).numpy()[0], native)
    except tf.errors.InvalidArgumentError:  # a format that the graph does not decode, such as TIFF or HEIC
        is_equal = False
    return data if is_equal else tf.io.encode_png(native).numpy()


def read_record(record: tf.Tensor, size: int, fit: Fit = SQUEEZE, place: tf.Tensor | None = None) -> tf.Tensor:
    """Return the clip in a TFRecord of `make_record`, (frames, size, size, 3) uint8; usable in tf.data.

    With `place` (2,), floats from 0 to below 1, of an image only the crop at that share of its height and width is read.
    """

    def read_squares(frames: tf.Tensor) -> tf.Tensor:
        return to_squares(frames, size, fit) if place is None else crop_at(frames, corner_at(frames, place, size)[None], size)

    # A record is preceded by its length and a checksum (12 bytes) and followed by another checksum (4 bytes).
    data = tf.strings.substr(record, 12, tf.strings.length(record) - 16)
    text = tf.io.FixedLenFeature([], tf.string, "")
    example = tf.io.parse_single_example(data, {"image": text, "frames": text})
    return tf.cond(
        tf.strings.length(example["image"]) > 0,
        lambda: read_squares(decode_image(example["image"])),
        lambda: tf.reshape(tf.io.decode_raw(example["frames"], tf.uint8), (-1, size, size, 3)),
    )
