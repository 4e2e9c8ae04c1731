"""Calibrate and combine the scores of detectors of any origin, each file by what was fitted on other files.

Where there are validation files, everything is fitted on them. Otherwise it is cross-fitted: the groups of files are dealt into
parts, and each part is scored by what was fitted on the others. With whole sources held out, the fakes of a source are also
scored by what was fitted without that source: what to expect of a generator that nobody has seen.

Stacking: D. Wolpert, "Stacked generalization", 1992; here a logistic regression on calibrated log-odds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfdetect.evaluation import calibration, metrics

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HoldOut = Literal["none", "fakes", "all"]  # whose sources are held out
PARTS = 5  # of the groups, for cross-fitting
SOURCE_FOLDS = 10  # at most; with more sources, several are held out together
CERTAIN = 1e-6  # nearer to 0 or 1, log-odds are compressed, because a single certain mistake would flatten a calibration
SEED = 0
METHOD_FILES = 3000  # at most, for choosing how scores are calibrated, which takes twenty fits
BEST, MEAN, STACK = COMBINATIONS = ("best single detector", "mean of probabilities", "stacking")


def is_probability(scores: Floats) -> bool:
    """Return whether the scores (files,) look like probabilities: all that are known lie in 0..1."""
    known = scores[np.isfinite(scores)]
    return bool(len(known) and known.min() >= 0 and known.max() <= 1)


def to_log_odds(scores: Floats) -> Floats:
    """Return probabilities as log-odds, in which a calibration is linear, and scores on any other scale as they are.

    Beyond those of CERTAIN, log-odds grow by their logarithm only; the ranking is kept.
    """
    from scipy.special import logit

    if not is_probability(scores):
        return scores
    log_odds = logit(np.clip(scores, np.finfo(np.float64).tiny, 1 - 2.0**-53))
    limit = float(logit(1 - CERTAIN))
    size = np.abs(log_odds)
    out: Floats = np.sign(log_odds) * (np.minimum(size, limit) + np.log1p(np.maximum(size - limit, 0)))
    return out


@dataclass(frozen=True)
class Scored:
    """Files with the scores of several detectors, and which of them are for fitting and which are judged.

    `scores` (files, detectors) are float64, NaN where a detector failed; `labels` (files,) are 0 (real) or 1 (fake); `groups` and
    `sources` (files,) are texts. If `validation` (files,) is true anywhere, those files are fitted on and all others judged;
    otherwise every file is judged by what was fitted on other groups.
    """

    scores: Floats
    labels: NDArray[Any]
    groups: NDArray[Any]
    sources: NDArray[Any]
    validation: Mask

    @cached_property
    def scale(self) -> Floats:
        """The scores as calibrations take them, (files, detectors); see `to_log_odds`."""
        return np.column_stack([to_log_odds(column) for column in self.scores.T])

    @cached_property
    def parts(self) -> NDArray[np.intp]:
        """Which part of the groups a file is in, 0.. for judged files. All are 0 if the groups are too few to be divided.

        Validation files are in part -1, but in 0 if a judged file has the same group: then they are not fitted on.
        """
        if self.validation.any():
            shared = np.isin(self.groups, self.groups[~self.validation])
            return np.where(shared, 0, -1)
        return deal_groups(self.labels, self.groups, PARTS)

    def source_folds(self, hold_out: HoldOut) -> NDArray[np.intp]:
        """Return which fold of sources a file is held out with, (files,); one value if the sources are too few, or to be kept.

        Sources are dealt so that the folds hold about as many fakes, and with "all" as many reals. With "fakes", a group of reals
        is in a fold at random: that of the fakes with which it is scored.
        """
        if hold_out == "none":
            return np.zeros(len(self.labels), np.intp)
        real, (names, source) = self.labels == 0, np.unique(self.sources, return_inverse=True)
        kinds = [np.bincount(source[self.labels == kind], minlength=len(names)) for kind in (1, 0)]
        count = min(SOURCE_FOLDS, *(int((counts > 0).sum()) for counts in kinds[: 1 + (hold_out == "all")]))
        of_name = np.full(len(names), -1)
        for counts in kinds:
            filled = [int(counts[of_name == fold].sum()) for fold in range(count)]
            for name in np.argsort(-counts, kind="stable"):
                if counts[name] and of_name[name] < 0:
                    of_name[name] = filled.index(min(filled))
                    filled[of_name[name]] += int(counts[name])
        out = of_name[source]
        if hold_out == "fakes":
            groups, group = np.unique(self.groups[real], return_inverse=True)
            out[real] = np.random.default_rng(SEED).permutation(len(groups))[group] % count
        return out

    def folds(self, hold_out: HoldOut = "none") -> Iterator[tuple[Mask, Mask]]:
        """Yield masks (files,): the files to fit on, which hold both classes, and those to judge; each is judged at most once.

        Where no group has files in two folds of sources, these folds are the parts as well, which takes a fifth of the fits.
        """
        sources, parts = self.source_folds(hold_out), self.parts
        pairs = set(zip(self.groups, sources, strict=True))
        if not self.validation.any() and sources.any() and len(pairs) == len(set(self.groups)):
            parts = sources
        judged, fits = ~self.validation, self.validation if self.validation.any() else ~self.validation
        held_out = {"none": np.zeros(len(sources), bool), "fakes": self.labels == 1, "all": np.ones(len(sources), bool)}[hold_out]
        for part in np.unique(parts[judged]):
            for source in np.unique(sources[judged]):
                fit = fits & (parts != part) & ~(held_out & (sources == source))
                chosen = judged & (parts == part) & (sources == source)
                if chosen.any() and len(np.unique(self.labels[fit])) == 2:
                    yield fit, chosen


def deal_groups(labels: NDArray[Any], groups: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Return the part, 0.. `count` - 1, of each file: whole groups, each part with about the same share of fakes."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(count, *(len(np.unique(groups[labels == kind])) for kind in (0, 1)))
    parts = np.zeros(len(labels), np.intp)
    if count < 2:
        return parts
    options = {"shuffle": True, "random_state": SEED}
    if len(np.unique(groups)) == len(groups):  # the general way takes minutes for a million
        splits = StratifiedKFold(count, **options).split(parts, labels)
    else:
        splits = StratifiedGroupKFold(count, **options).split(parts, labels, groups)
    for number, (_, rows) in enumerate(splits):
        parts[rows] = number
    return parts


def calibrate_each(files: Scored, method: str = "auto") -> Floats:
    """Return the log-odds of each detector, (files, detectors), calibrated on other files; NaN where it failed, and where other
    files of both classes are lacking. Validation files have those of the fit to themselves.

    `method` is that of `calibration.fit`; auto chooses for each fit, on a sample of at most METHOD_FILES of its files.
    """
    out = np.full(files.scale.shape, np.nan)
    for fit, judged in files.folds():
        for number, column in enumerate(files.scale.T):
            known = np.flatnonzero(fit & np.isfinite(column))
            if len(np.unique(files.labels[known])) < 2:
                continue
            chosen = method
            if method == "auto":
                sample = np.random.default_rng(SEED).permutation(known)[:METHOD_FILES]
                chosen, _ = calibration.choose(column[sample], files.labels[sample], files.groups[sample])
            found = calibration.fit(column[known], files.labels[known], method=chosen)
            rows = (judged | (fit & files.validation)) & np.isfinite(column)
            out[rows, number] = found.log_odds(column[rows])
    return out


def give_verdicts(files: Scored, log_odds: Floats, threshold: float, coverage: float,
                  hold_out: HoldOut = "none") -> NDArray[Any] | None:  # fmt: skip
    """Return "real", "fake", "inconclusive", or "" where there are no log-odds, for each file, (files,), by a conformal band that
    was fitted to the log-odds (files,) of other files; None if those are too few for the coverage.

    Where sources are held out, the band is that of fakes which no fit has seen (cross-conformal prediction: V. Vovk, 2015).
    """
    out, known = np.full(len(log_odds), "", object), np.isfinite(log_odds)
    for fit, judged in files.folds(hold_out):
        fit, judged = fit & known, judged & known
        band = calibration.fit_band(log_odds[fit], files.labels[fit], coverage, files.groups[fit])
        if band is None:
            return None
        out[judged] = calibration.Calibration(1.0, 0.0, threshold, band=band).verdicts(log_odds[judged])
    return out if (out != "").any() else None


def combine(files: Scored, hold_out: HoldOut) -> Floats:
    """Return the log-odds of each of COMBINATIONS, (files, 3), fitted on other files; NaN for a file without any score.

    The best single detector is chosen on the files fitted on. The mean is calibrated once more: the mean of several probabilities
    is less certain than the files allow. A detector that failed on a file counts as undecided there, since a failure is no
    evidence; the mean leaves it out.
    """
    from scipy.special import logit

    out = np.full((len(files.labels), len(COMBINATIONS)), np.nan)
    for fit, judged in files.folds(hold_out):
        evidence = weigh_evidence(files.scale, files.labels, fit)
        prior = float(logit(files.labels[fit].mean()))
        out[judged, 0] = prior + evidence[judged, choose_best(evidence[fit], files.labels[fit])]
        mean = average(prior + evidence, np.isfinite(files.scale))
        out[judged, 1] = calibration.fit(mean[fit], files.labels[fit]).log_odds(mean[judged])
        out[judged, 2] = stack(evidence[fit], files.labels[fit], evidence[judged])
    out[~np.isfinite(files.scale).any(axis=1)] = np.nan
    return out


def strict_aucs(files: Scored) -> Floats:
    """Return the AUC of each of COMBINATIONS in each fold of sources of fakes and reals that were held out together, (folds, 3).

    Each fold is ranked by itself: its combination has seen none of its cameras, so its log-odds may be shifted against those of
    other folds. There are no rows if fakes or reals are of one source only.
    """
    folds, judged = files.source_folds("all"), ~files.validation
    if not folds.any():
        return np.empty((0, len(COMBINATIONS)))
    found, rows = combine(files, "all"), []
    for fold in np.unique(folds):
        known = judged & (folds == fold) & np.isfinite(found).all(axis=1)
        rows.append([metrics.auc(files.labels[known], column[known]) for column in found.T])
    return np.array([row for row in rows if None not in row], np.float64).reshape(-1, len(COMBINATIONS))


def weigh_evidence(scale: Floats, labels: NDArray[Any], fit: Mask) -> Floats:
    """Return how far each score moves the log-odds from those before any score, (files, detectors); 0 where there is no score."""
    from scipy.special import logit

    out = np.zeros(scale.shape)
    for number, column in enumerate(scale.T):
        if (found := _fit(column, labels, fit)) is not None and found.reals and found.fakes:
            out[:, number] = found.log_odds(column) - logit(found.fakes / (found.fakes + found.reals))
    return np.nan_to_num(out, nan=0.0)


def _fit(scores: Floats, labels: NDArray[Any], fit: Mask) -> calibration.Calibration | None:
    """Return the calibration of a detector on the files of `fit` that it scored, or None if they lack a class."""
    known = fit & np.isfinite(scores)
    return calibration.fit(scores[known], labels[known]) if len(np.unique(labels[known])) == 2 else None


def choose_best(evidence: Floats, labels: NDArray[Any]) -> int:
    """Return the number of the detector with the highest AUC; a file without its score is one on which it is undecided."""
    return int(np.argmax([metrics.auc(labels, column) or 0.0 for column in evidence.T]))


def average(log_odds: Floats, known: Mask) -> Floats:
    """Return the log-odds of the mean probability over the detectors with a score, (files,), computed without saturation."""
    from scipy.special import log_expit, logsumexp

    weights = known.astype(np.float64)
    weights[~known.any(axis=1)] = 1.0  # undecided
    fake, real = (logsumexp(log_expit(sign * log_odds), axis=1, b=weights) for sign in (1, -1))
    out: Floats = fake - real
    return out


def stack(evidence: Floats, labels: NDArray[Any], other: Floats) -> Floats:
    """Return the log-odds of `other` (files, detectors) by a logistic regression on `evidence`, with scikit-learn's default
    ridge penalty."""
    from sklearn.linear_model import LogisticRegression

    out: Floats = LogisticRegression(max_iter=1000).fit(evidence, labels).decision_function(other)
    return out


def to_predictions(rows: pd.DataFrame, score: Floats, log_odds: Floats) -> pd.DataFrame:
    """Return the predictions table of the files with a score; `rows` has path, label, group, source, split, all (files,).

    There are no probabilities if the log-odds are not known for all of these.
    """
    from scipy.special import expit

    known = np.isfinite(score)
    out = rows[known].assign(frame=0, score=score[known])
    if np.isfinite(log_odds[known]).all():
        out = out.assign(probability=expit(log_odds[known]), log_odds=log_odds[known])
    return out.reset_index(drop=True)
