"""Calibrate scores to probabilities and choose the decision threshold, both on validation files.

Platt scaling with smoothed targets: J. Platt, "Probabilistic outputs for support vector machines", 1999. Reliability and
expected calibration error: C. Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MIN_SLOPE = 1e-4  # in standard deviations of the scores; positive, so that calibration never reverses a ranking
ONE_CLASS_QUANTILE = 0.95  # share of a one-class validation set that falls on the correct side of the threshold
MIN_FILES_PER_CLASS = 20  # with fewer validation files of either class, the slope is regularised
POOLED_RULE = "pooled_test_quantile"  # reads the threshold from the test set; only recipes may use it
TEST_SEEN_NOTE = "threshold has seen the test set"


@dataclass(frozen=True)
class Calibration:
    """Platt scaling and a decision threshold.

    probability = sigmoid(slope * score + intercept); a file is called fake if probability >= threshold. `reals` and `fakes`
    are the numbers of validation files used for the fit, or None if unknown. Raises ValueError unless slope > 0, the intercept
    is finite and the threshold lies in 0..1.
    """

    slope: float
    intercept: float
    threshold: float
    reals: int | None = None
    fakes: int | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0 and 0 <= self.threshold <= 1):
            raise ValueError(f"Expected a slope above 0, a finite intercept and a threshold in 0..1, got {self}.")

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of being fake, float64 in 0..1, for scores of any shape."""
        from scipy.special import expit

        probabilities: NDArray[np.float64] = expit(self.log_odds(scores))
        return probabilities

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the log-odds of being fake, float64, for scores of any shape. Unlike probabilities, they do not saturate."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept

    @property
    def score_threshold(self) -> float:
        """The threshold in units of the score; infinite if the threshold is a probability of 0 or 1."""
        from scipy.special import logit

        return float((logit(self.threshold) - self.intercept) / self.slope)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if too few files were available for reliable probabilities; otherwise empty."""
        if self.reals is None or self.fakes is None or min(self.reals, self.fakes) >= MIN_FILES_PER_CLASS:
            return ()
        return (f"The probabilities only rank the files: they were calibrated on {self.reals} real and {self.fakes} fake "
                f"validation files. Reliable probabilities need at least {MIN_FILES_PER_CLASS} of each class.",)

    def to_dict(self) -> dict[str, float]:
        """Return the fields that are set as a dictionary ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Calibration:
        """Return the calibration stored by `to_dict`. Raises ValueError if keys are missing or unknown."""
        numbers = {name: float(value) for name, value in values.items() if name not in ("reals", "fakes")}
        if set(numbers) != {"slope", "intercept", "threshold"}:
            raise ValueError(f"A calibration needs slope, intercept and threshold, got {sorted(values)}.")
        reals, fakes = (int(values[name]) if name in values else None for name in ("reals", "fakes"))
        return cls(**numbers, reals=reals, fakes=fakes)


