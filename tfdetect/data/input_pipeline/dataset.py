"""Cache -> batched tf.data.Dataset of (clip uint8, label float32). Only what a batch needs is in memory.

Normalising is a layer of the model, so it runs on the device. Augmenting, which needs codecs, runs here.
"""

import os

import numpy as np
import pandas as pd
import tensorflow as tf

from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.media.tf_decode import read_record
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.settings import Train


def expand_frames(table: pd.DataFrame, single: bool) -> pd.DataFrame:
    """What a model is fed, a row each: a clip of a file, or with `single` each of its frames, in the column `frame`."""
    counts = table["frames"].to_numpy() if single else np.ones(len(table), int)
    rows = table.loc[table.index.repeat(counts)].reset_index(drop=True)
    rows["frame"] = np.concatenate([np.arange(count) for count in counts]) if len(counts) else []
    return rows


def training_batches(table: pd.DataFrame, cache: Cache, single: bool, settings: Train, first: int, last: int) -> tf.data.Dataset:
    """Batches of (clips, labels, weights) for the epochs `first` .. `last` - 1, each in an order of its own, augmented.

    Order and draws depend on the seed and the numbers of epoch and batch alone: a run that goes on sees what it would have seen.
    An incomplete last batch is left out (another one each epoch), so that shapes are static.
    """
    rows = expand_frames(table, single)
    weights, chain = sample_weights(rows, settings), corruptions.parse(settings.augment)
    loaded = _load(_epoch_orders(rows, settings, first, last), rows, cache, single, weights)
    if not chain:
        return loaded
    of_class = [max(weights[rows["label"] == label], default=1.0) for label in (0, 1)]
    return _corrupt(loaded, chain, settings.seed, first * steps_per_epoch(table, single, settings.batch), of_class)


def feature_batches(features: np.ndarray, rows: pd.DataFrame, settings: Train, first: int, last: int) -> tf.data.Dataset:
    """As `training_batches`, of features (rows, n) in place of clips; `rows` has their labels."""
    columns = [tf.constant(values) for values in (features, rows[["label"]].to_numpy(np.float32), sample_weights(rows, settings))]
    batches = _epoch_orders(rows, settings, first, last).map(lambda indices: tuple(tf.gather(values, indices) for values in columns))
    options = tf.data.Options()
    options.autotune.enabled = False  # there is nothing to tune, and its records took 10 s to clear away after 15 epochs
    return batches.prefetch(2).with_options(options)


def _epoch_orders(rows, settings, first, last):
    """Batches of row numbers for the epochs `first` .. `last` - 1."""
    size, seed, batch = len(rows), settings.seed, settings.batch
    rare, often = _rows_by_class(rows) if settings.balance == "resample" else (None, None)

    def order(epoch):
        key = tf.stack([seed, tf.cast(epoch, tf.int32)])
        taken = tf.range(size) if rare is None else _resample(rare, often, key)
        shuffled = tf.random.experimental.stateless_shuffle(taken, seed=key)
        return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch, drop_remainder=size >= batch)

    return tf.data.Dataset.range(first, last).flat_map(order)


def sample_weights(rows: pd.DataFrame, settings: Train) -> np.ndarray:
    """What each row counts, (rows,) float32."""
    return class_weights(rows) if settings.balance == "weights" else np.ones(len(rows), np.float32)


def class_weights(rows: pd.DataFrame) -> np.ndarray:
    """A weight for each row with which both classes count alike, 1 on average."""
    counts = rows["label"].map(rows["label"].value_counts())
    return (len(rows) / (rows["label"].nunique() * counts)).to_numpy(np.float32)


def _rows_by_class(rows):
    """Rows of the rarer and of the other class; none where there is one class only."""
    parts = sorted((np.flatnonzero(rows["label"] == label) for label in (0, 1)), key=len)
    return parts if len(parts[0]) else (None, None)


