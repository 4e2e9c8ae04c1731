"""Figures of a predictions table.

Each plot is a function of (predictions, threshold), and the first paragraph of its docstring is its caption: a new
plot is one function here and its name in `STANDARD`. What they all look like is in `canvas`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tfdetect.evaluation import calibration, metrics
from tfdetect.evaluation.predictions import SPLITS, by_file
from tfdetect.plots import style as plots_style
from tfdetect.plots.style import CLASSES, FAINT, FAKE, GRID, INK, SPLIT_STYLES, create_axes, finish_axes, draw_matrix, show_message, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STANDARD = ("roc", "precision_recall", "scores", "confusion", "reliability", "sources")


def standard(predictions: pd.DataFrame, threshold: float | None) -> dict[str, Figure]:
    """Every plot of STANDARD under its name. `predictions` may hold both splits; each file counts once."""
    files = by_file(predictions)
    names = (*STANDARD, "attribution") if metrics.attributed_sources(files) else STANDARD
    return {name: globals()[name](files, threshold) for name in names}


def caption(name: str) -> str:
    """What a reader should see in the plot of that name; empty for a figure that is not of this module."""
    return plots_style.caption(globals()[name]) if name in (*STANDARD, "attribution", "history", "shortcuts") else ""


def save_plots(folder: str | PathLike[str], figures: Mapping[str, Figure]) -> dict[str, Path]:
    """Write `<name>.png` for each figure into the folder, which is made if need be; their paths, by name."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = {name: Path(folder) / (re.sub(r"[^\w-]+", "_", name) + ".png") for name in figures}
    for name, path in paths.items():
        path.write_bytes(plots_style.to_png(figures[name]))
    return paths


