"""The ROC curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from tfdetect.plots.style import (
    AMBER,
    FAINT,
    FAKE,
    GREEN,
    GRID,
    INK,
    PURPLE,
    REAL,
    create_axes,
    finish_axes,
    shorten,
    show_message,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (INK, REAL, FAKE, GREEN, PURPLE, AMBER, FAINT)
LINES = ("-", "--", ":", "-.")  # the next one for each round of the colours


def roc(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """The share of fakes found against the share of real files called fake, for every possible threshold. Curves closer to the
    upper left are better.

    `runs` holds a row per file of each run: label (0 real, 1 fake) and score, a number.
    """
    from sklearn.metrics import auc, roc_curve

    names = ("false positive rate (real files called fake)", "true positive rate (fakes found)")
    figure, axes = create_axes("ROC curves", *names, width=6.4, height=5.4)
    drawn = {name: files for name, files in runs.items() if files["label"].nunique() == 2}
    if not drawn:
        return show_message(figure, axes, "Not drawn: no run has both real and fake files here.")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5)
    for number, (name, files) in enumerate(drawn.items()):
        rates = roc_curve(files["label"], files["score"])[:2]
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}
        axes.plot(*rates, label=f"{shorten(name)}: AUC {auc(*rates):.3f}", linewidth=2, **style)
    return finish_axes(figure, axes, legend="lower right", square=True)
