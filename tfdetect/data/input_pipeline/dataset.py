"""Read batched `tf.data.Dataset`s of (clips uint8, labels float32) from the cache; only what a batch needs is in memory.

Normalisation is a layer of the model, so it runs on the device. Augmentation needs codecs, so it runs here.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tfdetect import stages
from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.media.tf_decode import read_record
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import expand_faces
from tfdetect.settings import Train

CROPS = 2**16  # number of the stream of random crops, which no step of an augmentation has


class Part(NamedTuple):
    """The part of each batch that one of several workers reads: every `workers`-th of its slices, from the number `worker` on."""

    worker: int
    workers: int
    slices: int  # one for each replica of each worker

    def of(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return the slices of this worker, in turn; the last ones of a batch may be shorter or empty.

        tf.distribute divides whole batches in the same way.
        """

        def cut(*batch: Any) -> tf.data.Dataset:
            length = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
            size = (length + self.slices - 1) // self.slices
            numbers = tf.data.Dataset.range(self.worker, self.slices, self.workers)
            return numbers.map(lambda n: tf.nest.map_structure(lambda values: values[n * size : (n + 1) * size], batch))

        return batches.flat_map(cut)


def expand_frames(table: pd.DataFrame, single: bool) -> pd.DataFrame:
    """Return one row for each model input: the clip of a file, or with `single` each of its frames, numbered in `frame`.

    Where a table has all faces of its files, the clip of each face, as `expand_faces` returns them, counts as that of a file.
    """
    table = expand_faces(table)
    counts = table["frames"].to_numpy() if single else np.ones(len(table), int)
    rows = table.loc[table.index.repeat(counts)].reset_index(drop=True)
    rows["frame"] = np.concatenate([np.arange(count) for count in counts]) if len(counts) else []
    return rows


def training_batches(table: pd.DataFrame, cache: Cache, single: bool, settings: Train, first: int, last: int,
                     part: Part | None = None) -> tf.data.Dataset:  # fmt: skip
    """Return shuffled, augmented batches of (clips, labels, weights) for the epochs `first` .. `last` - 1.

    Order and draws depend only on the seed and the numbers of epoch and batch, so a resumed run sees the same batches.
    The incomplete last batch of an epoch is dropped (different files each epoch), so that shapes are static. With --data.fit
    crop, images whose encoded form the cache keeps are cropped at random places. With `part`, only that part of each batch is
    returned, and read if there is no augmentation, which draws for whole batches.
    """
    rows, first_batch = expand_frames(table, single), first * steps_per_epoch(table, single, settings.batch)
    weights, chain = sample_weights(rows, settings), corruptions.parse(settings.augment, cache.spec.faces)
    seed = (settings.seed, first_batch) if cache.kind == "tfrecord" and cache.spec.fit.mode == "crop" else None
    batches = _load(_epoch_orders(rows, settings, first, last), rows, cache, single, weights, seed, None if chain else part)
    if not chain:
        return batches
    class_weight = [max(weights[rows["label"] == label], default=1.0) for label in (0, 1)]
    batches = _corrupt(batches, chain, settings.seed, first_batch, class_weight)
    return part.of(batches) if part else batches


def feature_batches(features: np.ndarray, rows: pd.DataFrame, settings: Train, first: int, last: int) -> tf.data.Dataset:
    """Like `training_batches`, but with features (rows, n) instead of clips; `rows` has their labels."""
    columns = [tf.constant(values) for values in (features, rows[["label"]].to_numpy(np.float32), sample_weights(rows, settings))]
    orders = _epoch_orders(rows, settings, first, last)
    batches = orders.map(lambda indices: tuple(tf.gather(values, indices) for values in columns))
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing to tune, and freeing its records took 10 s after 15 epochs
    return batches.prefetch(2).with_options(options)


def _epoch_orders(rows: pd.DataFrame, settings: Train, first: int, last: int) -> tf.data.Dataset:
    """Return batches of row indices for the epochs `first` .. `last` - 1."""
    size, seed, batch = len(rows), settings.seed, settings.batch
    minority, majority = _rows_by_class(rows) if settings.balance == "resample" else (None, None)

    def shuffle(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([seed, tf.cast(epoch, tf.int32)])
        indices = tf.range(size) if minority is None or majority is None else _resample(minority, majority, key)
        shuffled = tf.random.experimental.stateless_shuffle(indices, seed=key)
        return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch, drop_remainder=size >= batch)

    return tf.data.Dataset.range(first, last).flat_map(shuffle)


