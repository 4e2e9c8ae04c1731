"""A calibration as TensorFlow operations: what `Calibration` computes in Python, inside the SavedModel.

Numbers are float64 as in Python, since float32 log-odds of large scores are off by more than the probabilities may differ.
"""

from collections.abc import Mapping

import tensorflow as tf

from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Beta, Calibration, Isotonic


def verdict_outputs(calibration: Calibration, score: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Return probability, float32 in 0..1, `fake`, bool, and verdict, string, for scores, float64, all (batch,)."""
    probability = tf.sigmoid(_log_odds(calibration, score))
    fake = probability >= tf.constant(calibration.threshold, tf.float64)
    verdict = tf.where(fake, FAKE, REAL)
    if band := calibration.band:
        verdict = tf.where(tf.where(fake, score <= band.real_up_to, score >= band.fake_from), INCONCLUSIVE, verdict)
    return {"probability": tf.cast(probability, tf.float32), "fake": fake, "verdict": verdict}


def _log_odds(calibration: Calibration, score: tf.Tensor) -> tf.Tensor:
    linear, curve = calibration.slope * score + calibration.intercept, calibration.curve
    if isinstance(curve, Beta):
        linear = curve.a * tf.math.log_sigmoid(linear) - curve.b * tf.math.log_sigmoid(-linear) + curve.c
    elif isinstance(curve, Isotonic):
        probability = _interpolate(linear, curve)
        linear = tf.math.log(probability) - tf.math.log1p(-probability)  # infinite at 0 and 1
    return linear + calibration.shift


def _interpolate(score: tf.Tensor, table: Isotonic) -> tf.Tensor:
    """Return `numpy.interp` of the table at scores, float64 (batch,)."""
    x, y = tf.constant(table.scores, tf.float64), tf.constant(table.probabilities, tf.float64)
    if len(table.scores) == 1:
        return tf.fill(tf.shape(score), y[0])
    score = tf.clip_by_value(score, x[0], x[-1])
    left = tf.clip_by_value(tf.searchsorted(x, score, "right") - 1, 0, len(table.scores) - 2)
    low, high = tf.gather(y, left), tf.gather(y, left + 1)
    # At the upper end the weight is exactly 1, and so the value that of the table.
    weight = (score - tf.gather(x, left)) / (tf.gather(x, left + 1) - tf.gather(x, left))
    return low + weight * (high - low)
