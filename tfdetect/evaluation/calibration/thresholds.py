"""Rules that choose the decision threshold, on validation files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.errors import UserError
from tfdetect.evaluation.calibration.model import Calibration

POOLED_RULE = "pooled_test_quantile"  # reads the threshold from the test set; only recipes may use it
TEST_SEEN_NOTE = "threshold has seen the test set"


def compute_threshold(probabilities: NDArray[np.float64], label: NDArray[Any], rule: str) -> float:
    """Return the threshold, 0..1, that a rule of `fit` chooses for validation files, both arrays (files,).

    Raises UserError if the rule needs a class that is missing, or the test set.
    """
    name, _, share = rule.partition(":")
    if name == POOLED_RULE:
        raise UserError(f"--train.threshold {rule} is computed from test scores by `pool_threshold`; got validation scores.")
    check_rule(rule, label)
    if name in ("quantile", "fpr"):
        return quantile_threshold(probabilities[label == 0], float(share) if name == "quantile" else 1 - float(share))
    return best_f1_threshold(probabilities, label) if name == "f1" else youden_threshold(probabilities, label)


def check_rule(rule: str, labels: ArrayLike) -> None:
    """Raise UserError if a threshold rule needs a class that is missing from the validation labels (files,)."""
    classes = set(np.unique(labels))
    if rule.startswith(("quantile", "fpr")) and 0 not in classes:
        raise UserError(f"--train.threshold {rule} needs real validation files, but there are none. Add some, or use youden.")
    if rule == "f1" and len(classes) == 1:
        only, remedy = ("real", "Use quantile:0.95 or fpr:0.05.") if 0 in classes else ("fake", "Use youden.")
        raise UserError(f"--train.threshold {rule} needs real and fake validation files, but validation holds only {only} files. "
                        f"{remedy}")  # fmt: skip


def is_pooled(rule: str) -> bool:
    """Return whether the rule computes the threshold from test scores, which biases all decisions on that test set."""
    return rule.partition(":")[0] == POOLED_RULE


def pool_threshold(calibration: Calibration, scores: ArrayLike, rule: str) -> Calibration:
    """Return the calibration with its threshold at a quantile of all test probabilities, real and fake pooled.

    `scores` (files,) are finite, one per test file. `pooled_test_quantile:0.8` is the 80 % quantile with linear interpolation
    (`numpy.quantile`): of 500 files 100 are called fake. Raises UserError if there are no scores or some are not finite.
    """
    score = np.asarray(scores, np.float64)
    if score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise UserError(f"--train.threshold {rule} needs one finite score for each test file; got {score.shape}. Look for NaN.")
    return replace(calibration, threshold=float(np.quantile(calibration.probability(score), float(rule.partition(":")[2]))))


def describe_rule(rule: str) -> str:
    """Return a phrase that says which files a rule computes the threshold from."""
    return f"{_describe_quantile(rule)}, so it has seen the test set" if is_pooled(rule) else f"{rule}, on validation files"


def rule_warnings(rule: str) -> tuple[str, ...]:
    """Return the warnings that every report must show for a threshold rule; empty for rules fitted on validation."""
    if not is_pooled(rule):
        return ()
    return (f"THE THRESHOLD HAS SEEN THE TEST SET: it is the {_describe_quantile(rule)}. Accuracy, precision, recall and F1 "
            "depend on the threshold, so on this test set they do not predict performance on unseen files. AUC and average "
            "precision do not depend on it.",)  # fmt: skip


def _describe_quantile(rule: str) -> str:
    return f"{100 * float(rule.partition(':')[2]):g} % quantile of all test scores, real and fake files together"


def quantile_threshold(reals: NDArray[np.float64], share: float) -> float:
    """Return a threshold that lies above at least this share of the probabilities of real files, (files,).

    It is half-way between two neighbouring values, because the exported model may differ in the last digits.
    """
    ordered = np.sort(reals)
    count = min(len(ordered), int(np.ceil(share * len(ordered) - 1e-9)))
    if not count:
        return 0.0
    last = ordered[count - 1]
    higher = ordered[ordered > last]
    return float((last + higher[0]) / 2) if len(higher) else float(min(1.0, last + max(0.01 * ordered.std(), 1e-6)))


def best_f1_threshold(probabilities: NDArray[np.float64], label: NDArray[Any]) -> float:
    """Return the threshold with the highest F1 of the fake class; the largest such threshold if several tie."""
    values = np.unique(probabilities)
    f1 = f1_scores(probabilities, label, values)[0]
    return float(values[f1 >= f1.max() - 1e-12][-1])


def f1_scores(probabilities: NDArray[np.float64], label: NDArray[Any], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 of the fake class and of the real class at each threshold, (2, thresholds), for files of both classes.

    scikit-learn's `f1_score` takes one threshold at a time and thousands of times as long (benchmarks/libraries.py).
    """
    true_real, missed = (np.searchsorted(np.sort(probabilities[label == kind]), thresholds, "left") for kind in (0, 1))
    true_fake, errors = (label == 1).sum() - missed, (label == 0).sum() - true_real + missed
    return np.stack([2 * true_fake / (2 * true_fake + errors), 2 * true_real / (2 * true_real + errors)])


def youden_threshold(probabilities: NDArray[np.float64], label: NDArray[Any]) -> float:
    """Return the threshold with the highest balanced accuracy, half-way between two neighbouring probabilities.

    If several thresholds tie, the one closest to 0.5 is returned; if all probabilities are equal, 0.5.
    """
    from sklearn.metrics import roc_curve

    false_positive, true_positive, descending = roc_curve(label, probabilities, drop_intermediate=False)
    values = descending[:0:-1]  # without the first, which is infinite
    if len(values) < 2:
        return 0.5
    middle = (values[:-1] + values[1:]) / 2
    # Between two adjacent floats the midpoint rounds to one of them; the upper one still separates them.
    middle = np.where(middle > values[:-1], middle, values[1:])
    youden = (true_positive - false_positive)[-2:0:-1]
    best = middle[youden >= youden.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])