def _resample(rare, often, key):
    """As many rows as there are, half of them of each class: the rarer class again and again, of the other a sample."""
    half = (len(rare) + len(often)) // 2
    again = tf.tile(tf.constant(rare), [-(-half // len(rare))])[:half]
    some = tf.random.experimental.stateless_shuffle(tf.constant(often), seed=key)[: len(rare) + len(often) - half]
    return tf.concat([again, some], 0)


def _corrupt(loaded, chain, seed, first, of_class):
    """The batches through `chain`, each with a seed of its own: the run's and the batch's number in the whole run. A clip weighs
    what the class of its file does, of `of_class`, and a mix of two what the class does that it is nearer to."""

    def corrupt(number, batch):
        clips, labels, _ = batch
        files = tf.repeat(labels[:, :1], 2, axis=1)  # the label, and the class of the file, which selfblend leaves
        clips, changed = chain(clips, files, tf.stack([seed, tf.cast(number, tf.int32)]))
        weights = tf.where(changed[:, 1] > 0.5, of_class[1], of_class[0])
        return clips, tf.concat([changed[:, :1], labels[:, 1:]], axis=1), tf.cast(weights, tf.float32)

    numbered = loaded.enumerate(first)
    return numbered.map(corrupt, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(table: pd.DataFrame, single: bool, batch: int) -> int:
    """Batches in an epoch of `training_batches`."""
    return max(1, len(expand_frames(table, single)) // batch)


def evaluation_batches(table: pd.DataFrame, cache: Cache, single: bool, batch: int) -> tf.data.Dataset:
    """Batches of (clips, labels): all units once, in the order of `expand_frames`."""
    rows = expand_frames(table, single)
    return _load(tf.data.Dataset.range(len(rows)).batch(batch), rows, cache, single)


def augmented_views(rows: pd.DataFrame, cache: Cache, single: bool, batch: int, augment: str) -> tf.data.Dataset:
    """Batches of clips for rows of `expand_frames` that have a `view`: 0 is the clip itself, others are it through `augment`.

    A view's draws depend on the file, the frame and the view alone.
    """
    clips = _load(tf.data.Dataset.range(len(rows)).batch(batch), rows, cache, single).map(lambda clips, labels: clips)
    chain = corruptions.parse(augment)
    if not chain or not rows["view"].any():
        return clips
    numbers = [(int(sha[:7], 16), 1009 * frame + view) for sha, frame, view in rows[["sha", "frame", "view"]].to_numpy()]
    seeds, plain = tf.constant(numbers, tf.int32), tf.constant(rows["view"].to_numpy() == 0)

    def one(item):
        clip, seed, plain = item
        return tf.cond(plain, lambda: clip, lambda: chain(clip[None], tf.zeros((1, 1)), seed)[0][0])

    def change(clips, numbers):
        items = (clips, tf.gather(seeds, numbers), tf.gather(plain, numbers))
        return tf.map_fn(one, items, fn_output_signature=tf.TensorSpec(clips.shape[1:], tf.uint8))

    where = tf.data.Dataset.range(len(rows)).batch(batch)
    return tf.data.Dataset.zip(clips, where).map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _load(batches, rows, cache, single, weights=None):
    """Dataset of index vectors -> of (clips (batch, frames, size, size, 3) uint8, labels (batch, 1) float32).

    Where the rows have a `kind`, the number of their source, the labels are (batch, 2); with `weights` (rows,) theirs follow.
    """
    entries = tf.constant([os.fsencode(cache.entry(sha)) for sha in rows["sha"]])
    columns = ["label", "source_class"] if "source_class" in rows else ["label"]
    frames, labels = tf.constant(rows["frame"].to_numpy(np.int32)), tf.constant(rows[columns].to_numpy(np.float32))
    length, size, read = 1 if single else cache.spec.frames, cache.spec.size, read_npy if cache.kind == "npy" else read_record

    def clip(index):
        found = read(entries[index], size)
        # One frame of many, or all; a still image's one frame stands for all.
        found = found[frames[index]][None] if single else tf.repeat(found, length // tf.shape(found)[0], axis=0)
        return tf.ensure_shape(found, (length, size, size, 3))

    def load(indices):
        clips = tf.map_fn(clip, indices, fn_output_signature=tf.TensorSpec((length, size, size, 3), tf.uint8))
        out = (clips, tf.gather(labels, indices))
        return out if weights is None else (*out, tf.gather(tf.constant(weights), indices))

    options = tf.data.Options()  # several workers each take their part of the batches: there are no files to deal out
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = batches.with_options(options)
    return batches.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def read_npy(path, size):
    """The array of an entry without leaving the graph, (frames, size, size, 3) uint8.

    The header of an .npy ends at a multiple of 64 bytes; its length stands at byte 8 (NumPy format 1.0).
    """
    data = tf.io.read_file(path)
    header = 10 + tf.cast(tf.io.decode_raw(tf.strings.substr(data, 8, 2), tf.uint16)[0], tf.int32)
    pixels = tf.io.decode_raw(tf.strings.substr(data, header, tf.strings.length(data) - header), tf.uint8)
    return tf.reshape(pixels, (-1, size, size, 3))
