"""Common style of all figures: colours, axes, confusion matrices, image grids, the values that pages show on hovering, and a
message in place of an empty plot.

Figures are created without pyplot, so they share no global state and are safe to draw in threads. Real is blue and fake is
orange throughout, from the colour-blind-safe palette of Okabe and Ito ("Color universal design", 2008).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.files import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, FAKE, INK, FAINT, GRID = "#0072B2", "#D55E00", "#1f2933", "#8a94a0", "#e4e7eb"
DPI = 160
VALUES = "values"  # name of the text in a PNG that holds what a page shows on hovering, and of the same of figure and axes
NEAR = 14  # pixels around a point in which it is hovered
GREEN, PURPLE, AMBER = "#009E73", "#CC79A7", "#E69F00"  # for anything that is not a class
CLASSES = ((0, "real", REAL), (1, "fake", FAKE))
# The test split, which is the result, is dark; validation, which chose epoch and threshold, is faint and dashed.
SPLIT_STYLES: dict[str, dict[str, Any]] = {
    "test": {"color": INK, "linewidth": 2},
    "training": {"color": GREEN, "linewidth": 2},
    "validation": {"color": FAINT, "linewidth": 1.5, "linestyle": "--"},
}


def create_chart(width: float, height: float) -> Figure:
    """Return an empty figure of width x height inches that pages take for a chart: they show its values, and may darken it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    vars(figure)[VALUES] = True
    return figure


