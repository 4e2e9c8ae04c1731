"""Monotone maps from a score to the log-odds of being fake, and their fits to validation files.

All have the form curve(slope x score + intercept), where the curve is the identity for temperature and Platt scaling.

| method | map | source |
|---|---|---|
| temperature | score / T | C. Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599) |
| platt | slope x score + intercept | J. Platt, "Probabilistic outputs for support vector machines", 1999 |
| beta | a ln p - b ln(1 - p) + c with p = sigmoid(slope x score + intercept) | M. Kull et al., "Beta calibration", AISTATS 2017 |
| isotonic | non-decreasing, from a table | B. Zadrozny and C. Elkan, "Transforming classifier scores", KDD 2002 |

Beta calibration takes probabilities, and a score is none: it is taken as log-odds, or Platt scaling comes first, whichever fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.machine import threads_for

MIN_SLOPE = 1e-4  # in standard deviations of the scores; positive, so that calibration never reverses a ranking
MIN_FILES_PER_CLASS = 20  # with fewer validation files of either class, the slope is regularised


@dataclass(frozen=True)
class Beta:
    """Beta calibration of probabilities p, given as log-odds: a ln p - b ln(1 - p) + c. Raises ValueError unless a, b > 0."""

    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.a, self.b, self.c]).all() and min(self.a, self.b) > 0):
            raise ValueError(f"Expected finite a, b and c with a, b > 0, got {self}.")

    def log_odds(self, log_odds: ArrayLike) -> NDArray[np.float64]:
        """Return the calibrated log-odds, float64, of any shape."""
        from scipy.special import log_expit

        z = np.asarray(log_odds, np.float64)
        calibrated: NDArray[np.float64] = self.a * log_expit(z) - self.b * log_expit(-z) + self.c
        return calibrated

    def inverse(self, log_odds: float) -> float:
        """Return the log-odds that are calibrated to the given ones, which may be infinite."""
        from scipy.optimize import brentq

        if np.isinf(log_odds):
            return log_odds
        bound = (abs(log_odds - self.c) + self.a + self.b + 1) / min(self.a, self.b)  # beyond it, |curve| exceeds the value
        return float(brentq(lambda z: float(self.log_odds(z)) - log_odds, -bound, bound, xtol=1e-12))


@dataclass(frozen=True)
class Isotonic:
    """A table of scores, ascending, and their probabilities of being fake, non-decreasing in 0..1, both (knots,).

    In between the probability is interpolated linearly, and beyond the ends it is constant, as in scikit-learn. Raises ValueError
    for any other table.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, p = np.asarray(self.scores, np.float64), np.asarray(self.probabilities, np.float64)
        ordered = x.shape == p.shape and x.ndim == 1 and len(x) and (np.diff(x) > 0).all() and (np.diff(p) >= 0).all()
        if not (ordered and np.isfinite(x).all() and 0 <= p[0] <= p[-1] <= 1):
            raise ValueError("Expected ascending scores with non-decreasing probabilities in 0..1 for isotonic calibration.")

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the log-odds, float64, for scores of any shape; infinite where the probability is 0 or 1."""
        from scipy.special import logit

        log_odds: NDArray[np.float64] = logit(np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities))
        return log_odds

    def inverse(self, log_odds: float) -> float:
        """Return the lowest score with at least these log-odds: -inf if all have, inf if none has."""
        from scipy.special import expit

        x, p, target = np.asarray(self.scores), np.asarray(self.probabilities), float(expit(log_odds))
        above = int(np.searchsorted(p, target, "left"))
        if above in (0, len(p)):
            return -np.inf if above == 0 else np.inf
        return float(np.interp(target, p[above - 1 : above + 1], x[above - 1 : above + 1]))


Curve = Beta | Isotonic
CURVES: dict[str, type[Beta] | type[Isotonic]] = {"beta": Beta, "isotonic": Isotonic}
Fitted = tuple[float, float, Curve | None]  # slope, intercept and curve


def fit_curve(method: str, score: NDArray[np.float64], label: NDArray[Any]) -> Fitted:
    """Return slope, intercept and curve of a method, fitted to files of both classes, both arrays (files,)."""
    if method == "isotonic":
        return 1.0, 0.0, fit_isotonic(score, label)
    if method == "temperature":
        return fit_temperature(score, label), 0.0, None
    slope, intercept = fit_platt(score, label)
    if method == "platt":
        return slope, intercept, None
    fits = [(*base, fit_beta(base[0] * score + base[1], label)) for base in ((1.0, 0.0), (slope, intercept))]
    return min(fits, key=lambda fit: _cross_entropy(fit[2].log_odds(fit[0] * score + fit[1]), label))


def fit_platt(score: NDArray[np.float64], label: NDArray[Any]) -> tuple[float, float]:
    """Return the slope and intercept with the lowest cross-entropy against Platt's smoothed targets.

    The targets keep the fit finite for separable classes. If the smaller class has fewer than MIN_FILES_PER_CLASS files, a
    ridge penalty on the slope of the standardised scores is added (S. le Cessie and J. van Houwelingen, "Ridge estimators in
    logistic regression", 1992): half the squared slope times MIN_FILES_PER_CLASS / files - 1 on the sum of the losses, that is
    19 for one file and 0 from MIN_FILES_PER_CLASS on. A few files may lie close together by chance, which would make every
    other score certain; the standard deviation is therefore widened towards its upper 95 % confidence limit for normally
    distributed scores, in proportion to the missing files.
    """
    from scipy.stats import chi2

    shortfall, freedom = _shortfall(label), len(score) - 1
    centre, spread = float(score.mean()), scale(score) * float(freedom / chi2.ppf(0.05, freedom)) ** (shortfall / 2)
    z = (score - centre) / spread
    slope, intercept = _minimise([z, np.ones_like(z)], label, [1.0, 0.0], [MIN_SLOPE, None])
    slope /= spread
    return slope, intercept - slope * centre


def fit_temperature(score: NDArray[np.float64], label: NDArray[Any]) -> float:
    """Return the slope 1 / T with the lowest cross-entropy; targets and ridge are those of `fit_platt`."""
    spread = max(float(np.sqrt(np.mean(score**2))), 1e-12)
    return _minimise([score / spread], label, [1.0], [MIN_SLOPE])[0] / spread


def fit_beta(log_odds: NDArray[np.float64], label: NDArray[Any]) -> Beta:
    """Return beta calibration of probabilities, given as log-odds (files,), with the lowest cross-entropy.

    The targets are those of `fit_platt`. a and b are positive, so that the curve rises.
    """
    from scipy.special import log_expit

    columns = [log_expit(log_odds), -log_expit(-log_odds), np.ones_like(log_odds)]
    return Beta(*_minimise(columns, label, [1.0, 1.0, 0.0], [MIN_SLOPE, MIN_SLOPE, None]))


def fit_isotonic(score: NDArray[np.float64], label: NDArray[Any]) -> Isotonic:
    """Return the table of the non-decreasing function with the lowest squared error, which scikit-learn fits."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, label)
    # The library's own rounding may leave steps of -1e-16.
    probabilities = np.maximum.accumulate(np.clip(fitted.y_thresholds_, 0, 1))
    return Isotonic(tuple(fitted.X_thresholds_.tolist()), tuple(probabilities.tolist()))


def _minimise(columns: Sequence[NDArray[np.float64]], label: NDArray[Any], start: Sequence[float],
              lowest: Sequence[float | None]) -> list[float]:  # fmt: skip
    """Return the weights of the columns with the lowest cross-entropy of the sigmoid of their sum against Platt's targets.

    The ridge penalty of `fit_platt` is on the first weight. scikit-learn's `LogisticRegression` takes neither targets between 0
    and 1 nor bounds.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    fakes, reals = int((label == 1).sum()), int((label == 0).sum())
    target = np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    ridge = _shortfall(label) * MIN_FILES_PER_CLASS / min(fakes, reals) / len(label)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = sum(weight * column for weight, column in zip(weights, columns, strict=True))
        error = expit(log_odds) - target
        cost = np.mean(np.logaddexp(0, log_odds) - target * log_odds) + ridge * weights[0] ** 2 / 2
        gradient = np.array([np.mean(error * column) for column in columns])
        gradient[0] += ridge * weights[0]
        return float(cost), gradient

    with threads_for(len(columns) * len(label)):  # those of OpenBLAS wait for each other in every step
        result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(low, None) for low in lowest],
                          options={"ftol": 1e-14, "gtol": 1e-9})  # fmt: skip
    return [float(weight) for weight in result.x]


def _cross_entropy(log_odds: NDArray[np.float64], label: NDArray[Any]) -> float:
    return float(np.mean(np.logaddexp(0, log_odds) - label * log_odds))


def _shortfall(label: NDArray[Any]) -> float:
    """Return how far the smaller class is from MIN_FILES_PER_CLASS files, from 1 (no file) to 0 (that many or more)."""
    return max(1 - min((label == 1).sum(), (label == 0).sum()) / MIN_FILES_PER_CLASS, 0.0)


def scale(score: NDArray[np.float64]) -> float:
    """Return the standard deviation, or the magnitude of the scores if they are (nearly) equal."""
    size = max(1.0, float(np.abs(score).max()))
    deviation = float(score.std())
    return deviation if deviation > 1e-12 * size else size
