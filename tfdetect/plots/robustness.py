"""The figure of a robustness sweep: metrics over the strength of each corruption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tfdetect.plots.style import AMBER, FAINT, GREEN, INK, PURPLE, add_values, create_chart, describe, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS, MAX_TITLE = 3, 34
LINES = (("auc", "AUC", INK), ("accuracy", "accuracy", GREEN), ("flipped", "verdicts that changed side", PURPLE),
         ("became_inconclusive", "verdicts that became inconclusive", AMBER))  # fmt: skip
SEPARATE = "chains of corruptions"


def robustness(table: pd.DataFrame) -> Figure:
    """AUC, accuracy and the shares of verdicts that changed side or became inconclusive, over the strength of each corruption,
    with 95 % intervals. Dashed lines are the AUC and the accuracy of the same files as they are; the grey line is 0.5.

    `table` has a row for each corruption: corruption, curve, strength (NaN for a chain that belongs to no curve), n, and for auc,
    accuracy, flipped and became_inconclusive the value, its `_interval` and, for the first two, the value `_before`.
    """
    lines = [line for line in LINES if table[line[0]].notna().any()]
    is_point = table["strength"].notna()
    panels = list(table[is_point].groupby("curve", sort=False))
    if not is_point.all():
        panels.append((SEPARATE, table[~is_point].reset_index(drop=True)))
    rows = -(-max(len(panels), 1) // COLUMNS)
    figure = create_chart(4.2 * min(COLUMNS, max(len(panels), 1)), 3.1 * rows + 0.4)
    grid = figure.subplots(rows, min(COLUMNS, max(len(panels), 1)), squeeze=False).ravel()
    for axes, (name, part) in zip(grid, panels, strict=False):
        _draw_panel(axes, str(name), part, lines)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _lines(name: str) -> list[str]:
    """Return the steps of a chain in lines of at most MAX_TITLE characters, where that is possible."""
    lines = [""]
    for step in name.split("|"):
        joined = f"{lines[-1]}|{step}" if lines[-1] else step
        lines = [*lines[:-1], joined] if len(joined) <= MAX_TITLE or not lines[-1] else [*lines, step]
    return lines


def _draw_panel(axes: Axes, name: str, part: pd.DataFrame, lines: Sequence[tuple[str, str, str]]) -> None:
    """Draw the corruptions of one curve over their strengths, or others below each other."""
    is_curve = bool(part["strength"].notna().all())
    part = part.sort_values("strength") if is_curve else part
    places = part["strength"].to_numpy(float) if is_curve else np.arange(len(part))
    for key, label, color in lines:
        values = part[key].to_numpy(float)
        low, high = np.array([pair or (np.nan, np.nan) for pair in part[f"{key}_interval"]], float).T
        if is_curve:
            axes.plot(places, values, marker="o", markersize=4, color=color, label=label, linewidth=1.8)
            axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
        else:
            axes.plot(values, places, "o", markersize=5, color=color, label=label)
            axes.hlines(places, low, high, color=color, alpha=0.5)
        if is_curve and f"{key}_before" in part and len(before := part[f"{key}_before"].dropna()):
            axes.axhline(float(before.iloc[0]), color=color, linewidth=1, linestyle="--", alpha=0.6)
    texts = ["\n".join([row["corruption"], *(f"{label} {describe(row[key], row[f'{key}_interval'])}" for key, label, _ in lines)])
             for row in part.to_dict("records")]  # fmt: skip
    first = part[lines[0][0]].fillna(0.5)
    add_values(axes, places if is_curve else first, first if is_curve else places, texts, "column" if is_curve else "row")
    (axes.axhline if is_curve else axes.axvline)(0.5, color=FAINT, linewidth=1)
    (axes.set_ylim if is_curve else axes.set_xlim)(-0.02, 1.02)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    set_title(axes, "\n|".join(_lines(name)))
    axes.title.set_fontsize(10)
    if not is_curve:
        axes.set_yticks(places, [text.replace("|", "\n|") for text in part["corruption"]], fontsize=6)
        axes.invert_yaxis()
