"""How well probabilities agree with observed frequencies.

Reliability and expected calibration error: C. Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv
1706.04599).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tfdetect.evaluation.clusters import share_interval

if TYPE_CHECKING:
    import pandas as pd


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, groups: ArrayLike | None = None) -> pd.DataFrame:
    """Return the data of a reliability diagram: one row for each non-empty bin of equal width.

    Columns: low, high (edges of the bin), n, predicted (mean probability, 0..1), observed (share of fakes, 0..1), and with the
    `groups` of the files interval, [low, high] of the latter; see `clusters.share_interval`.
    scikit-learn's `calibration_curve` lacks n, by which the calibration error weights the bins.
    """
    import pandas as pd

    probability, label = np.asarray(probabilities, np.float64), np.asarray(labels)
    index = np.minimum((probability * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": index, "predicted": probability, "observed": label})
    rows = table.groupby("bin").agg(n=("bin", "size"), predicted=("predicted", "mean"), observed=("observed", "mean"))
    if groups is not None:
        named = table.assign(group=np.asarray(groups))
        rows["interval"] = [share_interval(part["observed"] == 1, part["group"]) for _, part in named.groupby("bin")]
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
