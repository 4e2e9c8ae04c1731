"""How the scores of a file's frames or crops become the score of the file: --evaluate.aggregate.

Every rule is the mean over a range of places in descending order, which `averaged_places` gives. This module applies it to NumPy
arrays and tables, `serving.aggregation` in the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"


def averaged_places(rule: str, count: Any) -> tuple[Any, Any]:
    """Return the first place and the one after the last, 0 being the highest score, over which a file's score is the mean.

    `count` is the number of the file's scores: an int, an array or a tensor. The end may be above it.
    """
    if rule == "median":
        return (count - 1) // 2, count // 2 + 1
    highest = {MEAN: count, "max": 1}
    return 0 * count, highest[rule] if rule in highest else int(rule.removeprefix("top:"))


def aggregate(scores: ArrayLike, rule: str) -> NDArray[np.float64]:
    """Return the score of each file, float64 (...,), from those of its frames, (..., frames)."""
    values = np.asarray(scores, np.float64)
    if rule == MEAN:
        return np.asarray(values.mean(axis=-1))
    first, end = averaged_places(rule, values.shape[-1])
    return np.asarray(-np.sort(-values, axis=-1)[..., first:end].mean(axis=-1))


def aggregate_rows(values: pd.DataFrame, files: list[Any], rule: str) -> pd.DataFrame:
    """Return the value of each file, indexed by `files`, for each column of `values` (rows,); the rows of a file are averaged.

    `files` are what `DataFrame.groupby` takes; files keep the order of their first appearance.
    """
    options: dict[str, Any] = {"sort": False, "dropna": False}
    if rule != MEAN:
        grouped = values.groupby(files, **options)
        place = grouped.rank(method="first", ascending=False) - 1
        first, end = averaged_places(rule, grouped[[values.columns[0]]].transform("size").to_numpy()[:, None])
        values = values.where((place >= first) & (place < end))
    return values.groupby(files, **options).mean()
