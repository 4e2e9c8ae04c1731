"""Fit a calibration to validation files, and choose its method by cross-validated log loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.errors import UserError
from tfdetect.evaluation.calibration.conformal import fit_band
from tfdetect.evaluation.calibration.curves import MIN_FILES_PER_CLASS, fit_curve, scale
from tfdetect.evaluation.calibration.model import Calibration
from tfdetect.evaluation.calibration.thresholds import compute_threshold
from tfdetect.evaluation.clusters import standard_error

# The methods, simplest first, and how many groups of each class they need to compete. Isotonic regression overfits below a
# thousand files (A. Niculescu-Mizil and R. Caruana, "Predicting good probabilities with supervised learning", ICML 2005).
METHODS = {"temperature": MIN_FILES_PER_CLASS, "platt": MIN_FILES_PER_CLASS, "beta": 100, "isotonic": 500}
AUTO = "auto"
FOLDS = 5
ONE_CLASS_QUANTILE = 0.95  # share of a one-class validation set that falls on the correct side of the threshold


def fit(scores: ArrayLike, labels: ArrayLike, rule: str = "youden", method: str = "platt", groups: ArrayLike | None = None,
        coverage: float | None = None, prevalence: float | None = None) -> Calibration:  # fmt: skip
    """Fit a calibration to validation files.

    `scores` (files,) must be finite, one per file (see `predictions.by_file`); `labels` (files,) are 0 (real) or 1 (fake).
    `rule` chooses the threshold: `youden` maximises balanced accuracy; `f1` maximises F1 of the fake class; `quantile:0.8`
    lies above that share of the real files; `fpr:0.01` calls at most that share of the real files fake. `method` is one of
    METHODS, or `auto`, see `choose`. `groups` (files,), by default one for each file, are never divided between folds, and each
    counts once in the band of inconclusive scores, which is fitted for a `coverage` and left out if there are too few (see
    `conformal`). `prevalence` is that of `Calibration`.

    If validation holds one class only, the slope is the inverse standard deviation of the scores, and `youden` puts 95 % of
    the files on the correct side; the results then rank files but are not probabilities. With fewer than
    MIN_FILES_PER_CLASS files of a class the slope is regularised (see `fit_platt`) and `Calibration.warnings` says so.

    Raises ValueError if the shapes do not match or there are no files, UserError if a score is not finite, a label is neither
    0 nor 1, or the rule, the method or the prevalence needs a class that is missing.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape or not len(score):
        raise ValueError(f"Expected one score and one label for each file; got {score.shape} and {label.shape}.")
    if not np.isfinite(score).all() or not np.isin(label, (0, 1)).all():
        raise UserError("A calibration needs finite scores and labels of 0 (real) or 1 (fake). Look for NaN.")
    reals, fakes = int((label == 0).sum()), int((label == 1).sum())
    if label.min() == label.max():
        require_both_classes(label, method, prevalence)
        fitted = replace(_fit_one_class(score, fake=bool(label[0])), reals=reals, fakes=fakes)
        if rule == "youden":
            return fitted
    else:
        losses = None
        if method == AUTO:
            method, losses = choose(score, label, groups)
        slope, intercept, curve = fit_curve(method, score, label)
        fitted = Calibration(slope, intercept, 0.5, reals, fakes, method, curve, losses=losses)
    fitted = replace(fitted, threshold=compute_threshold(fitted.probability(score), label, rule))
    band = fit_band(score, label, coverage, groups) if coverage else None
    return replace(fitted, band=band).with_prevalence(prevalence)


