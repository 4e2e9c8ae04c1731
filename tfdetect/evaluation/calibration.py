"""From a score to a probability, and from a probability to a decision: two numbers and a threshold, from validation.

Platt scaling: J. Platt, "Probabilistic outputs for support vector machines", 1999, with his smoothed targets. How to
look at the result: C. Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599).
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

# In units of the scores' spread. Above zero, so that no calibration ever turns the order of two files round.
MIN_SLOPE = 1e-4
# Of a validation set with one class, the share that ends up on the right side of the threshold.
ONE_CLASS_QUANTILE = 0.95
MIN_FILES_PER_CLASS = 20  # files of each class from which on a slope is taken as it is fitted
POOLED_RULE = "pooled_test_quantile"  # the rule that looks at the test; recipes alone may ask for it
TEST_SEEN_NOTE = "threshold has seen the test set"


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * score + intercept); a file is called fake where probability >= threshold. `reals` and `fakes`
    say how many validation files it was fitted on, None where that is not known."""

    slope: float
    intercept: float
    threshold: float
    reals: int | None = None
    fakes: int | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0 and 0 <= self.threshold <= 1):
            raise ValueError(f"Expected a slope above 0, a finite intercept and a threshold in 0..1, got {self}.")

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Scores of any shape -> float64 of the same shape in 0..1, the probability of being fake."""
        from scipy.special import expit

        probabilities: NDArray[np.float64] = expit(self.log_odds(scores))
        return probabilities

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Scores of any shape -> float64 of the same shape, of which the probability is the sigmoid: they do not saturate."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept

    @property
    def score_threshold(self) -> float:
        """The threshold as a score; infinite where it is a probability of 0 or 1."""
        from scipy.special import logit

        return float((logit(self.threshold) - self.intercept) / self.slope)

    @property
    def doubts(self) -> tuple[str, ...]:
        """A sentence where the probabilities are no more than an order."""
        if self.reals is None or self.fakes is None or min(self.reals, self.fakes) >= MIN_FILES_PER_CLASS:
            return ()
        return (f"The probabilities are no more than an order: they were fitted on {self.reals} real and {self.fakes} fake "
                f"validation files, and it takes {MIN_FILES_PER_CLASS} of each.",)

    def to_dict(self) -> dict[str, float]:
        """Numbers under the names of the fields, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Calibration:
        """The inverse of `to_dict`; ValueError where the keys are others than slope, intercept, threshold and the counts."""
        numbers = {name: float(value) for name, value in values.items() if name not in ("reals", "fakes")}
        if set(numbers) != {"slope", "intercept", "threshold"}:
            raise ValueError(f"A calibration holds slope, intercept and threshold, got {sorted(values)}.")
        reals, fakes = (int(values[name]) if name in values else None for name in ("reals", "fakes"))
        return cls(**numbers, reals=reals, fakes=fakes)


