"""The heat-map of a cross-data matrix: the AUC of each run on each data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tfdetect.plots.style import FAINT, INK, create_chart, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(aucs: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """AUC of each run (rows) on each data set (columns): blue above chance, red below, a dash where there is none.

    `aucs` is (rows, columns), 0..1, NaN for none.
    """
    values = np.asarray(aucs, float)
    rows, columns = [shorten(name) for name in rows], [shorten(name) for name in columns]
    widest = max(map(len, rows))
    figure = create_chart(max(6.0, 1.5 + 0.09 * widest + 1.05 * len(columns)), 1.9 + 0.42 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(values):
        colour = FAINT if np.isnan(value) else "white" if abs(value - 0.5) > 0.3 else INK
        axes.text(column, row, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.spines[:].set_visible(False)
    set_title(axes, "AUC")
    figure.colorbar(image, label="AUC (0.5 is chance)")
    return figure
