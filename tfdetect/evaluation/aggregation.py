"""How the scores of a file's frames or crops become the score of the file: --evaluate.aggregate.

A rule is FRAMES or FRAMES,FACES: where a file has several faces, the first one combines the frames of each face, and the second
one, by default the maximum, their scores. Each of them is the mean over a range of places in descending order, which
`averaged_places` gives. This module applies it to NumPy arrays and tables, `serving.aggregation` in the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"


def frame_rule(rule: str) -> str:
    """Return how the scores of frames, of each face if there are several, are combined."""
    return rule.partition(",")[0]


def face_rule(rule: str) -> str:
    """Return how the scores of faces are combined: one fake face makes a file fake, so by default the highest counts."""
    return rule.partition(",")[2] or "max"


def describe(rule: str, all_faces: bool) -> str:
    """Return in words how the score of a file comes about."""

    def words(one: str, what: str) -> str:
        how = f"mean of the {one[4:]} highest" if one.startswith("top:") else {"max": "maximum"}.get(one, one)
        return f"the {how} of its {what}'"

    if not all_faces:
        return words(frame_rule(rule), "frames")
    return f"{words(face_rule(rule), 'faces')}, and that of a face {words(frame_rule(rule), 'frames')}"


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


def aggregate_faces(scores: ArrayLike, rule: str, faces: int) -> tuple[float, NDArray[np.float64]]:
    """Return the score of a file, and that of each of its faces, float64 (faces,), from those of their frames, face by face.

    A file without several faces counts as one of a single face.
    """
    of_faces = aggregate(np.reshape(scores, (faces, -1)), frame_rule(rule))
    return float(aggregate(of_faces, face_rule(rule))), of_faces


def aggregate_rows(values: pd.DataFrame, files: list[Any], rule: str, faces: Any = None) -> pd.DataFrame:
    """Return the value of each file, indexed by `files`, for each column of `values` (rows,); the rows of a file are combined.

    `files` are what `DataFrame.groupby` takes; files keep the order of their first appearance. `faces` (rows,) are the numbers of
    the faces that the rows show, if files have several.
    """
    if faces is None:
        return _aggregate_rows(values, files, frame_rule(rule))
    of_faces = _aggregate_rows(values, [*files, faces], frame_rule(rule))
    levels = [of_faces.index.get_level_values(level) for level in range(len(files))]
    return _aggregate_rows(of_faces, levels, face_rule(rule))


def _aggregate_rows(values: pd.DataFrame, files: list[Any], rule: str) -> pd.DataFrame:
    options: dict[str, Any] = {"sort": False, "dropna": False}
    if rule != MEAN:
        grouped = values.groupby(files, **options)
        place = grouped.rank(method="first", ascending=False) - 1
        first, end = averaged_places(rule, grouped[[values.columns[0]]].transform("size").to_numpy()[:, None])
        values = values.where((place >= first) & (place < end))
    return values.groupby(files, **options).mean()