def fit(scores: ArrayLike, labels: ArrayLike, rule: str = "youden") -> Calibration:
    """Calibrate on the validation files: `scores` (files,) finite, `labels` (files,) of 0 real and 1 fake.

    Give it one score a file, as `predictions.by_file` makes them: it is files that are judged. `rule` says where the threshold
    lies: `youden_threshold`, the best balanced accuracy; `f1`, the best F1 of fakes; `quantile:0.8`, above that part of the reals;
    `fpr:0.01`, with at most that part of the reals flagged. Where validation holds one class only, the slope comes from the
    spread of the scores and `youden_threshold` keeps 95 % of that class on its right side; what comes out is then an ordering between 0
    and 1 rather than a probability. ValueError for no scores, for scores that are not finite, and for a rule that the files
    cannot serve. Below ENOUGH files of a class the slope is held back, see `_fit_platt`, and `Calibration.warnings` says so.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape or not len(score):
        raise ValueError(f"Expected one score and one label for each file; got {score.shape} and {label.shape}.")
    if not np.isfinite(score).all() or not np.isin(label, (0, 1)).all():
        raise UserError("A calibration needs finite scores and labels of 0 (real) or 1 (fake). Look for NaN.")
    counts = {"reals": int((label == 0).sum()), "fakes": int((label == 1).sum())}
    if label.min() == label.max():
        found = replace(_fit_one_class(score, fake=bool(label[0])), **counts)
        return found if rule == "youden" else replace(found, threshold=compute_threshold(found.probability(score), label, rule))
    found = Calibration(*_fit_platt(score, label), 0.5, **counts)
    return replace(found, threshold=compute_threshold(found.probability(score), label, rule))


def compute_threshold(probabilities: NDArray[np.float64], label: NDArray[Any], rule: str) -> float:
    """The threshold after a rule of `fit`. ValueError where it needs a class that is not there, or the test."""
    name, _, part = rule.partition(":")
    if name == POOLED_RULE:
        raise UserError(f"--train.threshold {rule} is read off the test's scores, by `pool_threshold`; these are validation's.")
    check_rule(rule, label)
    if name in ("quantile", "fpr"):
        return quantile_threshold(probabilities[label == 0], float(part) if name == "quantile" else 1 - float(part))
    return best_f1_threshold(probabilities, label) if name == "f1" else youden_threshold(probabilities, label)


def check_rule(rule: str, labels: ArrayLike) -> None:
    """ValueError where a rule of `fit` needs a class that is not among the validation's labels (files,)."""
    found = set(np.unique(labels))
    if rule.startswith(("quantile", "fpr")) and 0 not in found:
        raise UserError(f"--train.threshold {rule} is read off the validation's reals, and there are none.")
    if rule == "f1" and len(found) == 1:
        only = "reals" if 0 in found else "fakes"
        raise UserError(f"--train.threshold {rule} weighs reals against fakes, and validation holds {only} only: over no fakes "
                         "at all, the best F1 flags every file. Give quantile:0.95 or fpr:0.05.")  # fmt: skip


def is_pooled(rule: str) -> bool:
    """Whether the rule reads the threshold off the test's scores, so that the test no longer judges what it decides."""
    return rule.partition(":")[0] == POOLED_RULE


def pool_threshold(found: Calibration, scores: ArrayLike, rule: str) -> Calibration:
    """The calibration with another threshold: `pooled_test_quantile:0.8`, that quantile of the probabilities of all test files.

    `scores` (files,) finite, of reals and fakes together, one a file. Between two files it lies on the straight line, as
    `numpy.quantile` has it: of 500 files 100 are called fake. ValueError for no scores and for scores that are not finite.
    """
    score = np.asarray(scores, np.float64)
    if score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise UserError(f"--train.threshold {rule} needs one finite score for each test file; got {score.shape}. Look for NaN.")
    return replace(found, threshold=float(np.quantile(found.probability(score), float(rule.partition(":")[2]))))


def describe_rule(rule: str) -> str:
    """What a rule reads the threshold off, for a reader."""
    return f"{_describe_quantile(rule)}, which the threshold has thereby seen" if is_pooled(rule) else f"{rule}, on validation files"


def rule_warnings(rule: str) -> tuple[str, ...]:
    """What a reader of figures at such a threshold must know."""
    if not is_pooled(rule):
        return ()
    return (f"THE THRESHOLD HAS SEEN THE TEST SET OF ITS RUN: it is the {_describe_quantile(rule)}. Accuracy, precision, recall and F1 "
            "are decided at it and, on that test, say nothing of unseen files; AUC and average precision do not depend on it.",)


def _describe_quantile(rule: str) -> str:
    return f"{100 * float(rule.partition(':')[2]):g} % quantile of all test scores, reals and fakes together"


def quantile_threshold(reals: NDArray[np.float64], part: float) -> float:
    """A threshold with which this part of the reals, or a little more, is passed: half-way from one of them to the next higher,
    since the served model may differ in the last digits."""
    ordered = np.sort(reals)
    count = min(len(ordered), int(np.ceil(part * len(ordered) - 1e-9)))
    if not count:
        return 0.0
    last = ordered[count - 1]
    higher = ordered[ordered > last]
    return float((last + higher[0]) / 2) if len(higher) else float(min(1.0, last + max(0.01 * ordered.std(), 1e-6)))


