"""What the score of one file means: its place among the scores of test files, and how far its probability can be trusted.

A single file has no confidence interval of its own: it is real or fake. What varies with the files that happened to be at hand is
the map from score to probability, and that is what `probability_interval` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfdetect import machine
from tfdetect.evaluation.calibration import FAKE, MIN_FILES_PER_CLASS, REAL, Calibration
from tfdetect.evaluation.calibration.curves import fit_curve
from tfdetect.evaluation.clusters import share_interval
from tfdetect.evaluation.intervals import LEVEL

DRAWS = 200  # resamples of the validation files
PREVALENCES = (0.5, 0.1, 0.01)  # shares of fakes for which a probability is given


@dataclass(frozen=True)
class Place:
    """How usual a score, or one more extreme, is among the test files of a class."""

    label: str
    """"real": the share of real files with at least this score; "fake": the share of fakes with at most this score."""
    files: int
    share: float
    interval: tuple[float, float]
    """Of the share in files of other groups, at 95 % (`clusters.share_interval`)."""


def places(score: float, files: pd.DataFrame) -> tuple[Place, ...]:
    """Return the place of a score among test files, with the columns label (0 or 1), group and score; none for a class without
    files."""
    out = []
    for label, name in ((0, REAL), (1, FAKE)):
        rows = files[files["label"] == label]
        if len(rows):
            beyond = (rows["score"] >= score if label == 0 else rows["score"] <= score).to_numpy()
            low, high = share_interval(beyond, rows["group"]) or (0.0, 1.0)
            out.append(Place(name, len(rows), float(beyond.mean()), (low, high)))
    return tuple(out)


def resampled_calibrations(fitted: Calibration, files: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> list[Calibration]:
    """Return calibrations by the method of `fitted`, each fitted to a resample of the validation files, with the columns label,
    group and score, by whole groups; none if there are fewer than MIN_FILES_PER_CLASS files of a class.

    Resamples without one of the classes are left out. The method itself is not chosen again, so intervals are rather too narrow.
    """
    label, score = files["label"].to_numpy(), files["score"].to_numpy(np.float64)
    if min((label == kind).sum() for kind in (0, 1)) < MIN_FILES_PER_CLASS:
        return []
    group, names = pd.factorize(files["group"])
    rows = [np.flatnonzero(group == number) for number in range(len(names))]
    random, out = np.random.default_rng(seed), []
    with machine.threads_for(len(score)):
        for _ in range(draws):
            drawn = np.concatenate([rows[number] for number in random.integers(len(rows), size=len(rows))])
            reals, fakes = (int((label[drawn] == kind).sum()) for kind in (0, 1))
            if reals and fakes:
                slope, intercept, curve = fit_curve(fitted.method, score[drawn], label[drawn])
                found = Calibration(slope, intercept, 0.5, reals, fakes, fitted.method, curve)
                out.append(found.with_prevalence(fitted.prevalence))
    return out


def probability_interval(score: float, resampled: Sequence[Calibration]) -> tuple[float, float] | None:
    """Return where 95 % of the probabilities lie that `resampled_calibrations` give this score; None without any.

    Source: the percentile interval of B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993.
    """
    if not resampled:
        return None
    found = [float(each.probability(score)) for each in resampled]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def by_prevalence(score: float, fitted: Calibration) -> tuple[tuple[float, float], ...]:
    """Return (share of fakes, probability of being fake) of this score where that share of the files is fake; none if validation
    lacks a class."""
    if not (fitted.reals and fitted.fakes):
        return ()
    return tuple((share, float(fitted.with_prevalence(share).probability(score))) for share in PREVALENCES)
