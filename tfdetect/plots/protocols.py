"""Figures of studies: the AUC of each training, the learning curve, and the trials of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdetect.plots.style import FAINT, FAKE, GREEN, INK, add_values, create_axes, create_chart, describe, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 3  # in a row
MAX_TITLE = 34


def figures(kind: str, results: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures of a study of this kind, by the name of their function."""
    if kind == "search":
        return {"trials": trials(results)}
    if kind == "amounts":
        return {"learning_curve": learning_curve(results["rows"])}
    return {"sources": sources(results)} if kind == "leave_out" else {"members": members(results)}


def members(results: Mapping[str, Any]) -> Figure:
    """Test AUC of each training, with the 95 % interval over its own test files. The line is the AUC of the study and the band
    its interval."""
    rows = results["members"]
    figure, axes = _rows_axes("Each training", [row["name"] for row in rows])
    _draw_intervals(axes, [(row["auc"], row["auc_interval"]) for row in rows], 0, INK, "one training")
    if results["auc"] is not None:
        axes.axvline(results["auc"], color=GREEN, linewidth=1.5, label="all together")
        if results["interval"]:
            axes.axvspan(*results["interval"], color=GREEN, alpha=0.15, linewidth=0)
    return _with_legend(figure, axes)


def sources(results: Mapping[str, Any]) -> Figure:
    """AUC on the fakes of each source when it was left out of training (unseen), and on those of the other sources in the same
    trainings (seen), with 95 % intervals."""
    rows = results["rows"]
    figure, axes = _rows_axes("Sources left out of training", [row["source"] for row in rows])
    for key, offset, color in (("unseen", -0.12, FAKE), ("seen", 0.12, INK)):
        _draw_intervals(axes, [(row[key], row[f"{key}_interval"]) for row in rows], offset, color, key)
    return _with_legend(figure, axes)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    """Add a legend above the axes, where it hides nothing. Returns the figure."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    return figure


def _rows_axes(title: str, names: Sequence[str]) -> tuple[Figure, Axes]:
    figure, axes = create_axes(title, "AUC on test files", "", width=6.4, height=1.6 + 0.32 * len(names))
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0.5, color=FAINT, linewidth=1)
    return figure, axes


def _draw_intervals(axes: Axes, rows: Sequence[tuple[float | None, Sequence[float] | None]], offset: float, color: str,
                    label: str) -> None:  # fmt: skip
    """Draw a point and its interval in each row; a row without a value stays empty."""
    places = np.arange(len(rows)) + offset
    values = np.array([np.nan if value is None else value for value, _ in rows])
    low, high = np.array([interval or (np.nan, np.nan) for _, interval in rows], float).reshape(-1, 2).T
    axes.plot(values, places, "o", markersize=5, color=color, label=label)
    axes.hlines(places, low, high, color=color, alpha=0.5, linewidth=2)
    add_values(axes, values, places, [f"{label}: AUC {describe(*row)}" for row in rows])


def learning_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC over the number of training files, the mean over seeds, with its 95 % interval over test files. Dots are single
    trainings."""
    figure, axes = create_axes("Learning curve", "training files", "AUC on test files", width=6.4)
    known = [row for row in rows if row["auc"] is not None]
    places = [row["trained_on"] for row in known]
    axes.plot(places, [row["auc"] for row in known], marker="o", color=INK, linewidth=2, label="mean over seeds")
    texts = [f"{place:,} training files: AUC {describe(row['auc'], row['interval'])}"
             for place, row in zip(places, known, strict=True)]  # fmt: skip
    add_values(axes, places, [row["auc"] for row in known], texts, "column")
    low, high = np.array([row["interval"] or (np.nan, np.nan) for row in known], float).reshape(-1, 2).T
    axes.fill_between(places, low, high, color=INK, alpha=0.12, linewidth=0)
    for place, row in zip(places, known, strict=True):
        values = [value for value in row["by_seed"].values() if value is not None]
        axes.plot([place] * len(values), values, ".", color=GREEN, markersize=6, zorder=3)
    if places and min(places) > 0:
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    return _with_legend(figure, axes)


def trials(results: Mapping[str, Any]) -> Figure:
    """The validation figure that judges the trials of a search, over each setting; the best is marked. With enough trials, titles
    tell how much of its variation a setting explains (fANOVA)."""
    rows = [row for row in results["trials"] if results["monitor"] in row]
    names = list(results["settings"])
    columns = min(PANELS, len(names))
    height = math.ceil(len(names) / columns)
    figure = create_chart(4.2 * columns, 3.2 * height)
    grid = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        _draw_setting(axes, name, rows, results)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    return figure


def _draw_setting(axes: Axes, name: str, rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> None:
    """Draw the trials over one setting, on a logarithmic scale if it was searched on one."""
    words = [row["settings"][name] for row in rows]
    values = [row[results["monitor"]] for row in rows]
    numbers = [_to_number(word) for word in words]
    places: Sequence[float] = [number for number in numbers if number is not None]
    if len(places) < len(numbers):
        kinds = sorted(set(words))
        places = [kinds.index(word) for word in words]
        axes.set_xticks(range(len(kinds)), [shorten(kind) for kind in kinds], fontsize=8)
    elif name in results["log"]:
        axes.set_xscale("log")
    axes.plot(places, values, "o", color=INK, alpha=0.7, markersize=5)
    texts = [f"{row['name']}: {word}, {results['monitor']} {value:.4g}"
             for row, word, value in zip(rows, words, values, strict=True)]  # fmt: skip
    add_values(axes, places, values, texts)
    best = next(number for number, row in enumerate(rows) if row["name"] == results["best"])
    axes.plot(places[best], values[best], "o", color=FAKE, markersize=9, fillstyle="none", markeredgewidth=2)
    share = results["importance"].get(name)
    set_title(axes, name[-MAX_TITLE:] + (f": {share:.0%}" if share is not None else ""))
    axes.title.set_fontsize(10)
    axes.set_ylabel(results["monitor"], fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)


def _to_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
