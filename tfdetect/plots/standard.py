"""Standard figures of a predictions table.

Each plot is a function of (predictions, threshold). The first paragraph of its docstring is its caption in the report. To add
a plot, write a function here and add its name to `STANDARD`. The common style is in `style`, the curves are in `curves`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.evaluation import calibration, metrics
from tfdetect.evaluation.predictions import by_file
from tfdetect.files import plural
from tfdetect.plots import curves
from tfdetect.plots import style as plots_style
from tfdetect.plots.style import (
    CLASSES,
    FAINT,
    FAKE,
    GRID,
    INK,
    SPLIT_STYLES,
    add_values,
    create_axes,
    describe,
    draw_histogram,
    draw_matrix,
    finish_axes,
    set_title,
    shorten,
    show_message,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SOURCES = 30  # drawn
BINS = 30  # of the histogram of scores
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STANDARD = ("roc", "det", "precision_recall", "confusion", "scores", "reliability", "scores_by_source", "sources")
PROPERTY_NAMES = {"all": "all properties", "all_container": "all container properties", "jpeg_quality": "JPEG quality",
                  "exif": "EXIF metadata", "fps": "frame rate", "bytes": "file size", "aspect": "aspect ratio"}  # fmt: skip
UNCHANGED = "none"
STRESS_NAMES = {UNCHANGED: "as they are", "jpeg(90)": "JPEG 90", "jpeg(70)": "JPEG 70",
                "jpeg(50)": "JPEG 50", "resize(0.5)": "half size and back", "blur(1)": "blur, sigma 1"}  # fmt: skip
NEEDS_BOTH_CLASSES = "Not drawn: the test set needs real and fake files."


def standard(predictions: pd.DataFrame, threshold: float | None) -> dict[str, Figure]:
    """Return all plots of STANDARD by name. `predictions` may hold validation and test; each file counts once."""
    files = by_file(predictions)
    names = (*STANDARD, "attribution") if metrics.attributed_sources(files) else STANDARD
    return {name: _plot(name)(files, threshold) for name in names}


def caption(name: str) -> str:
    """Return the caption of the plot of that name, or "" if this module has no such plot."""
    return plots_style.caption(_plot(name)) if name in (*STANDARD, "attribution", "history", "shortcuts", "stress") else ""


def _plot(name: str) -> Callable[..., Figure]:
    return getattr(curves, name, None) or globals()[name]


def save_plots(folder: str | PathLike[str], figures: Mapping[str, Figure], taken: Collection[Path] = ()) -> dict[str, Path]:
    """Write each figure to `<name>.png` in the folder, which is created if necessary, and return the paths by name.

    Names that differ only in special characters, and names of files in `taken`, get a number.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for name, figure in figures.items():
        stem = re.sub(r"[^\w-]+", "_", name)[:100] or "figure"
        endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
        candidates = (Path(folder) / f"{stem}{ending}.png" for ending in endings)
        paths[name] = next(path for path in candidates if path not in taken and path not in paths.values())
        paths[name].write_bytes(plots_style.to_png(figure))
    return paths


def property_name(key: str) -> str:
    """Return the name of a file property, a key of shortcuts.json, for a reader."""
    return PROPERTY_NAMES.get(key, key.replace("_", " "))


def scores(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """The distribution of real and fake test files. The less the two overlap, the better; files to the right of the dashed line
    are called fake."""
    column = "probability" if "probability" in predictions else "score"
    figure, axes = create_axes(f"Test files by {column}", f"{column} (higher: more likely fake)", "share of class")
    files = predictions[predictions["split"] == "test"]
    if files.empty:
        return show_message(figure, axes, "Not drawn: there are no test files.")
    span = (0.0, 1.0) if column == "probability" else (float(files[column].min()), float(files[column].max()))
    for label, name, color in CLASSES:
        values = files.loc[files["label"] == label, column]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            options = {"bins": BINS, "range": span, "weights": weights, "color": color}
            draw_histogram(axes, values, label=f"{name} ({len(values)})", **options)
    counts, edges = zip(*(np.histogram(files.loc[files["label"] == label, column], BINS, span) for label in (0, 1)), strict=True)
    ends = list(itertools.pairwise(edges[0]))
    texts = [f"{column} {low:.3f} to {high:.3f}\n{plural(int(real), 'real file')}, {plural(int(fake), 'fake')}"
             for (low, high), real, fake in zip(ends, *counts, strict=True)]  # fmt: skip
    add_values(axes, np.mean(ends, axis=1), np.zeros(BINS), texts, "column")
    if threshold is not None and column == "probability":
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3g}")
    return finish_axes(figure, axes, legend="best")