def refit(stored: Calibration, scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, method: str | None = None, rule: str = "",
          coverage: float | None = None, prevalence: float | None = None) -> Calibration:  # fmt: skip
    """Return a calibration with what is given fitted to its validation files again, (files,); all else remains.

    With another `method` but no `rule`, the decisions remain. A `coverage` of 0 removes the band.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    prevalence = stored.prevalence if prevalence is None else prevalence
    cut, band, fitted = stored.score_threshold, stored.band, stored.with_prevalence(None)
    if method:
        fitted = fit(score, label, method=method, groups=groups)
        fitted = replace(fitted, threshold=float(fitted.probability(cut)))
    if rule:
        fitted = replace(fitted, threshold=compute_threshold(fitted.probability(score), label, rule))
    if coverage is not None:
        band = fit_band(score, label, coverage, groups) if coverage else None
    return replace(fitted, band=band).with_prevalence(prevalence)


def require_both_classes(labels: ArrayLike, method: str | None, prevalence: float | None) -> None:
    """Raise UserError if the validation labels (files,) lack a class that the calibration method or the prevalence needs."""
    if len(np.unique(labels)) > 1:
        return
    if method not in (None, AUTO, "platt"):
        raise UserError(f"--evaluate.calibration {method} needs real and fake validation files, but one class is missing. Add "
                        "some, or use platt.")  # fmt: skip
    if prevalence is not None:
        raise UserError(f"--evaluate.prevalence {prevalence:g} needs real and fake validation files, but one class is missing: "
                        "without both there are no probabilities to shift.")  # fmt: skip


def choose(score: NDArray[np.float64], label: NDArray[Any],
           groups: ArrayLike | None = None) -> tuple[str, dict[str, float] | None]:  # fmt: skip
    """Return the method for validation files of both classes, and the log losses of those that competed, None if none did.

    Each competes if there are enough groups of both classes (METHODS); with too few for any, Platt scaling is used. The log loss
    is cross-validated over FOLDS folds of whole groups. The simplest method wins whose loss exceeds the lowest by at most one
    standard error of the difference over the groups, after L. Breiman et al., "Classification and regression trees", 1984.
    """
    from sklearn.model_selection import GroupKFold

    group = np.arange(len(score)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = min(len(np.unique(group[label == kind])) for kind in (0, 1))
    names = [name for name, needed in METHODS.items() if count >= needed]
    folds = list(GroupKFold(FOLDS).split(score, groups=group)) if names else []
    if any(len(np.unique(label[train])) < 2 for train, _ in folds) or not names:
        return "platt", None
    losses = {name: np.empty(len(score)) for name in names}
    for train, test in folds:
        for name in names:
            slope, intercept, curve = fit_curve(name, score[train], label[train])
            fitted = Calibration(slope, intercept, 0.5, curve=curve)
            losses[name][test] = file_losses(fitted.probability(score[test]), label[test], len(score))
    means = {name: float(values.mean()) for name, values in losses.items()}
    best = min(means, key=lambda name: means[name])
    errors = {name: standard_error(losses[name] - losses[best], group) or 0.0 for name in names}
    return next(name for name in names if means[name] - means[best] <= errors[name]), means


def file_losses(probabilities: NDArray[np.float64], label: NDArray[Any], files: int) -> NDArray[np.float64]:
    """Return the log loss of each file in nats, (files,), in comparisons of methods fitted to so many `files`.

    Probabilities are clipped to 1 / (files + 2) and 1 less that, Laplace's estimates of a share after no hit and after hits only:
    isotonic probabilities of 0 and 1 would otherwise have infinite losses.
    """
    limit = 1 / (files + 2)
    true = np.where(label == 1, probabilities, 1 - probabilities)
    return -np.log(np.clip(true, limit, 1 - limit))


def _fit_one_class(score: NDArray[np.float64], fake: bool) -> Calibration:
    """Return a calibration with threshold 0.5 just outside the 95 % quantile of the only class.

    The threshold with the best F1 would be the lowest score if there are no fakes, and every file would be called fake.
    """
    spread = scale(score)
    side = -1.0 if fake else 1.0
    edge = side * np.quantile(side * score, ONE_CLASS_QUANTILE, method="higher")
    slope = 1 / spread
    # The margin keeps scores equal to the quantile on the inner side, whatever the rounding.
    return Calibration(slope, float(-slope * (edge + side * 1e-3 * spread)), 0.5)
