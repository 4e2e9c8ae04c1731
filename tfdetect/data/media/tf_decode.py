"""The reader's twins in the TensorFlow graph: resize there gives what `media` gives, decode (`graph_images.py`) too.

They serve the exported model, which takes encoded bytes and frames of any size, and TFRecords with original images.
"""

import os

import numpy as np
import tensorflow as tf

from tfdetect.data.media.frames import LIMITS
from tfdetect.data.media.read import read_image
from tfdetect.data.media.sniff import media_kind
from tfdetect.data.media.tf_images import decode_image


def resize(frames, size):
    """(batch, height, width, 3) uint8 -> (batch, size, size, 3) uint8, the same as `media.resize` within one level.

    As matrix products, which converters to TensorFlow Lite and ONNX know; `tf.image.resize` with "area" none of them does.
    """
    shape = tf.shape(frames)[1:3]
    same = tf.reduce_all(shape == size)
    resized = tf.cond(same, lambda: frames, lambda: _resize(frames, shape, size))
    return tf.reshape(resized, (-1, size, size, 3))


def _resize(frames, shape, size):
    with tf.device("CPU"):  # a GPU would multiply with ten bits
        small = tf.minimum(shape, size)
        halves = tf.reduce_all(shape == 2 * size)  # there OpenCV rounds a half up, else to the even number
        scale = tf.reduce_prod(tf.cast(small, tf.float32) / tf.cast(shape, tf.float32))
        frames = scale * _both_ways(frames, shape, small, _areas)
        frames = tf.where(halves, tf.floor(frames + 0.5), tf.round(frames))
        grown = tf.reduce_any(small < size)
        frames = tf.cond(grown, lambda: tf.round(_both_ways(frames, small, [size, size], _lines)), lambda: frames)
        return tf.cast(tf.clip_by_value(frames, 0, 255), tf.uint8)


def _both_ways(frames, old, new, weights):
    """(batch, height, width, 3) of `old` to float32 of `new` (height, width), rows first."""
    for side in (0, 1):
        frames = tf.transpose(_mixed(frames, *weights(old[side], new[side])), (0, 2, 1, 3))
    return frames


def _mixed(frames, first, weights):
    """Each new row is a sum of the old rows from `first` (new,) on with weights (new, some): a product with a matrix, whose zeros
    are left out."""
    last, width = tf.unstack(tf.shape(frames)[1:3])
    rows = tf.minimum(first[:, None] + tf.range(tf.shape(weights)[1]), last - 1)
    some = tf.gather(tf.reshape(frames, (-1, last, width * 3)), rows, axis=1)
    return tf.reshape(tf.matmul(weights[:, None], tf.cast(some, tf.float32)), (-1, tf.shape(rows)[0], width, 3))


def _areas(old, new):
    """Of each new, larger pixel: the first old one, (new,) int32, and the part of each from there on that is in it, 0..1. Where
    all are whole, so is their sum, as OpenCV has it."""
    start = tf.range(new) * old  # in units of 1/new of an old pixel, since whole numbers do not lose their places
    first = start // new
    pixel = (first[:, None] + tf.range((old - 1) // new + 2)) * new
    shared = tf.minimum(start[:, None] + old, pixel + new) - tf.maximum(start[:, None], pixel)
    return first, tf.cast(tf.maximum(shared, 0), tf.float32) / tf.cast(new, tf.float32)


def _lines(old, new):
    """Of each new, smaller pixel: the two old ones, the first (new,) int32, between which its centre lies, and their weights."""
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    centre = tf.clip_by_value((tf.cast(tf.range(new), tf.float32) + 0.5) * scale - 0.5, 0.0, tf.cast(old - 1, tf.float32))
    part = centre - tf.floor(centre)
    return tf.cast(centre, tf.int32), tf.stack([1 - part, part], axis=1)


def write_record(target, path, frames, limits=LIMITS):
    """One TFRecord with one Example. An image keeps its own encoded bytes wherever the graph decodes them to the
    reader's pixels, else it is stored as lossless PNG at native size; frames of a video, or without a path, as they are."""
    if path and media_kind(path) == "image":
        features = {"image": _encoded(path, limits)}
    else:
        features = {"frames": frames.tobytes()}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in features.items()}
    with tf.io.TFRecordWriter(os.fsencode(target)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _encoded(path, limits):
    native = read_image(path, limits=limits).frames[0]
    with open(path, "rb") as file:
        data = file.read()
    try:
        faithful = np.array_equal(decode_image(tf.constant(data)).numpy()[0], native)
    except tf.errors.InvalidArgumentError:  # TIFF, HEIC
        faithful = False
    return data if faithful else tf.io.encode_png(native).numpy()


def read_record(path, size):
    """The clip of an entry, (frames, size, size, 3) uint8. Usable in tf.data."""
    # The 12 bytes before a record are its length and checksum, the 4 after it another checksum (TFRecord format).
    data = tf.io.read_file(path)
    data = tf.strings.substr(data, 12, tf.strings.length(data) - 16)
    text = tf.io.FixedLenFeature([], tf.string, "")
    record = tf.io.parse_single_example(data, {"image": text, "frames": text})
    return tf.cond(
        tf.strings.length(record["image"]) > 0,
        lambda: resize(decode_image(record["image"]), size),
        lambda: tf.reshape(tf.io.decode_raw(record["frames"], tf.uint8), (-1, size, size, 3)),
    )