def roc(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Every trade-off there is: how many fakes are found (up) against how many reals are falsely flagged (right). The
    further to the upper left, the better; the dot is the threshold in use."""
    from sklearn.metrics import roc_curve

    figure, axes = create_axes("ROC curve", "reals falsely flagged", "fakes found")
    if not (judged := _splits_with_both_classes(predictions)):
        return show_message(figure, axes, "Not drawn: it takes reals and fakes in one split.")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5, label="chance")
    for split, files in judged:
        false_positive, true_positive, _ = roc_curve(files["label"], files["score"])
        axes.plot(false_positive, true_positive, label=f"{split}: AUC {_auc(files):.3f}", **SPLIT_STYLES[split])
        if split == "test" and threshold is not None and "probability" in files:
            flagged = files["probability"] >= threshold
            rates = [float(flagged[files["label"] == kind].mean()) for kind in (0, 1)]
            axes.plot(*rates, "o", color=INK, markersize=8, markeredgecolor="white", clip_on=False, zorder=5)
    return finish_axes(figure, axes, legend="lower right", square=True)


def precision_recall(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Of the files that are flagged, how many are fake (up), as more and more of the fakes are found (right). The
    dotted line is what flagging at random gets: the share of fakes in the test."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = create_axes("Precision and recall", "fakes found (recall)", "flagged files that are fake (precision)")
    if not (judged := _splits_with_both_classes(predictions)):
        return show_message(figure, axes, "Not drawn: it takes reals and fakes in one split.")
    for split, files in judged:
        precision, recall, _ = precision_recall_curve(files["label"], files["score"])
        score = metrics.average_precision(files["label"], files["score"])
        axes.plot(recall, precision, label=f"{split}: AP {score:.3f}", drawstyle="steps-post", **SPLIT_STYLES[split])
        if split == "test":
            axes.axhline(files["label"].mean(), color=FAINT, linewidth=1, linestyle=":")
    return finish_axes(figure, axes, legend="lower left", square=True)


def scores(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """How the reals and the fakes of the test are spread. The less the two overlap, the better; what stands right of
    the line is called fake."""
    column = "probability" if "probability" in predictions else "score"
    figure, axes = create_axes(f"Test files by {column}", f"{column}: the higher, the more likely fake", "share of class")
    files = predictions[predictions["split"] == "test"]
    if files.empty:
        return show_message(figure, axes, "Not drawn: the test holds no files.")
    span = (0.0, 1.0) if column == "probability" else (files[column].min(), files[column].max())
    for label, name, color in CLASSES:
        values = files.loc[files["label"] == label, column]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            kind = {"bins": 30, "range": span, "weights": weights, "color": color}
            axes.hist(values, alpha=0.3, **kind)
            axes.hist(values, histtype="step", linewidth=1.8, label=f"{name} ({len(values)})", **kind)
    if threshold is not None and column == "probability":
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3g}")
    return finish_axes(figure, axes, legend="best")


def confusion(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """What the test files are (rows) and what they are called (columns). Each row adds up to 100 %; right decisions
    lie on the diagonal from the upper left."""
    figure, axes = create_axes("Decisions on the test", "", "")
    files = predictions[predictions["split"] == "test"]
    if threshold is None or "probability" not in files or files.empty:
        return show_message(figure, axes, "No decisions: there is no calibration.")
    called = (files["probability"] >= threshold).astype(int)
    counts = pd.crosstab(files["label"], called).reindex(index=[0, 1], columns=[0, 1], fill_value=0).to_numpy()
    return draw_matrix(figure, axes, counts, ["real", "fake"], ["called real", "called fake"])


def attribution(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Which source the fakes of the test are from (rows) and which they are called (columns), whether or not they were found.
    Each row adds up to 100 %."""
    told = metrics.attribution_metrics(predictions[predictions["split"] == "test"])
    names = [shorten(name) for name in told["classes"]]
    side = 3.0 + 0.75 * len(names)
    figure, axes = create_axes("Sources of the test's fakes", "", "", width=side + 1, height=side)
    if not told["n"]:
        return show_message(figure, axes, "Not drawn: no fake of the test is of a source that the detector knows.")
    draw_matrix(figure, axes, np.array(told["confusion"]), names, names)
    axes.tick_params(axis="x", rotation=30)
    return figure


def reliability(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Can the probability be taken at its word? Of the test files that were called 80 % likely fake, 80 % should be:
    the dots should lie on the line. The larger a dot, the more files it stands for."""
    figure, axes = create_axes("Reliability", "probability of being fake, as told", "share that is fake")
    files = predictions[predictions["split"] == "test"]
    if "probability" not in files or files.empty:
        return show_message(figure, axes, "No probabilities: there is no calibration.")
    if files["label"].nunique() < 2:  # of fakes alone, all are fake whatever is told
        return show_message(figure, axes, "Not drawn: it takes reals and fakes in the test.")
    rows = calibration.reliability(files["label"], files["probability"])
    error = calibration.calibration_error(files["label"], files["probability"])
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5, label="taken at its word")
    axes.plot(rows["predicted"], rows["observed"], color=INK, linewidth=1, alpha=0.5)
    size = 20 + 280 * rows["n"] / rows["n"].max()
    axes.scatter(rows["predicted"], rows["observed"], s=size, color=INK, alpha=0.75, edgecolor="white", clip_on=False,
                 label=f"test: calibration error {error:.3f}", zorder=3)
    return finish_axes(figure, axes, legend="upper left", square=True)


def sources(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """How well each kind of fake in the test is told from all the reals. Bars start at chance; the thin line is the 95
    % interval."""
    files = predictions[predictions["split"] == "test"]
    found = {name: row for name, row in metrics.metrics_by_source(files, threshold).items() if row["auc"] is not None}
    figure, axes = create_axes("AUC by source", "AUC against all reals", "", height=1.6 + 0.42 * max(4, len(found)))
    if not found:
        return show_message(figure, axes, "Not drawn: it takes reals and fakes in the test.")
    ranked = sorted(found.items(), key=lambda item: item[1]["auc"])
    for place, (_, row) in enumerate(ranked):
        axes.barh(place, row["auc"] - 0.5, left=0.5, height=0.6, color=FAKE, alpha=0.8)
        low, high = row["auc_interval"] or (row["auc"], row["auc"])
        axes.plot([low, high], [place, place], color=INK, linewidth=1.5)
        side = axes.get_yaxis_transform()
        axes.text(1.015, place, f"{row['auc']:.3f}", va="center", fontsize=10, color=INK, transform=side)
    axes.set_yticks(range(len(ranked)), [f"{shorten(name)} ({row['n_fake']})" for name, row in ranked])
    axes.axvline(0.5, color=INK, linewidth=1)
    lowest = min(min(row["auc"], *(row["auc_interval"] or [1])) for row in found.values())
    axes.set_xlim(min(0.45, lowest - 0.02), 1.0)
    axes.grid(False, axis="y")
    return figure


def history(table: pd.DataFrame, picked: int | None = None) -> Figure:
    """How training went, epoch by epoch; the vertical line is the epoch that was kept, picked on validation. Where the
    validation curve turns away from the training curve, the detector learns its files by heart.

    `table` has a row an epoch: `epoch`, and for each quantity a column such as `loss` and perhaps `val_loss`.
    """
    names = [name for name in table.columns if name != "epoch" and not name.startswith("val_")]
    judged = [name for name in names if f"val_{name}" in table]  # leaves out the learning rate and the like
    names = sorted(judged or names, key=lambda name: name != "loss")[:3]
    figure, panels = create_axes("", "epoch", "", width=4.2 * max(1, len(names)) + 0.4, columns=max(1, len(names)))
    for axes, name in zip(np.atleast_1d(panels), names, strict=False):
        axes.set_title(name, fontsize=12, weight="bold", loc="left", color=INK)
        for split, column in (("training", name), ("validation", f"val_{name}")):
            if column in table:
                there = table[table[column].notna()]  # not every epoch is judged
                axes.plot(there["epoch"], there[column], marker="o", markersize=3, label=split, **SPLIT_STYLES[split])
        if picked is not None:
            axes.axvline(picked, color=INK, linewidth=1.2, linestyle="--", label=f"kept: epoch {picked}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=9)
    return figure


def shortcuts(aucs: Mapping[str, float], suspect: float, fatal: float) -> Figure:
    """How well each cheap property of the files, by itself, tells fake from real on files held out; 0.5 is chance. From the
    dashed line on it is suspect; beyond the solid one a detector learns it in place of the fake."""
    ranked = sorted(aucs.items(), key=lambda item: item[1])
    figure, axes = create_axes("AUC of shortcuts", "AUC", "", width=10, height=1.2 + 0.26 * max(3, len(ranked)))
    if not ranked:
        return show_message(figure, axes, "Not drawn: it takes reals and fakes in several groups.")
    for place, (_, auc) in enumerate(ranked):
        axes.barh(place, auc - 0.5, left=0.5, height=0.7, color=FAKE if auc > suspect else FAINT, alpha=0.85)
        axes.text(1.01, place, f"{auc:.3f}", va="center", fontsize=9, color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(ranked)), [name.replace("_", " ") for name, _ in ranked])
    for at, style in ((0.5, "-"), (suspect, "--"), (fatal, "-")):
        axes.axvline(at, color=INK, linewidth=1, linestyle=style)
    axes.set_xlim(min(0.45, ranked[0][1] - 0.02), 1.0)
    axes.grid(False, axis="y")
    return figure


def _splits_with_both_classes(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The splits that hold both classes, with their files."""
    parts = [(split, predictions[predictions["split"] == split]) for split in SPLITS]
    return [(split, files) for split, files in parts if files["label"].nunique() == 2]


def _auc(files: pd.DataFrame) -> float:
    return metrics.auc(files["label"], files["score"]) or 0.0