def scores_by_source(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """The distribution of the test files of each source: the line spans 90 % of the files, the box the middle half, the tick is
    the median. Real files should lie left of the dashed line, fakes right of it. Of many sources, those whose files lie farthest
    on the wrong side are drawn; the number of files is in brackets."""
    column = "probability" if "probability" in predictions else "score"
    files = predictions[predictions["split"] == "test"].fillna({"source": ""})
    by_source = files.groupby(["label", "source"])[column]
    height = 1.6 + 0.36 * max(5, min(MAX_SOURCES, by_source.ngroups))
    figure, axes = create_axes("Test files by source", f"{column} (higher: more likely fake)", "", height=height)
    if files.empty:
        return show_message(figure, axes, "Not drawn: there are no test files.")
    spans, counts = by_source.quantile(QUANTILES).unstack(), by_source.size()
    wrong = spans[0.5] * np.where(spans.index.get_level_values("label") == 1, -1, 1)
    worst = wrong.sort_values(ascending=False, kind="stable").index[:MAX_SOURCES]
    drawn = spans.loc[sorted(worst, key=lambda pair: pair[0])]  # real sources first
    names, texts = [], []
    for place, ((label, source), (least, low, middle, high, most)) in enumerate(zip(drawn.index, drawn.to_numpy(), strict=True)):
        _, kind, color = CLASSES[label]
        axes.plot([least, most], [place, place], color=color, linewidth=1.5)
        axes.barh(place, high - low, left=low, height=0.5, color=color, alpha=0.4)
        axes.plot([middle, middle], [place - 0.25, place + 0.25], color=color, linewidth=2.5)
        count = int(counts[label, source])
        names.append(f"{shorten(source)} ({count})")
        texts.append(f"{source or '(no name)'}: {plural(count, f'{kind} file')}\nmedian {middle:.3f}, half from {low:.3f} to "
                     f"{high:.3f}, 90 % from {least:.3f} to {most:.3f}")  # fmt: skip
    add_values(axes, drawn[0.5], range(len(drawn)), texts, "row")
    if threshold is not None and column == "probability":
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
    for _, kind, color in CLASSES:
        axes.plot([], [], color=color, linewidth=6, alpha=0.4, label=kind)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    axes.set_yticks(range(len(drawn)), names)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(*((-0.02, 1.02) if column == "probability" else (None, None)))
    axes.grid(False, axis="y")
    return figure


def confusion(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Confusion matrix of the test set: true classes in rows, decisions in columns. Each row adds up to 100 %; correct
    decisions are on the diagonal from the upper left."""
    figure, axes = create_axes("Confusion matrix of the test set", "", "")
    files = predictions[predictions["split"] == "test"]
    if threshold is None or "probability" not in files or files.empty:
        return show_message(figure, axes, "Not drawn: the scores are not calibrated, so there are no decisions.")
    result = metrics.decision_metrics(files["label"].to_numpy(), files["probability"].to_numpy(), threshold)
    counts = np.array(list(result["confusion"].values())).reshape(2, 2)
    return draw_matrix(figure, axes, counts, ["real", "fake"], ["called real", "called fake"])


def attribution(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """True sources (rows) and predicted sources (columns) of the fakes in the test set, whether or not they were called fake.
    Each row adds up to 100 %."""
    result = metrics.attribution_metrics(predictions[predictions["split"] == "test"])
    names = [shorten(name) for name in result["classes"]]
    side = 3.0 + 0.75 * len(names)
    figure, axes = create_axes("Sources of the fakes in the test set", "", "", width=side + 1, height=side)
    if not result["n"]:
        return show_message(figure, axes, "Not drawn: the test set holds no fakes from the sources that the detector knows.")
    draw_matrix(figure, axes, np.array(result["confusion"]), names, names)
    axes.tick_params(axis="x", rotation=30)
    return figure


def reliability(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Are the probabilities right? Of the test files rated 80 % likely to be fake, 80 % should be fake: the dots should lie on
    the diagonal. Larger dots stand for more files, thin lines are 95 % intervals."""
    figure, axes = create_axes("Reliability", "predicted probability of being fake", "observed share of fakes")
    files = predictions[predictions["split"] == "test"]
    if "probability" not in files or files.empty:
        return show_message(figure, axes, "Not drawn: the scores are not calibrated, so there are no probabilities.")
    if files["label"].nunique() < 2:  # the observed share would be constant
        return show_message(figure, axes, NEEDS_BOTH_CLASSES)
    rows = calibration.reliability(files["label"], files["probability"], groups=files["group"])
    error = calibration.calibration_error(files["label"], files["probability"])
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5, label="perfectly calibrated")
    axes.plot(rows["predicted"], rows["observed"], color=INK, linewidth=1, alpha=0.5)
    axes.vlines(rows["predicted"], *np.transpose(rows["interval"].to_list()), color=INK, linewidth=1, alpha=0.6)
    texts = [f"{plural(row.n, 'file')}: predicted {row.predicted:.3f}, observed {describe(row.observed, row.interval)}"
             for row in rows.itertuples()]  # fmt: skip
    add_values(axes, rows["predicted"], rows["observed"], texts, "column")
    size = 20 + 280 * rows["n"] / rows["n"].max()
    axes.scatter(rows["predicted"], rows["observed"], s=size, color=INK, alpha=0.75, edgecolor="white", clip_on=False,
                 label=f"test: ECE {error:.3f}", zorder=3)  # fmt: skip
    return finish_axes(figure, axes, legend="lower right", square=True)


def sources(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """AUC of the fakes from each source against all real files in the test set, the lowest at the top; of many sources, only
    those with the lowest AUC are drawn. Bars start at chance; thin lines are 95 % intervals; the number of fakes is in
    brackets."""
    files = predictions[predictions["split"] == "test"]
    by_source = {name: row for name, row in metrics.metrics_by_source(files, threshold).items() if row["auc"] is not None}
    ranked = sorted(by_source.items(), key=lambda item: item[1]["auc"])
    ranked, better = ranked[:MAX_SOURCES], ranked[MAX_SOURCES:]
    title = f"AUC by source: the lowest {MAX_SOURCES} of {len(by_source)}" if better else "AUC by source"
    figure, axes = create_axes(title, "AUC against all real files", "", height=1.6 + 0.42 * max(4, len(ranked) + bool(better)))
    if not by_source:
        return show_message(figure, axes, NEEDS_BOTH_CLASSES)
    for place, (_, row) in enumerate(ranked):
        axes.barh(place, row["auc"] - 0.5, left=0.5, height=0.6, color=FAKE, alpha=0.8)
        low, high = row["auc_interval"] or (row["auc"], row["auc"])
        axes.plot([low, high], [place, place], color=INK, linewidth=1.5)
        side = axes.get_yaxis_transform()
        axes.text(1.015, place, f"{row['auc']:.3f}", va="center", fontsize=10, color=INK, transform=side)
    axes.set_yticks(range(len(ranked)), [f"{shorten(name)} ({row['n_fake']})" for name, row in ranked])
    axes.set_ylim(len(ranked) - 0.4 + bool(better), -0.6)
    if better:
        text = f"{plural(len(better), 'source')} not drawn: AUC {better[0][1]['auc']:.3f} to {better[-1][1]['auc']:.3f}"
        axes.text(0.5, len(ranked), text, va="center", fontsize=10, color=INK)
    axes.axvline(0.5, color=INK, linewidth=1)
    texts = [f"{name or '(no name)'}: {plural(row['n_fake'], 'fake')}\nAUC {describe(row['auc'], row['auc_interval'])}"
             for name, row in ranked]  # fmt: skip
    add_values(axes, [row["auc"] for _, row in ranked], range(len(ranked)), texts, "row")
    lowest = min(min(row["auc"], *(row["auc_interval"] or [1])) for _, row in ranked)
    axes.set_xlim(min(0.45, lowest - 0.02), 1.0)
    axes.grid(False, axis="y")
    return figure


def history(table: pd.DataFrame, picked: int | None = None) -> Figure:
    """Training and validation metrics by epoch. The dashed line marks the epoch that was kept, chosen on validation. A validation
    curve that turns away from the training curve is a sign of overfitting.

    `table` has one row per epoch: `epoch`, and for each metric a column such as `loss` and optionally `val_loss`. `picked` is
    the epoch that was kept.
    """
    names = [name for name in table.columns if name != "epoch" and not name.startswith("val_")]
    validated = [name for name in names if f"val_{name}" in table]  # leaves out the learning rate, for example
    names = sorted(validated or names, key=lambda name: name != "loss")[:3]
    figure, panels = create_axes("", "epoch", "", width=4.2 * max(1, len(names)) + 0.4, columns=max(1, len(names)))
    for axes, name in zip(np.atleast_1d(panels), names, strict=False):
        set_title(axes, name)
        drawn = [(split, column) for split, column in (("training", name), ("validation", f"val_{name}")) if column in table]
        for split, column in drawn:
            rows = table[table[column].notna()]  # validation may not run in every epoch
            axes.plot(rows["epoch"], rows[column], marker="o", markersize=3, label=split, **SPLIT_STYLES[split])
        texts = [f"epoch {row['epoch']:g}\n" + "\n".join(f"{split} {describe(row[column])}" for split, column in drawn)
                 for row in table.to_dict("records")]  # fmt: skip
        add_values(axes, table["epoch"], table[name].fillna(table[name].mean()), texts, "column")
        if picked is not None:
            axes.axvline(picked, color=INK, linewidth=1.2, linestyle="--", label=f"kept: epoch {picked}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=9)
    return figure


def shortcuts(aucs: Mapping[str, float], suspect: float, fatal: float,
              intervals: Mapping[str, Sequence[float] | None] = MappingProxyType({})) -> Figure:  # fmt: skip
    """How well each simple property of a file separates fake from real on its own, measured on held-out files; 0.5 is chance.
    Above the dashed line it is a possible shortcut; above the solid line a detector will learn it instead of the forgery. Thin
    lines are 95 % intervals, of the best property and of all together."""
    ranked = sorted(aucs.items(), key=lambda item: item[1])
    figure, axes = create_axes("AUC of shortcuts", "AUC", "", width=6.4, height=1.2 + 0.26 * max(3, len(ranked)))
    if not ranked:
        return show_message(figure, axes, "Not drawn: measuring shortcuts needs real and fake files, each in several groups.")
    for place, (key, auc) in enumerate(ranked):
        axes.plot(intervals.get(key) or [auc, auc], [place, place], color=INK, linewidth=1.5)
        axes.barh(place, auc - 0.5, left=0.5, height=0.7, color=FAKE if auc > suspect else FAINT, alpha=0.85)
        axes.text(1.01, place, f"{auc:.3f}", va="center", fontsize=9, color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(ranked)), [property_name(key) for key, _ in ranked])
    texts = [f"{property_name(key)}: AUC {describe(auc, intervals.get(key))}" for key, auc in ranked]
    add_values(axes, [auc for _, auc in ranked], range(len(ranked)), texts, "row")
    for position, line in ((0.5, "-"), (suspect, "--"), (fatal, "-")):
        axes.axvline(position, color=INK, linewidth=1, linestyle=line)
    axes.set_xlim(min(0.45, *(min([auc, *(intervals.get(key) or [])]) - 0.02 for key, auc in ranked)), 1.0)
    axes.grid(False, axis="y")
    return figure


def stress(summaries: Mapping[str, Mapping[str, Any]], shortcut: float | None) -> Figure:
    """AUC of altered test files, with 95 % intervals. The dashed line is what file size, format and colour alone reach; the solid
    line is chance.

    `summaries` holds a summary for each key of STRESS_NAMES, with an AUC.
    """
    figure, axes = create_axes("AUC of altered test files", "AUC", "", height=1.2 + 0.4 * len(summaries))
    for place, row in enumerate(summaries.values()):
        low, high = row["auc_interval"] or (row["auc"], row["auc"])
        axes.plot([low, high], [place, place], color=INK, linewidth=1.5)
        axes.plot(row["auc"], place, "o", color=FAKE, markersize=8)
    texts = [f"{STRESS_NAMES[key]}: AUC {describe(row['auc'], row['auc_interval'])}" for key, row in summaries.items()]
    add_values(axes, [row["auc"] for row in summaries.values()], range(len(summaries)), texts, "row")
    axes.set_yticks(range(len(summaries)), [STRESS_NAMES[key] for key in summaries])
    axes.invert_yaxis()
    axes.axvline(0.5, color=INK, linewidth=1)
    if shortcut is not None:
        axes.axvline(shortcut, color=INK, linewidth=1, linestyle="--")
    lows = [min([row["auc"], *(row["auc_interval"] or [])]) for row in summaries.values()]
    axes.set_xlim(min(0.45, shortcut or 1, *lows) - 0.02, 1.01)
    return figure
