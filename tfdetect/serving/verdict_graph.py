"""A calibration as TensorFlow operations: what `Calibration` computes in Python, inside the SavedModel.

Numbers are float32, and all operations but those of words are built into TensorFlow Lite, which has neither float64 nor string
outputs nor searches in tables. Constants are split, or scores compared, so that probabilities still agree with Python's to 1e-6
and decisions exactly.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Beta, Calibration, Isotonic
from tfdetect.evaluation.familiarity import Familiarity


def verdict_outputs(calibration: Calibration, score: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Return probability, float32 in 0..1, `fake` and `inconclusive`, bool, for scores, float32, all (batch,)."""
    fake = score >= _round_up(calibration.score_threshold)
    outputs = {"probability": _probability(calibration, score), "fake": fake, "inconclusive": tf.zeros_like(fake)}
    if band := calibration.band:
        can_be_real, can_be_fake = score <= -_round_up(-band.real_up_to), score >= _round_up(band.fake_from)
        outputs["inconclusive"] = (fake & can_be_real) | (~fake & can_be_fake)
    return outputs


def word_outputs(calibration: Calibration, decisions: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
    """Return what `predict` says of decisions `fake` and `inconclusive`, and what they were made by, all (batch,).

    `label` is "real" or "fake", `verdict` the same or "inconclusive", string. `threshold` is the probability from which files are
    called fake; those from `band_from` to `band_to` are inconclusive; both are the threshold where none are, since JSON has no
    NaN; float32.
    """
    fake, inconclusive = decisions["fake"], decisions["inconclusive"]
    threshold = calibration.threshold
    numbers = dict(zip(("threshold", "band_from", "band_to"),
                       (threshold, *(calibration.inconclusive or (threshold, threshold))), strict=True))  # fmt: skip
    label = tf.where(fake, FAKE, REAL)
    return {"label": label, "verdict": tf.where(inconclusive, INCONCLUSIVE, label),
            **{name: tf.fill(tf.shape(fake), np.float32(value)) for name, value in numbers.items()}}  # fmt: skip


def familiarity_outputs(familiarity: Familiarity, content: tf.Tensor, processing: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Return `familiarity`, the p-value, float32 in 0..1, `unfamiliar`, bool, and why: `other_content` and `other_processing`,
    bool, for the distances of content and processing, float32, all (batch,)."""
    limit = np.float32(familiarity.limit)
    not_lower = tf.cast(tf.constant(familiarity.table) >= tf.maximum(content, processing)[:, None], tf.float32)
    p_value = (1 + tf.linalg.matvec(not_lower, familiarity.weights.astype(np.float32))) / np.float32(familiarity.groups + 1)
    other = {"other_content": content > limit, "other_processing": processing > limit}
    return {"familiarity": p_value, "unfamiliar": other["other_content"] | other["other_processing"], **other}


def _probability(calibration: Calibration, score: tf.Tensor) -> tf.Tensor:
    if isinstance(calibration.curve, Isotonic):
        fake, real = _interpolate(score, calibration.curve)
        fake *= np.float32(np.exp(calibration.shift))
        return fake / (fake + real)
    slope, intercept = calibration.slope, calibration.intercept
    # slope x score + intercept loses digits if both are large and of opposite sign; the rest is what rounding the centre leaves.
    centre = np.float32(-intercept / slope)
    rest = intercept + slope * float(centre)
    if not isinstance(beta := calibration.curve, Beta):
        return tf.sigmoid(np.float32(slope) * (score - centre) + np.float32(rest + calibration.shift))
    z = np.float32(slope) * (score - centre) + np.float32(rest)
    logarithm = tf.math.log(1 + tf.exp(-tf.abs(z)))  # log_sigmoid(z) is min(z, 0) less this
    curved = np.float32(beta.a) * tf.minimum(z, 0.0) + np.float32(beta.b) * tf.maximum(z, 0.0)
    return tf.sigmoid(curved + np.float32(beta.b - beta.a) * logarithm + np.float32(beta.c + calibration.shift))


def _interpolate(score: tf.Tensor, table: Isotonic) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `numpy.interp` of the table, and 1 less it without loss of digits, at scores, float32 (batch,)."""
    x, p = (np.asarray(values * 2 if len(values) == 1 else values, np.float64) for values in (table.scores, table.probabilities))
    start, width = x[:-1].astype(np.float32), np.maximum(np.diff(x), 1e-30)
    rest = (x[:-1] - start).astype(np.float32)
    steps = tf.reduce_sum(tf.cast(score[:, None] >= _round_up(x), tf.int32), axis=1)
    left = tf.clip_by_value(steps - 1, 0, len(x) - 2)
    weight = ((score - tf.gather(start, left)) - tf.gather(rest, left)) * tf.gather((1 / width).astype(np.float32), left)
    weight = tf.clip_by_value(weight, 0.0, 1.0)
    fake, real = ((1 - weight) * tf.gather(values[:-1].astype(np.float32), left)
                  + weight * tf.gather(values[1:].astype(np.float32), left) for values in (p, 1 - p))  # fmt: skip
    return fake, real


def _round_up(values: ArrayLike) -> np.ndarray:
    """Return the lowest float32 numbers that are no lower than these: the same float32 scores are at or above either."""
    exact = np.asarray(values, np.float64)
    rounded = exact.astype(np.float32)
    return np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)
