"""How the scores of a file's frames become the score of the file, in the graph: as `evaluation.aggregation` in Python."""

import tensorflow as tf

from tfdetect.evaluation.aggregation import MEAN, averaged_places


def of_clips(output: tf.Tensor, rule: str) -> tf.Tensor:
    """Return the output of each clip, (clips, outputs) float32, from those of its frames, (clips, frames, outputs).

    The first output, the score, is combined by the rule; the others, probabilities of sources, are averaged.
    """
    means = tf.reduce_mean(output, axis=1)
    if rule == MEAN:
        return means
    first, end = averaged_places(rule, tf.shape(output)[1])
    highest = tf.sort(output[..., 0], axis=1, direction="DESCENDING")[:, first:end]
    return tf.concat([tf.reduce_mean(highest, axis=1, keepdims=True), means[:, 1:]], axis=1)


def of_files(output: tf.Tensor, rule: str, rows: tf.Tensor, num_files: tf.Tensor) -> tf.Tensor:
    """Return the same for files that differ in their number of frames, from the output of all frames, (frames, outputs).

    `rows` (frames,) int is the number of the file of each frame. A file without frames gets 0.
    """
    means = tf.math.unsorted_segment_mean(output, rows, num_files)
    if rule == MEAN:
        return means
    rows = tf.cast(rows, tf.int32)
    order = tf.argsort(output[:, 0], direction="DESCENDING", stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(rows, order), stable=True))  # file by file
    scores, rows = tf.gather(output[:, 0], order), tf.gather(rows, order)
    counts = tf.math.bincount(rows, minlength=num_files, maxlength=num_files)
    place = tf.range(tf.size(scores)) - tf.gather(tf.cumsum(counts, exclusive=True), rows)
    first, end = averaged_places(rule, tf.gather(counts, rows))
    used = (place >= first) & (place < end)
    score = tf.math.unsorted_segment_mean(tf.boolean_mask(scores, used), tf.boolean_mask(rows, used), num_files)
    return tf.concat([score[:, None], means[:, 1:]], axis=1)