def sample_weights(rows: pd.DataFrame, settings: Train) -> np.ndarray:
    """Return the weight of each row in the loss, (rows,) float32."""
    return class_weights(rows) if settings.balance == "weights" else np.ones(len(rows), np.float32)


def class_weights(rows: pd.DataFrame) -> np.ndarray:
    """Return weights (rows,) float32 that balance the classes and average to 1."""
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight("balanced", rows["label"]).astype(np.float32)


def _rows_by_class(rows: pd.DataFrame) -> tuple[Any, Any]:
    """Return the row indices of the minority and of the majority class; (None, None) if there is only one class."""
    minority, majority = sorted((np.flatnonzero(rows["label"] == label) for label in (0, 1)), key=len)
    return (minority, majority) if len(minority) else (None, None)


def _resample(minority: np.ndarray, majority: np.ndarray, key: tf.Tensor) -> tf.Tensor:
    """Return as many indices as there are rows, half of each class: the minority repeated, the majority sampled."""
    half = (len(minority) + len(majority)) // 2
    repeated = tf.tile(tf.constant(minority), [-(-half // len(minority))])[:half]
    shuffled = tf.random.experimental.stateless_shuffle(tf.constant(majority), seed=key)
    return tf.concat([repeated, shuffled[: len(minority) + len(majority) - half]], 0)


def _corrupt(batches: tf.data.Dataset, chain: corruptions.CorruptionChain, seed: int, first: int,
             class_weight: Sequence[float]) -> tf.data.Dataset:  # fmt: skip
    """Apply `chain` to each batch, seeded by the run's seed and the number of the batch in the whole run.

    A clip has the weight of the class of its file, and a mix of two clips that of the class it is closer to.
    """

    def corrupt(number: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        clips, labels, _ = batch
        begun = _time_after(clips) if stages.active() else 0.0
        labels_and_classes = tf.repeat(labels[:, :1], 2, axis=1)  # selfblend and sbi change the label, not the class of the file
        clips, changed = chain(clips, labels_and_classes, tf.stack([seed, tf.cast(number, tf.int32)]))
        if stages.active():
            tf.numpy_function(lambda seconds: stages.add({"augment": float(seconds)}), [_time_after(clips) - begun], [])
        weights = tf.where(changed[:, 1] > 0.5, class_weight[1], class_weight[0])
        return clips, tf.concat([changed[:, :1], labels[:, 1:]], axis=1), tf.cast(weights, tf.float32)

    numbered = batches.enumerate(first)
    return numbered.map(corrupt, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _time_after(tensor: tf.Tensor) -> tf.Tensor:
    """Return the time in seconds at which the tensor is there; `tf.timestamp` refuses to run with deterministic ops."""
    with tf.control_dependencies([tensor]):
        return tf.numpy_function(time.perf_counter, [], tf.float64)


def steps_per_epoch(table: pd.DataFrame, single: bool, batch: int) -> int:
    """Return the number of batches in an epoch of `training_batches`."""
    return max(1, len(expand_frames(table, single)) // batch)


def evaluation_batches(table: pd.DataFrame, cache: Cache, single: bool, batch: int, part: Part | None = None) -> tf.data.Dataset:
    """Return batches of (clips, labels), or of each this part: each model input once, in the order of `expand_frames`."""
    rows = expand_frames(table, single)
    return _load(tf.data.Dataset.range(len(rows)).batch(batch), rows, cache, single, part=part)


def augmented_views(rows: pd.DataFrame, cache: Cache, single: bool, batch: int, augment: str) -> tf.data.Dataset:
    """Return batches of clips for rows of `expand_frames` with a column `view`.

    View 0 is the clip itself; other views are the clip after `augment`, with draws that depend only on file, frame and view.
    """
    clips = _load(tf.data.Dataset.range(len(rows)).batch(batch), rows, cache, single).map(lambda clips, labels: clips)
    chain = corruptions.parse(augment)
    if not chain or not rows["view"].any():
        return clips
    numbers = [(int(sha[:7], 16), 1009 * frame + view) for sha, frame, view in rows[["sha", "frame", "view"]].to_numpy()]
    seeds, is_original = tf.constant(numbers, tf.int32), tf.constant(rows["view"].to_numpy() == 0)

    def augment_clip(item: tuple[tf.Tensor, ...]) -> tf.Tensor:
        clip, seed, original = item
        return tf.cond(original, lambda: clip, lambda: chain(clip[None], tf.zeros((1, 1)), seed)[0][0])

    def augment_batch(clips: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        items = (clips, tf.gather(seeds, indices), tf.gather(is_original, indices))
        return tf.map_fn(augment_clip, items, fn_output_signature=tf.TensorSpec(clips.shape[1:], tf.uint8))

    indices = tf.data.Dataset.range(len(rows)).batch(batch)
    return tf.data.Dataset.zip(clips, indices).map(augment_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _load(batches: tf.data.Dataset, rows: pd.DataFrame, cache: Cache, single: bool,
          weights: np.ndarray | None = None, seed: tuple[int, int] | None = None,
          part: Part | None = None) -> tf.data.Dataset:  # fmt: skip
    """Map batches of row indices to (clips (batch, frames, size, size, 3) uint8, labels (batch, 1) float32).

    If the rows have a column `source_class`, the labels are (batch, 2). With `weights` (rows,) their weights come third. With
    `seed`, that of the run and the number of the first batch, encoded images are cropped at random. With `part`, only that part
    of each batch is read.
    """
    source = _ClipSource(rows, cache, single, seed is not None)
    columns = ["label", "source_class"] if "source_class" in rows else ["label"]
    labels = tf.constant(rows[columns].to_numpy(np.float32))

    def add_places(number: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.random.fold_in(tf.stack([seed[0] if seed else 0, tf.cast(number, tf.int32)]), CROPS)
        return indices, tf.random.stateless_uniform((tf.size(indices), 2), key)

    def load_batch(indices: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batch = (source.clips(indices, places), tf.gather(labels, indices))
        return batch if weights is None else (*batch, tf.gather(tf.constant(weights), indices))

    batches = batches.enumerate(seed[1] if seed else 0).map(add_places)
    batches = part.of(batches) if part else batches
    return batches.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


class _ClipSource:
    """Clips of the rows of `expand_frames` in a graph; with `crops`, encoded images are cropped where a batch says."""

    def __init__(self, rows: pd.DataFrame, cache: Cache, single: bool, crops: bool):
        self.reader, self.kind, self.single, self.crops = cache.reader(rows["sha"]), cache.kind, single, crops
        self.numbers = np.array([self.reader.numbers[sha] for sha in rows["sha"]], np.int64)
        self.frames, self.size, self.fit = rows["frame"].to_numpy(np.int32), cache.spec.size, cache.spec.fit
        self.shape = (1 if single else cache.spec.frames, self.size, self.size, 3)

    def clips(self, indices: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Return the clips (batch, *shape) uint8 of these rows; `places` (batch, 2) in 0..1 are those of the crops."""
        if self.kind == "npy":
            clips = tf.numpy_function(self._read_clips, [indices], tf.uint8)
            return tf.ensure_shape(clips, (None, *self.shape))
        records = tf.ensure_shape(tf.numpy_function(self._read_records, [indices], tf.string), (None,))
        items = (records, tf.gather(self.frames, indices), places)
        return tf.map_fn(self._to_clip, items, fn_output_signature=tf.TensorSpec(self.shape, tf.uint8))

    def _read_clips(self, indices: np.ndarray) -> np.ndarray:
        return self.reader.batch(self.numbers[indices], self.shape[0], self.frames[indices] if self.single else None)

    def _read_records(self, indices: np.ndarray) -> np.ndarray:
        return np.array([self.reader.record(number) for number in self.numbers[indices]], object)

    def _to_clip(self, item: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        record, frame, place = item
        clip = read_record(record, self.size, self.fit, place if self.crops else None)
        # A single frame, or all frames; the one frame of a still image is repeated to fill a clip.
        frame = tf.minimum(frame, tf.shape(clip)[0] - 1) if self.crops else frame  # one random crop of an image
        clip = clip[frame][None] if self.single else tf.repeat(clip, self.shape[0] // tf.shape(clip)[0], axis=0)
        return tf.ensure_shape(clip, self.shape)