def best_f1_threshold(probabilities: NDArray[np.float64], label: NDArray[Any]) -> float:
    """The threshold with the largest F1 of fakes; of equals, the highest."""
    values = np.unique(probabilities)
    flagged = len(label) - np.searchsorted(np.sort(probabilities), values)
    fakes = np.sort(probabilities[label == 1])
    found = len(fakes) - np.searchsorted(fakes, values)
    score = 2 * found / (flagged + len(fakes))
    return float(values[score >= score.max() - 1e-12][-1])


def _fit_platt(score: NDArray[np.float64], label: NDArray[Any]) -> tuple[float, float]:
    """Slope and intercept of the least cross-entropy against Platt's targets, which keep separated data finite.

    Below ENOUGH files of the smaller class a ridge holds the slope, in units of the scores' spread, back towards none (S. le
    Cessie and J. van Houwelingen, "Ridge estimators in logistic regression", 1992): to the sum of the losses comes half its
    square times ENOUGH / files - 1, which is 19 for one file and nothing from ENOUGH on. As few files may happen to lie close
    together, which would make all other scores certain, the spread is widened towards the upper 95 % confidence limit of a
    normal distribution's, by the part of ENOUGH that is lacking.
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from scipy.stats import chi2

    fakes, reals = int((label == 1).sum()), int((label == 0).sum())
    lacking, free = max(1 - min(fakes, reals) / MIN_FILES_PER_CLASS, 0.0), len(score) - 1
    centre, spread = float(score.mean()), _spread(score) * float(free / chi2.ppf(0.05, free)) ** (lacking / 2)
    z = (score - centre) / spread
    target = np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    ridge = lacking * MIN_FILES_PER_CLASS / min(fakes, reals) / len(z)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = parameters[0] * z + parameters[1]
        error = expit(odds) - target
        cost = np.mean(np.logaddexp(0, odds) - target * odds) + ridge * parameters[0] ** 2 / 2
        return float(cost), np.array([np.mean(error * z) + ridge * parameters[0], np.mean(error)])

    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, None), (None, None)],
                     options={"ftol": 1e-14, "gtol": 1e-9})
    slope = float(found.x[0]) / spread
    return slope, float(found.x[1]) - slope * centre


def youden_threshold(probabilities: NDArray[np.float64], label: NDArray[Any]) -> float:
    """The threshold of the best balanced accuracy, half-way between two neighbours; of equals, the nearest to 0.5."""
    values = np.unique(probabilities)
    if len(values) < 2:
        return 0.5
    middle = (values[:-1] + values[1:]) / 2
    # Between two neighbouring floats the middle rounds onto one of them; the upper one still parts them.
    middle = np.where(middle > values[:-1], middle, values[1:])
    missed = np.searchsorted(np.sort(probabilities[label == 1]), middle) / (label == 1).sum()
    passed = np.searchsorted(np.sort(probabilities[label == 0]), middle) / (label == 0).sum()
    best = middle[passed - missed >= (passed - missed).max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _fit_one_class(score: NDArray[np.float64], fake: bool) -> Calibration:
    """Threshold 0.5, just outside the 95 % quantile of the only class there is.

    The best F1 over no fakes at all would be the lowest score, and every file would be flagged.
    """
    spread = _spread(score)
    side = -1.0 if fake else 1.0
    edge = side * np.quantile(side * score, ONE_CLASS_QUANTILE, method="higher")
    slope = 1 / spread
    # The margin keeps equal scores, at which rounding would decide, on the inner side.
    return Calibration(slope, float(-slope * (edge + side * 1e-3 * spread)), 0.5)


def _spread(score: NDArray[np.float64]) -> float:
    """The standard deviation, or, where all scores are (nearly) the same, a length of their size."""
    size = max(1.0, float(np.abs(score).max()))
    deviation = float(score.std())
    return deviation if deviation > 1e-12 * size else size


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """How often what was called p % fake was fake: one row for each bin of equal width that holds anything.

    Columns: low, high (edges of the bin), n, predicted (mean probability, 0..1), observed (share of fakes, 0..1).
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
    """Expected calibration error, 0..1 (Guo et al. 2017): the mean gap of predicted and observed; None for no files."""
    rows = reliability(labels, probabilities, bins)
    if rows.empty:
        return None
    return float(np.average((rows["predicted"] - rows["observed"]).abs(), weights=rows["n"]))