def fit(scores: ArrayLike, labels: ArrayLike, rule: str = "youden") -> Calibration:
    """Fit a calibration to validation files.

    `scores` (files,) must be finite, one per file (see `predictions.by_file`); `labels` (files,) are 0 (real) or 1 (fake).
    `rule` chooses the threshold: `youden` maximises balanced accuracy; `f1` maximises F1 of the fake class; `quantile:0.8`
    lies above that share of the real files; `fpr:0.01` calls at most that share of the real files fake.

    If validation holds one class only, the slope is the inverse standard deviation of the scores, and `youden` puts 95 % of
    the files on the correct side; the results then rank files but are not probabilities. With fewer than
    MIN_FILES_PER_CLASS files of a class the slope is regularised (see `_fit_platt`) and `Calibration.warnings` says so.

    Raises ValueError if the shapes do not match or there are no files, UserError if a score is not finite, a label is neither
    0 nor 1, or the rule needs a class that is missing.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape or not len(score):
        raise ValueError(f"Expected one score and one label for each file; got {score.shape} and {label.shape}.")
    if not np.isfinite(score).all() or not np.isin(label, (0, 1)).all():
        raise UserError("A calibration needs finite scores and labels of 0 (real) or 1 (fake). Look for NaN.")
    counts = {"reals": int((label == 0).sum()), "fakes": int((label == 1).sum())}
    if label.min() == label.max():
        fitted = replace(_fit_one_class(score, fake=bool(label[0])), **counts)
        if rule == "youden":
            return fitted
    else:
        fitted = Calibration(*_fit_platt(score, label), 0.5, **counts)
    return replace(fitted, threshold=compute_threshold(fitted.probability(score), label, rule))


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


def _fit_platt(score: NDArray[np.float64], label: NDArray[Any]) -> tuple[float, float]:
    """Return the slope and intercept with the lowest cross-entropy against Platt's smoothed targets.

    The targets keep the fit finite for separable classes. If the smaller class has fewer than MIN_FILES_PER_CLASS files, a
    ridge penalty on the slope of the standardised scores is added (S. le Cessie and J. van Houwelingen, "Ridge estimators in
    logistic regression", 1992): half the squared slope times MIN_FILES_PER_CLASS / files - 1 on the sum of the losses, that is
    19 for one file and 0 from MIN_FILES_PER_CLASS on. A few files may lie close together by chance, which would make every
    other score certain; the standard deviation is therefore widened towards its upper 95 % confidence limit for normally
    distributed scores, in proportion to the missing files.
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from scipy.stats import chi2

    fakes, reals = int((label == 1).sum()), int((label == 0).sum())
    shortfall, freedom = max(1 - min(fakes, reals) / MIN_FILES_PER_CLASS, 0.0), len(score) - 1
    centre, scale = float(score.mean()), _scale(score) * float(freedom / chi2.ppf(0.05, freedom)) ** (shortfall / 2)
    z = (score - centre) / scale
    target = np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    ridge = shortfall * MIN_FILES_PER_CLASS / min(fakes, reals) / len(z)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = parameters[0] * z + parameters[1]
        error = expit(log_odds) - target
        cost = np.mean(np.logaddexp(0, log_odds) - target * log_odds) + ridge * parameters[0] ** 2 / 2
        return float(cost), np.array([np.mean(error * z) + ridge * parameters[0], np.mean(error)])

    result = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, None), (None, None)],
                      options={"ftol": 1e-14, "gtol": 1e-9})  # fmt: skip
    slope = float(result.x[0]) / scale
    return slope, float(result.x[1]) - slope * centre


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


def _fit_one_class(score: NDArray[np.float64], fake: bool) -> Calibration:
    """Return a calibration with threshold 0.5 just outside the 95 % quantile of the only class.

    The threshold with the best F1 would be the lowest score if there are no fakes, and every file would be called fake.
    """
    scale = _scale(score)
    side = -1.0 if fake else 1.0
    edge = side * np.quantile(side * score, ONE_CLASS_QUANTILE, method="higher")
    slope = 1 / scale
    # The margin keeps scores equal to the quantile on the inner side, whatever the rounding.
    return Calibration(slope, float(-slope * (edge + side * 1e-3 * scale)), 0.5)


def _scale(score: NDArray[np.float64]) -> float:
    """Return the standard deviation, or the magnitude of the scores if they are (nearly) equal."""
    size = max(1.0, float(np.abs(score).max()))
    deviation = float(score.std())
    return deviation if deviation > 1e-12 * size else size


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Return the data of a reliability diagram: one row for each non-empty bin of equal width.

    Columns: low, high (edges of the bin), n, predicted (mean probability, 0..1), observed (share of fakes, 0..1).
    scikit-learn's `calibration_curve` lacks n, by which the calibration error weights the bins.
    """
    import pandas as pd

    probability, label = np.asarray(probabilities, np.float64), np.asarray(labels)
    index = np.minimum((probability * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": index, "predicted": probability, "observed": label})
    rows = table.groupby("bin").agg(n=("bin", "size"), predicted=("predicted", "mean"), observed=("observed", "mean"))
    rows.insert(0, "high", (rows.index + 1) / bins)
    rows.insert(0, "low", rows.index / bins)
    return rows.reset_index(drop=True)


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float | None:
    """Return the expected calibration error, 0..1 (Guo et al. 2017), or None for no files.

    It is the mean gap between predicted and observed frequency over bins of equal width, weighted by their number of files.
    """
    rows = reliability(labels, probabilities, bins)
    if rows.empty:
        return None
    return float(np.average((rows["predicted"] - rows["observed"]).abs(), weights=rows["n"]))