def create_axes(title: str, xlabel: str, ylabel: str, width: float = 5.2, height: float = 4.2,
                columns: int = 1) -> tuple[Figure, Any]:  # fmt: skip
    """Return a figure of width x height inches and its axes in the common style; an array of axes for several columns."""
    figure = create_chart(width, height)
    panels = figure.subplots(1, columns)
    for axes in np.atleast_1d(panels):
        set_title(axes, title)
        axes.set_xlabel(xlabel, fontsize=10, color=INK)
        axes.set_ylabel(ylabel, fontsize=10, color=INK)
        axes.tick_params(labelsize=9, colors=INK, length=3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def set_title(axes: Axes, text: str) -> None:
    """Set the title of a panel in the common style."""
    axes.set_title(text, fontsize=12, weight="bold", loc="left", color=INK)


def add_values(axes: Axes, x: ArrayLike, y: ArrayLike, texts: Sequence[str], strip: str = "") -> None:
    """Let a page show a text when the pointer is at one of these points, x and y (n,) in data coordinates.

    It is shown near the point, or with the `strip` "row" or "column" anywhere across the axes at the height, or the place, of the
    point. Matplotlib has no such thing, so it is kept beside what an axes knows of itself.
    """
    vars(axes).setdefault(VALUES, []).append((np.column_stack([x, y]), texts, strip))


def describe(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Return a figure with its interval, to be shown on hovering."""
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return ("none" if value is None or np.isnan(value) else f"{value:.3f}") + ends


def values_of(figure: Figure) -> list[tuple[str, float, float, list[float]]]:
    """Return what `add_values` was given for the axes of a drawn figure: text, x, y, and left, top, width and height of the area
    to be hovered, in pixels from the upper left of the figure."""
    out, bottom = [], figure.bbox.height
    for axes in figure.axes:
        frame = axes.bbox
        for points, texts, strip in vars(axes).get(VALUES, ()):
            x, y = (at := axes.transData.transform(points)).T
            left, right, low, high = x - NEAR, x + NEAR, y - NEAR, y + NEAR
            if strip == "column":
                (left, right), low, high = _halfway(x, frame.x0, frame.x1), np.full(len(at), frame.y0), np.full(len(at), frame.y1)
            if strip == "row":
                (low, high), left, right = _halfway(y, frame.y0, frame.y1), np.full(len(at), frame.x0), np.full(len(at), frame.x1)
            areas = np.column_stack([left, bottom - high, right - left, high - low])
            out += [(text, float(px), float(bottom - py), area.tolist())
                    for text, (px, py), area in zip(texts, at, areas, strict=True) if np.isfinite(area).all()]  # fmt: skip
    return out


def _halfway(places: NDArray[np.float64], first: float, last: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the strips around places (n,) begin and end: halfway to their neighbours, or at the ends of the axis."""
    order = np.argsort(places)
    middles = (places[order][1:] + places[order][:-1]) / 2
    begin, end = np.empty_like(places), np.empty_like(places)
    begin[order], end[order] = np.concatenate([[first], middles]), np.concatenate([middles, [last]])
    return begin, end


def draw_histogram(axes: Axes, values: ArrayLike, label: str, **options: Any) -> None:
    """Draw a histogram, filled and outlined, with the options of `hist`."""
    axes.hist(values, alpha=0.3, **options)
    axes.hist(values, histtype="step", linewidth=1.8, label=label, **options)


def finish_axes(figure: Figure, axes: Axes, legend: Any, square: bool = False) -> Figure:
    """Add a legend at the location `legend`; `square` sets both axes to 0..1 with equal scale. Returns the figure."""
    if square:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc=legend, frameon=False, fontsize=9)
    return figure


def show_message(figure: Figure, axes: Axes, text: str) -> Figure:
    """Show a message instead of a plot, usually the reason why nothing can be drawn. Returns the figure."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color=FAINT, transform=axes.transAxes)
    return figure


def draw_matrix(figure: Figure, axes: Axes, counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draw a confusion matrix (rows, columns) with counts and their share of each row. Returns the figure."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    large = max(7, 19 - 2 * len(rows))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=2)  # the darkest blues would make the text unreadable
    for (row, column), count in np.ndenumerate(counts):
        share = f"{shares[row, column]:.1%}" if counts[row].any() else "–"
        axes.text(column, row - 0.06, share, ha="center", fontsize=large, color=INK, weight="bold")
        axes.text(column, row + 0.22, plural(int(count), "file"), ha="center", fontsize=0.7 * large, color=INK)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return figure


def image_grid(rows: Sequence[tuple[str, NDArray[Any], dict[str, Any]]], title: str = "") -> Figure:
    """Return a figure with a grid of images. Each row is (name, images, keyword arguments of imshow)."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns, (height, width) = len(rows[0][1]), rows[0][1].shape[1:3]
    figure_width, row_height = 1.5 + 1.05 * columns, 1.05 * min(2.0, max(0.5, height / width))
    lines = wrap(title, int(9 * figure_width))
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(figure_width, 0.15 + 0.22 * len(lines) + row_height * len(rows)), layout=tight)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel_row, (name, images, options) in zip(panels, rows, strict=True):
        for axes, image in zip(panel_row, images, strict=True):
            axes.imshow(image, **options)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        panel_row[0].set_ylabel(name, fontsize=9, color=INK, rotation=0, ha="right", va="center")
    figure.suptitle("\n".join(lines), parse_math=False, fontsize=12, weight="bold", color=INK, x=0.01, ha="left")
    return figure


def shorten(name: str) -> str:
    """Return a source's name, cut to 28 characters and safe for Matplotlib, as a label."""
    # A dollar sign would start a formula; source names come from folders.
    return (name if len(name) <= 28 else name[:27] + "…").replace("$", r"\$") or "(no name)"


def caption(plot: Callable[..., Any]) -> str:
    """Return the caption of a plotting function: the first paragraph of its docstring."""
    return " ".join((plot.__doc__ or "").split("\n\n")[0].split())


def to_png(figure: Figure | Path) -> bytes:
    """Return a figure, or the file at a path to one already saved, as PNG: vector curves of a million points would be huge.

    The PNG of a chart, which `create_chart` began, holds its `values_of` as text.
    """
    if isinstance(figure, Path):
        return figure.read_bytes()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    figure.set(dpi=DPI, facecolor="white")
    canvas, buffer, info = FigureCanvasAgg(figure), io.BytesIO(), PngInfo()
    canvas.draw()  # once: `savefig` lays a figure out twice
    if VALUES in vars(figure):  # a chart, not a picture
        info.add_text(VALUES, json.dumps(values_of(figure)), zip=True)
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
