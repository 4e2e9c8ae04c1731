"""The files that a detector is most confidently wrong about, as the report shows them: a frame, and what drives its score."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tfdetect.evaluation import predictions
from tfdetect.pages import explanation
from tfdetect.pages.content import HeatMap
from tfdetect.workflow.console import progress

MAPS = 3  # heat-maps of each kind of mistake
Frame = tuple[str, int, str, float, np.ndarray]  # path, label, source, probability, the middle frame of the clip
MadeMap = tuple[np.ndarray, np.ndarray, str, str]  # frames, their heat-maps, the method, what its check says
MapMaker = Callable[[np.ndarray], MadeMap | None]


def most_wrong(table: pd.DataFrame, threshold: float, load_clip: Callable[..., np.ndarray | None] | None,
               make_map: MapMaker | None) -> tuple[list[Frame], dict[str, HeatMap]]:  # fmt: skip
    """Return the most wrong test files of a table of predictions, and the heat-maps of the first of each kind by path.

    The functions are those of `results.Evaluation`.
    """
    if not load_clip or "probability" not in table:
        return [], {}
    test = table[table["split"] == "test"]
    rows = list(predictions.worst_mistakes(test, threshold).itertuples())
    loaded = [(row, load_clip(row.path, *predictions.highest_face(test, row.path))) for row in rows]
    clips = {row.path: clip for row, clip in loaded if clip is not None}
    frames = [(row.path, row.label, row.source, row.probability, np.array(clips[row.path][len(clips[row.path]) // 2]))
              for row in rows if row.path in clips]  # fmt: skip
    first = [path for label in (0, 1) for path in [frame[0] for frame in frames if frame[1] == label][:MAPS]]
    if not make_map or not first:
        return frames, {}
    with progress("Heat-maps of mistakes", len(first), may_fail=False) as step:
        maps = {path: _draw(make_map(clips[path]), step) for path in first}
    return frames, {path: drawn for path, drawn in maps.items() if drawn}


def _draw(made: MadeMap | None, step: Callable[[], None]) -> HeatMap | None:
    step()
    if made is None:
        return None
    frames, heat, method, check = made
    over = explanation.overlay(frames, heat, method, float(np.abs(heat).max()) or 1.0)[0][len(frames) // 2]
    return HeatMap(np.round(255 * over).astype(np.uint8), method, check)
