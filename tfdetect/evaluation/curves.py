"""Pointwise bands of ROC, DET and precision-recall curves, by the bootstrap of `intervals`, which resamples whole groups.

At each false positive rate, or each recall, the band is the percentile interval of what the curves of the resamples have there:
vertical averaging (S. Macskassy and F. Provost, "Confidence bands for ROC curves", 2004). Each point lies in it with 95 %
confidence, the whole curve with less. Where all resamples agree, as where no file is misjudged, the band has no width.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tfdetect.evaluation.intervals import FEW_GROUPS, Array, TestSet, tail

Band = tuple[Array, Array]  # low and high, (points,) each


def roc_band(files: pd.DataFrame, rates: Array) -> Band | None:
    """Return the band of the true positive rate at false positive rates (points,), 0..1, of a table of predictions.

    Between two thresholds the curve is a line. None for a class with fewer than two groups, and for FEW_GROUPS.
    """
    return _band(files, lambda reals, fakes: np.interp(rates, _shares(reals), _shares(fakes)))


def precision_band(files: pd.DataFrame, recalls: Array) -> Band | None:
    """Return the band of the precision at recalls (points,), 0..1: that of the highest threshold which reaches this recall."""

    def at_recalls(reals: Array, fakes: Array) -> Array:
        found, flagged = np.cumsum(fakes), np.cumsum(fakes) + np.cumsum(reals)
        place = np.searchsorted(found, recalls * found[-1] - 1e-9)
        place = np.maximum(place, np.argmax(found > 0))  # a recall of 0 is that of no file
        precision: Array = found[place] / flagged[place]
        return precision

    return _band(files, at_recalls)


def _band(files: pd.DataFrame, curve: Callable[[Array, Array], Array]) -> Band | None:
    """Return the band of a function of the numbers of reals and fakes in each cell of scores, the highest first."""
    test = TestSet.of(files, None)
    if len(np.unique(test.label)) < 2 or not test.resamples.can_vary(test.label) or test.resamples.groups < FEW_GROUPS:
        return None
    drawn = [curve(*counts) for counts in zip(test.reals[1:], test.fakes[1:], strict=True) if all(map(np.any, counts))]
    share = tail(test.resamples.groups)
    low, high = np.quantile(drawn, [share, 1 - share], axis=0)
    return low, high


def _shares(counts: Array) -> Array:
    """Return the share of the files in each cell and all before it, after a first 0: (cells + 1,)."""
    so_far = np.concatenate([[0.0], np.cumsum(counts)])
    out: Array = so_far / so_far[-1]
    return out
