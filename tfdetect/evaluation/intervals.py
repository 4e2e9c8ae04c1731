"""Percentile bootstrap intervals of all figures of a test set, from one set of resamples of whole groups of related files.

Source: B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993. `scipy.stats.bootstrap` knows no groups, and a loop
over scikit-learn takes over 50 times as long (benchmarks/intervals.py). So each figure is a function of counts, computed for all
resamples at once: counts of groups (cells, groups) times weights of groups (groups, draws).

Figures of the ranking depend on how many reals and fakes have each score. Up to BINS distinct scores, these counts are exact.
Above, scores are put into at most BINS bins between quantiles of each class, and files in one bin count as tied, so that the AUC
of a resample errs by at most 0.001. The interval is then moved by the difference between the exact figure and the binned one. For
continuous scores, what remains is below 2e-5 for AUC and 0.001 for the others (tests). All other figures are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
DRAWS, LEVEL = 1000, 0.95
BINS = 4096  # of scores
MAX_GROUPS = 10_000  # more are merged at random
ECE_BINS = 15
# With fewer, an interval shows nothing: the percentiles of so few resamples miss more often than they should, and a detector at
# chance ranks the files of three real groups and three fake ones without a mistake in one of 20 test sets, of four each in 70.
FEW_GROUPS = 8
FALSE_POSITIVE_RATES = {"tpr_at_fpr_1e-2": 0.01, "tpr_at_fpr_1e-3": 0.001}
SIGNED = ("mcc", "difference")  # within -1..1
BIASED = ("calibration_error",)  # larger in resamples than in the sample
RANKING = ("auc", "ap", "eer", *FALSE_POSITIVE_RATES)


def minimum_reals(rate: float) -> int:
    """Return how many reals measuring at this false positive rate takes: three that may be called fake."""
    return round(3 / rate)


class Resamples:
    """Resamples of the groups of a test set; the first is the test set itself.

    More than MAX_GROUPS groups are merged at random into that many, which leaves the expected variance of a mean as it is (K.
    Wolter, "Introduction to variance estimation", 2007, chapter 2: random groups).
    """

    def __init__(self, groups: ArrayLike | pd.Series, draws: int = DRAWS, seed: int = 0):
        """`groups` (rows,) are the names of the groups."""
        codes, names = pd.factorize(np.asarray(groups))
        random, count = np.random.default_rng(seed), min(len(names), MAX_GROUPS)
        merged = random.permutation(np.arange(len(names)) % count) if len(names) > count else np.arange(count)
        self.group: Array = merged[codes]
        drawn = [np.bincount(random.integers(count, size=count), minlength=count) for _ in range(draws)]
        self.weights: Array = np.ascontiguousarray(np.stack([np.ones(count), *drawn], axis=1))  # (groups, 1 + draws), float64

    def total(self, rows: Array | slice, columns: Array, count: int, values: Array | None = None) -> Array:
        """Return (1 + draws, count) float64: for each resample, the sum of the values, by default 1, of the rows in each column.

        `rows` selects from the rows of the test set, `columns` (selected rows,) int is the column of each.
        """
        from scipy.sparse import coo_array

        group = self.group[rows]
        data = np.ones(len(group)) if values is None else np.asarray(values, np.float64)
        weights, places = self.weights, group
        if len(group) < len(weights):
            used, places = np.unique(group, return_inverse=True)
            weights = weights[used]
        by_group = coo_array((data, (columns, places)), shape=(count, len(weights))).tocsr()
        out: Array = (by_group @ weights).T
        return out

    @property
    def groups(self) -> int:
        """The number of groups that are drawn."""
        return len(self.weights)

    def can_vary(self, labels: Array, rows: Array | slice = slice(None)) -> bool:
        """Return whether each class in the selected rows has two groups at least; `labels` (rows,) are those of the test set."""
        label, group = labels[rows], self.group[rows]
        return bool(len(label)) and all(np.ptp(group[label == kind]) > 0 for kind in np.unique(label))


@dataclass(frozen=True, eq=False)
class TestSet:
    """The rows of a test set, each array (rows,), and their resamples; without probabilities, no figure needs them."""

    __test__ = False  # no test of pytest

    label: Array
    score: Array
    probability: Array | None
    threshold: float | None
    resamples: Resamples

    @classmethod
    def of(cls, rows: pd.DataFrame, threshold: float | None, draws: int = DRAWS) -> TestSet:
        """Return the rows of a checked table of predictions."""
        probability = rows["probability"].to_numpy() if "probability" in rows else None
        label, score = rows["label"].to_numpy(), rows["score"].to_numpy()
        return cls(label, score, probability, threshold, Resamples(rows["group"], draws))

    @cached_property
    def cell(self) -> Array:
        """The score of each row, as a number of a cell, from 0 for the highest.

        Neighbouring cells without fakes are one: the true positive rate is constant there, so this changes no figure.
        """
        edges = score_edges(self.label, self.score)
        cell = len(edges) - np.searchsorted(edges, self.score, "right")
        no_fakes = np.bincount(cell[self.label == 1], minlength=len(edges)) == 0
        return (np.cumsum(~(no_fakes & np.append(False, no_fakes[:-1]))) - 1)[cell]

    @cached_property
    def reals(self) -> Array:
        """The number of reals in each cell, (1 + draws, cells)."""
        rows = np.flatnonzero(self.label == 0)
        return self.resamples.total(rows, self.cell[rows], int(self.cell.max()) + 1)

    @cached_property
    def reals_so_far(self) -> Array:
        """The number of reals in each cell and all before it, (1 + draws, cells)."""
        return np.cumsum(self.reals, axis=1)

    @cached_property
    def fakes(self) -> Array:
        """The number of fakes in each cell, (1 + draws, cells)."""
        rows = np.flatnonzero(self.label == 1)
        return self.resamples.total(rows, self.cell[rows], self.reals.shape[1])

    def draw_auc(self) -> Array:
        """Return the AUC of all resamples, (1 + draws,); NaN where one lacks a class."""
        return area(self.reals, self.fakes, self.reals_so_far)

    def draw(self) -> dict[str, Array]:
        """Return the figures of all resamples, {name: (1 + draws,)}; NaN where a resample lacks a class."""
        ranking = ranking_figures(self.reals, self.fakes, self.reals_so_far)
        return {**ranking, **self._draw_decisions(), **self._draw_probabilities()}

    def draw_source(self, fakes: Array, own_reals: Array) -> dict[str, Array]:
        """Return the figures of one source's fakes against all reals, and the share of its own reals called fake.

        Both arguments are numbers of rows. Between the cells of the fakes, the reals are counted together, which changes no
        figure: there, the true positive rate is constant.
        """
        out = {}
        if len(fakes) and (self.label == 0).any():
            cells, places = np.unique(self.cell[fakes], return_inverse=True)
            counted, so_far = np.zeros((len(self.reals), 2 * len(cells) + 1)), self.reals_so_far
            counted[:, 1::2] = self.resamples.total(fakes, places, len(cells))
            ends = np.stack([so_far[:, cells] - self.reals[:, cells], so_far[:, cells]], axis=2).reshape(len(counted), -1)
            out = ranking_figures(np.diff(np.column_stack([ends, so_far[:, -1]]), axis=1, prepend=0), counted)
        if self.probability is not None and self.threshold is not None:
            for name, rows in (("recall", fakes), ("false_positive_rate", own_reals)):
                flagged = self.resamples.total(rows, (self.probability[rows] >= self.threshold).astype(int), 2)
                out |= {name: divide(flagged[:, 1], flagged.sum(1))} if len(rows) else {}
        return out

    def _draw_decisions(self) -> dict[str, Array]:
        if self.probability is None or self.threshold is None:
            return {}
        decision = (self.probability >= self.threshold).astype(int)
        return decision_figures(self.resamples.total(slice(None), 2 * self.label + decision, 4))

    def _draw_probabilities(self) -> dict[str, Array]:
        if self.probability is None:
            return {}
        bins, every = bin_numbers(self.probability), slice(None)
        of_bins = [self.resamples.total(every, bins, ECE_BINS, values) for values in (None, self.probability, self.label)]
        n, predicted, observed = of_bins
        losses = row_losses(self.label, self.probability)
        one = np.zeros(len(self.label), int)
        means = {name: divide(self.resamples.total(every, one, 1, loss)[:, 0], n.sum(1)) for name, loss in losses.items()}
        return {**means, "calibration_error": divide(np.abs(predicted - observed).sum(1), n.sum(1))}


def score_edges(label: Array, score: Array) -> Array:
    """Return the lower ends of the cells that scores are counted in, ascending: the distinct scores, or at most BINS quantiles.

    Half of the quantiles are those of the fakes. Of the reals' half, every other one is closer to the last the higher the score,
    so that a false positive rate of 0.1 % is met within 2 % of itself.
    """
    distinct = np.unique(score)
    if len(distinct) <= BINS:
        return distinct
    reals, fakes = np.sort(score[label == 0]), np.sort(score[label == 1])
    even, quarter = np.linspace(0, 1, BINS // 2), BINS // 4
    shares = (even, np.linspace(0, 1, quarter), 1 - np.geomspace(1 / max(len(reals), 2), 1, quarter))
    chosen = [values[np.round(share * (len(values) - 1)).astype(int)]
              for values, share in zip((fakes, reals, reals), shares, strict=True) if len(values)]  # fmt: skip
    return np.unique(np.concatenate([distinct[:1], *chosen]))


def ranking_figures(reals: Array, fakes: Array, reals_so_far: Array | None = None) -> dict[str, Array]:
    """Return AUC, average precision, EER and true positive rates, each (draws,), NaN where a class is missing.

    `reals` and `fakes` (draws, cells) count the rows in each cell, from the highest score to the lowest; `reals_so_far` is the
    cumulative sum. The definitions are those of scikit-learn; EER is interpolated linearly on the ROC curve, and a true positive
    rate is the highest at which the false positive rate is not above the one given.
    """
    so_far = np.cumsum(reals, axis=1) if reals_so_far is None else reals_so_far
    fakes_so_far = np.cumsum(fakes, axis=1)
    n_real, n_fake = so_far[:, -1], fakes_so_far[:, -1]
    pairs = n_real * n_fake
    flagged = np.maximum(so_far + fakes_so_far, 1)
    precision = np.divide(fakes_so_far, flagged, out=flagged)
    out = {"auc": area(reals, fakes, so_far), "ap": divide(np.einsum("ij,ij->i", fakes, precision), n_fake)}
    # The false positive rate is below the false negative rate. Counts are exact, unlike rates.
    place = (so_far * n_fake[:, None] + fakes_so_far * n_real[:, None] < pairs[:, None]).sum(1)
    false, true = (np.stack([divide(at(values, place - 1), n), divide(at(values, place), n)], axis=1)
                   for values, n in ((so_far, n_real), (fakes_so_far, n_fake)))  # fmt: skip
    out["eer"] = crossing(false, 1 - true)
    for name, rate in FALSE_POSITIVE_RATES.items():
        allowed = (so_far <= rate * n_real[:, None] + 1e-9).sum(1)
        out[name] = divide(at(fakes_so_far, allowed - 1), n_fake)
    return {name: np.where(pairs > 0, values, np.nan) for name, values in out.items()}


def area(reals: Array, fakes: Array, reals_so_far: Array) -> Array:
    """Return the AUC of each draw, (draws,), NaN where a class is missing; arguments as in `ranking_figures`."""
    pairs = reals_so_far[:, -1] * fakes.sum(1)
    beating, tied = (np.einsum("ij,ij->i", fakes, counts) for counts in (reals_so_far, reals))
    return divide(pairs - beating + tied / 2, pairs)


def at(counts: Array, place: Array) -> Array:
    """Return the cumulative count (draws,) at a cell of each draw, 0 before the first cell."""
    last = counts.shape[1] - 1
    return np.where(place < 0, 0, counts[np.arange(len(counts)), np.clip(place, 0, last)])


def crossing(rising: Array, falling: Array) -> Array:
    """Return where two rates, (draws, points), one rising from 0 to 1 and one falling from 1 to 0, are equal: (draws,)."""
    gap, row = rising - falling, np.arange(len(rising))
    after = np.maximum(np.argmax(gap >= 0, axis=1), 1)
    weight = divide(-gap[row, after - 1], gap[row, after] - gap[row, after - 1])
    return rising[row, after - 1] + weight * (rising[row, after] - rising[row, after - 1])


def decision_figures(counts: Array) -> dict[str, Array]:
    """Return the figures of decisions, each (draws,), from the counts (draws, 4) of tn, fp, fn and tp. NaN is undefined.

    For a class without rows, precision, recall and F1 are NaN, as are balanced accuracy and MCC. MCC (B. Matthews 1975) is 0
    if all decisions are the same, as in scikit-learn, which takes one set of decisions at a time.
    """
    tn, fp, fn, tp = np.asarray(counts, np.float64).T
    out = {"accuracy": divide(tn + tp, tn + fp + fn + tp)}
    for kind, right, wrong, missed in (("real", tn, fn, fp), ("fake", tp, fp, fn)):
        has_files = np.where(right + missed > 0, 1, np.nan)
        out[f"per_class.{kind}.precision"] = divide(right, right + wrong) * has_files
        out[f"per_class.{kind}.recall"] = divide(right, right + missed)
        out[f"per_class.{kind}.f1"] = divide(2 * right, 2 * right + wrong + missed) * has_files
    out["balanced_accuracy"] = (out["per_class.real.recall"] + out["per_class.fake.recall"]) / 2
    out["f1"] = out["per_class.fake.f1"]
    scale = np.sqrt((tp + fp) * (tn + fn)) * np.sqrt((tp + fn) * (tn + fp))
    mcc = np.where(scale > 0, (tp * tn - fp * fn) / np.where(scale > 0, scale, 1), 0)
    out["mcc"] = np.where((tp + fn) * (tn + fp) > 0, mcc, np.nan)
    return out


def row_losses(label: Array, probability: Array) -> dict[str, Array]:
    """Return what log loss (nats, clipped as scikit-learn does) and Brier score (0..1) are means of, each (rows,)."""
    tiny = np.finfo(np.float64).eps
    p = np.clip(probability, tiny, 1 - tiny)
    return {"log_loss": -np.log(np.where(label == 1, p, 1 - p)), "brier": np.square(probability - label)}


def bin_numbers(probability: Array) -> Array:
    """Return the bin of the reliability diagram, 0..ECE_BINS - 1, of each probability."""
    return np.minimum((np.asarray(probability) * ECE_BINS).astype(int), ECE_BINS - 1)


def to_intervals(drawn: Mapping[str, Array], values: Mapping[str, float | None],
                 groups: int | None = None) -> dict[str, list[float] | None]:  # fmt: skip
    """Return the interval [low, high] of each of the exact values, to which it is moved; None if it was not drawn or is None.

    The calibration error is a mean of absolute gaps, which noise makes larger, in a sample and once more in its resamples: the
    percentiles may all lie above it. So its interval is the basic one (A. Davison and D. Hinkley, "Bootstrap methods and their
    application", 1997, section 5.2), which mirrors the percentiles at the value, and which is extended to it if need be.
    """
    share = tail(groups)
    out: dict[str, list[float] | None] = dict.fromkeys(values)
    for name, value in values.items():
        found = drawn[name][1:][np.isfinite(drawn[name][1:])] if name in drawn else ()
        if value is not None and len(found):
            ends = np.quantile(found, [share, 1 - share]) + (value - drawn[name][0])
            if name in BIASED:
                low, high = 2 * value - ends[::-1]
                ends = np.array([min(low, value), max(high, value)])
            out[name] = [float(end) for end in (ends if name == "log_loss" else np.clip(ends, -1 if name in SIGNED else 0, 1))]
    return out


def tail(groups: int | None = None) -> float:
    """Return the share of the resamples below an interval, and above it.

    With the number of groups, it is smaller, as that of Student's t is, because resamples of n groups vary too little by
    n / (n - 1): with 100 groups, 2.3 % (T. Hesterberg, "What teachers should know about the bootstrap", 2015).
    """
    share = (1 - LEVEL) / 2
    if not groups or groups < 2:
        return share
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(share, groups - 1) * np.sqrt(groups / (groups - 1))))


def divide(part: Array, whole: Array) -> Array:
    """Return the quotient, NaN where the divisor is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
