"""Is the difference between detectors that scored the same files more than chance? Bootstrap over groups, and DeLong's test."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfdetect.evaluation.intervals import Resamples, TestSet, to_intervals
from tfdetect.evaluation.metrics import auc

SIGNIFICANCE = 0.05
COLUMNS = ("first", "second", "difference", "interval", "delong_p", "conclusion")


def compare(labels: ArrayLike, groups: ArrayLike, scores: Mapping[str, ArrayLike]) -> list[dict[str, Any]]:
    """Return a row for each pair of detectors: COLUMNS, of which `difference` is the AUC of the first less that of the second.

    `labels` (0 real, 1 fake), `groups` and the scores of each detector are (files,). `interval` is the 95 % percentile interval
    of the difference, with the same resamples of whole groups for all detectors, None if a class has fewer than two groups.
    `delong_p` is the two-sided p-value of `delong`. Returns [] unless there are files of both classes.
    """
    label, resamples = np.asarray(labels), Resamples(groups)
    if len(np.unique(label)) < 2:
        return []
    exact = {name: auc(label, values) for name, values in scores.items()}
    drawn = {}
    if resamples.can_vary(label):
        samples = {name: TestSet(label, np.asarray(values), None, None, resamples) for name, values in scores.items()}
        drawn = {name: sample.draw_auc() for name, sample in samples.items()}
    rows = []
    for first, second in combinations(scores, 2):
        difference = exact[first] - exact[second]  # type: ignore[operator]  # there are both classes
        draws = {"difference": drawn[first] - drawn[second]} if drawn else {}
        interval = to_intervals(draws, {"difference": difference}, resamples.groups)["difference"]
        row = {"first": first, "second": second, "difference": difference, "interval": interval,
               "delong_p": delong(label, scores[first], scores[second])}  # fmt: skip
        rows.append({**row, "conclusion": conclusion(row)})
    return rows


def delong(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the two-sided p-value, 0..1, of equal AUCs of two detectors of the same files, all arrays (files,).

    The files count as independent, so that groups of related files make it too small. None if a class has fewer than two files,
    or the difference does not vary. Source: E. DeLong et al. 1988, computed by ranks as X. Sun and W. Xu 2014 do; scikit-learn
    and SciPy have no such test.
    """
    from scipy.stats import norm, rankdata

    label, scores = np.asarray(labels), np.stack([np.asarray(first, float), np.asarray(second, float)])
    fakes, reals = scores[:, label == 1], scores[:, label == 0]
    if min(fakes.shape[1], reals.shape[1]) < 2:
        return None
    ranks = rankdata(np.concatenate([fakes, reals], axis=1), axis=1)
    beaten = (ranks[:, : fakes.shape[1]] - rankdata(fakes, axis=1)) / reals.shape[1]  # share of reals below each fake
    above = 1 - (ranks[:, fakes.shape[1] :] - rankdata(reals, axis=1)) / fakes.shape[1]  # share of fakes above each real
    difference = beaten[0] - beaten[1], above[0] - above[1]
    variance = sum(np.var(part, ddof=1) / len(part) for part in difference)
    if variance <= 1e-20:
        return None
    return float(2 * norm.sf(abs(difference[0].mean()) / np.sqrt(variance)))


def conclusion(row: Mapping[str, Any]) -> str:
    """Return in words whether a difference is more than chance: only if both its interval and DeLong's test say so."""
    if row["difference"] == 0:
        return "no difference"
    if row["interval"] is None:
        return "too few groups to tell"
    if all(signs := _signs(row)):
        better, worse = _order(row)
        return f"{better} ranks these files better than {worse}"
    return "open: the interval and DeLong's test disagree" if any(signs) else "may be chance"


def _signs(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the interval, and whether DeLong's test, say that a difference is more than chance."""
    low, high = row["interval"] or (0, 0)
    return not low <= 0 <= high, row["delong_p"] is not None and row["delong_p"] < SIGNIFICANCE


def order(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (the better, the worse) of a row of `compare` if the difference is more than chance, else None."""
    return _order(row) if all(_signs(row)) else None


def _order(row: Mapping[str, Any]) -> tuple[str, str]:
    return (row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of `compare` as a sentence."""
    interval = "" if row["interval"] is None else f"95 % interval {row['interval'][0]:.3f} to {row['interval'][1]:.3f}, "
    p = "none" if row["delong_p"] is None else "< 0.001" if row["delong_p"] < 0.001 else f"{row['delong_p']:.3f}"
    return (f"{row['first']} against {row['second']}: difference of AUC {row['difference']:+.3f} ({interval}DeLong p {p}); "
            f"{row['conclusion']}.")  # fmt: skip


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table for the report."""
    names = {"difference": "difference of AUC", "interval": "95 % interval", "delong_p": "DeLong p"}
    return pd.DataFrame(rows, columns=list(COLUMNS)).rename(columns=names)
