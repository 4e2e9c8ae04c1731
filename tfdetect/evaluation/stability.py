"""How a change of the files changes the verdicts on them: metrics before and after, and which files flip."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfdetect.evaluation import metrics
from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Calibration
from tfdetect.evaluation.intervals import LEVEL, Resamples, divide
from tfdetect.evaluation.predictions import FILE_KEYS, by_file

COUNTS = ("n", "n_real", "n_fake", "n_groups", "to_fake", "to_real", "to_inconclusive", "from_inconclusive")
KEYS = (*COUNTS[:4], "auc", "auc_interval", "auc_before", "accuracy", "accuracy_interval", "accuracy_before", "flipped",
        "flipped_interval", "became_inconclusive", "became_inconclusive_interval", *COUNTS[4:])  # fmt: skip
FLIP_COLUMNS = ["path", "label", "source", "verdict_before", "verdict", "probability_before", "probability"]


def compare(before: pd.DataFrame, after: pd.DataFrame, threshold: float,
            calibration: Calibration | None = None) -> tuple[dict[str, Any], pd.DataFrame]:  # fmt: skip
    """Return the metrics of changed files, and those whose verdict changed.

    `before` and `after` are predictions tables with probabilities; files that `after` lacks are left out of all figures. The
    metrics are n, n_real, n_fake, n_groups, auc, auc_before, accuracy, accuracy_before and two shares of all files, each with an
    `_interval`: flipped, those whose verdict changed from real to fake or back; and became_inconclusive, those that were called
    real or fake before, None unless `calibration` has a band. The numbers of files are to_fake and to_real, which add up to
    flipped, to_inconclusive and from_inconclusive. Accuracy is that of the threshold alone, which decides every file. The rows of
    the files are path, label, source, verdict_before, verdict, probability_before and probability.
    """
    if before.empty:
        return {**dict.fromkeys(KEYS), **dict.fromkeys(COUNTS, 0)}, pd.DataFrame(columns=FLIP_COLUMNS)
    old = by_file(before)
    new = by_file(after) if len(after) else old.head(0)  # `by_file` drops a column without values
    files = old.merge(new[[*FILE_KEYS, "score", "probability"]], on=FILE_KEYS, suffixes=("_before", ""))
    was, now = files["probability_before"] >= threshold, files["probability"] >= threshold
    label, group, resamples = files["label"].to_numpy(), files["group"], Resamples(files["group"])
    has_band = calibration is not None and calibration.band is not None
    first, second = (calibration.verdicts(files[name]) if calibration and has_band else np.where(fake, FAKE, REAL)
                     for name, fake in (("score_before", was), ("score", now)))  # fmt: skip
    left, joined = ((one == INCONCLUSIVE) & (other != INCONCLUSIVE) for one, other in ((first, second), (second, first)))
    changed = first != second
    accuracy, flipped = (now == label).to_numpy(float), (changed & ~left & ~joined).astype(float)
    found = {
        "n": len(files), "n_real": int((label == 0).sum()), "n_fake": int((label == 1).sum()), "n_groups": int(group.nunique()),
        "auc": metrics.auc(label, files["score"]), "auc_interval": metrics.auc_interval(label, files["score"], group),
        "auc_before": metrics.auc(label, files["score_before"]),
        "accuracy": _mean(accuracy), "accuracy_interval": mean_interval(accuracy, resamples),
        "accuracy_before": _mean((was == label).to_numpy(float)),
        "flipped": _mean(flipped), "flipped_interval": mean_interval(flipped, resamples),
        "became_inconclusive": _mean(joined) if has_band else None,
        "became_inconclusive_interval": mean_interval(joined, resamples) if has_band else None,
        "to_fake": int(flipped[second == FAKE].sum()), "to_real": int(flipped[second == REAL].sum()),
        "to_inconclusive": int(joined.sum()), "from_inconclusive": int(left.sum()),
    }  # fmt: skip
    return found, files.assign(verdict_before=first, verdict=second).loc[changed, FLIP_COLUMNS].reset_index(drop=True)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def mean_interval(values: ArrayLike, resamples: Resamples) -> list[float] | None:
    """Return the 95 % interval [low, high] of the mean of values (rows,) of 0 or 1, resampling whole groups of related files.

    It is the percentile bootstrap interval, except where all values are equal, whose resamples do not vary: then it is the
    interval of Clopper and Pearson (1934) with each group as one trial. None for fewer than two groups.
    """
    value, count = np.asarray(values, float), resamples.groups
    if count < 2:
        return None
    if (value == value[0]).all():
        bound = ((1 - LEVEL) / 2) ** (1 / count)
        return [bound, 1.0] if value[0] else [0.0, 1 - bound]
    drawn = resamples.total(slice(None), value.astype(int), 2)
    ends = np.quantile(divide(drawn[1:, 1], drawn[1:].sum(1)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(end) for end in ends]
