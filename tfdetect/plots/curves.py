"""ROC, DET and precision-recall curves of a predictions table, with 95 % bands, as functions of (predictions, threshold)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.evaluation import curves, metrics
from tfdetect.evaluation.clusters import share_interval
from tfdetect.evaluation.predictions import SPLITS
from tfdetect.plots.style import (
    FAINT,
    GRID,
    INK,
    SPLIT_STYLES,
    add_values,
    create_axes,
    describe,
    finish_axes,
    show_message,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAND = {"color": INK, "alpha": 0.15, "linewidth": 0}
DOT: dict[str, Any] = {"marker": "o", "color": INK, "markersize": 8, "markeredgecolor": "white", "clip_on": False, "zorder": 5}
HOVERED = 60  # points of a curve that show their values, at most
RATES = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-4, 0.1, 31)]))
DET_TICKS = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95])
ONE_CLASS = "Not drawn: no split holds both real and fake files."


def roc(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """The share of fakes found against the share of real files called fake, for every possible threshold, with the 95 % interval
    at each rate. Curves closer to the upper left are better; the dot marks the threshold in use."""
    figure, axes = create_axes("ROC curve", "false positive rate (real files called fake)", "true positive rate (fakes found)")
    if not (splits := _splits_with_both_classes(predictions)):
        return show_message(figure, axes, ONE_CLASS)
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5, label="chance")
    for split, files in splits:
        points = _thresholds(files)
        auc = metrics.auc(files["label"], files["score"])
        axes.plot(points["false"], points["true"], label=f"{split}: AUC {auc:.3f}", **SPLIT_STYLES[split])
        if split == "test":
            if band := curves.roc_band(files, RATES):
                axes.fill_between(RATES, *band, **BAND)
            if used := _rates(files, threshold):
                axes.plot(*used, **DOT)
            some = _spread(points, "false", "true")
            add_values(axes, some["false"], some["true"], _texts(files, some["score"]))
    return finish_axes(figure, axes, legend="lower right", square=True)


def det(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """Both kinds of mistakes against each other, for every possible threshold, with the 95 % interval at each rate. Small rates
    are drawn large: with normally distributed scores, the curve is a straight line. Curves closer to the lower left are better;
    the dot marks the threshold in use.

    The axes are normal deviates (A. Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997),
    as in scikit-learn's `DetCurveDisplay`, which knows no bands. Rates below those that the test can show are drawn at the edge.
    """
    from scipy.special import ndtri

    figure, axes = create_axes("DET curve", "false positive rate (real files called fake)", "miss rate (fakes called real)")
    if not (splits := _splits_with_both_classes(predictions)):
        return show_message(figure, axes, ONE_CLASS)
    fewest = splits[-1][1]["label"].value_counts().min()  # of a class of the test, whose rates are steps of 1 / files
    low, high = DET_TICKS[np.clip(np.searchsorted(DET_TICKS, 0.5 / fewest, "right") - 1, 0, 7)], 0.6

    def place(rates: Any) -> Any:
        return ndtri(np.clip(rates, low, 1 - low))

    for split, files in splits:
        points = _thresholds(files)
        eer = metrics.equal_error_rate(files["label"], files["score"])
        high = high if (eer or 0) < 0.4 else DET_TICKS[-1]  # close to chance, the middle of the curve is above 40 %
        axes.plot(place(points["false"]), place(1 - points["true"]), label=f"{split}: EER {eer:.3f}", **SPLIT_STYLES[split])
        if split == "test":
            if band := curves.roc_band(files, RATES):
                axes.fill_between(place(RATES), place(1 - band[1]), place(1 - band[0]), **BAND)
            if used := _rates(files, threshold):
                axes.plot(place(used[0]), place(1 - used[1]), **DOT)
            some = _spread(points[(points["false"] <= high) & (points["true"] >= 1 - high)], "false", "true")
            add_values(axes, place(some["false"]), place(1 - some["true"]), _texts(files, some["score"]))
    for axis in "xy":
        getattr(axes, f"set_{axis}ticks")(ndtri(DET_TICKS), [f"{100 * tick:g} %" for tick in DET_TICKS], fontsize=8)
    axes.tick_params(axis="x", rotation=45)
    axes.set(xlim=ndtri([low, high]), ylim=ndtri([low, high]), aspect="equal")
    return finish_axes(figure, axes, legend="best")


def precision_recall(predictions: pd.DataFrame, threshold: float | None) -> Figure:
    """The share of files called fake that are fake (precision) against the share of fakes found (recall), for every possible
    threshold, with the 95 % interval at each recall. Curves closer to the upper right are better; the dotted line is chance, the
    share of fakes in the test set."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = create_axes("Precision and recall", "recall (fakes found)", "precision (files called fake that are fake)")
    if not (splits := _splits_with_both_classes(predictions)):
        return show_message(figure, axes, ONE_CLASS)
    for split, files in splits:
        precision, recall, thresholds = precision_recall_curve(files["label"], files["score"])
        area = metrics.average_precision(files["label"], files["score"])
        axes.plot(recall, precision, label=f"{split}: AP {area:.3f}", drawstyle="steps-post", **SPLIT_STYLES[split])
        if split == "test":
            axes.axhline(files["label"].mean(), color=FAINT, linewidth=1, linestyle=":")
            recalls = np.linspace(0, 1, 101)
            if band := curves.precision_band(files, recalls):
                axes.fill_between(recalls, *band, **BAND)
            points = pd.DataFrame({"score": thresholds, "recall": recall[:-1], "precision": precision[:-1]})
            some = _spread(points, "recall", "precision")
            add_values(axes, some["recall"], some["precision"], _texts(files, some["score"], with_precision=True))
    return finish_axes(figure, axes, legend="lower left", square=True)


def _splits_with_both_classes(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return (split, files) for each split that holds real and fake files."""
    splits = [(split, predictions[predictions["split"] == split]) for split in SPLITS]
    return [(split, files) for split, files in splits if files["label"].nunique() == 2]


def _thresholds(files: pd.DataFrame) -> pd.DataFrame:
    """Return the corners of the ROC curve: `score`, from which on files are called fake, and the rates `false` and `true`."""
    from sklearn.metrics import roc_curve

    false, true, scores = roc_curve(files["label"], files["score"])
    return pd.DataFrame({"score": scores, "false": false, "true": true})


def _rates(files: pd.DataFrame, threshold: float | None) -> tuple[float, float] | None:
    """Return the false and the true positive rate at a threshold of the probability; None without one."""
    if threshold is None or "probability" not in files:
        return None
    flagged = files["probability"] >= threshold
    return float(flagged[files["label"] == 0].mean()), float(flagged[files["label"] == 1].mean())


def _spread(points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return at most HOVERED of the points of a curve, evenly spaced along it."""
    if len(points) <= HOVERED:
        return points
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(points[x]), np.diff(points[y])))])
    return points.iloc[np.unique(np.searchsorted(along, np.linspace(0, along[-1], HOVERED)))]


def _texts(files: pd.DataFrame, scores: Iterable[float], with_precision: bool = False) -> list[str]:
    """Return what is said of thresholds on hovering: both rates, or recall and precision, with their 95 % intervals."""
    column = "probability" if "probability" in files else "score"
    known = dict(zip(files["score"], files[column], strict=True))
    score, fake, group = files["score"].to_numpy(), files["label"].to_numpy() == 1, pd.factorize(files["group"])[0]
    out = []
    for threshold in scores:
        flagged = score >= threshold
        shares = {"true positive rate": (flagged, fake), "false positive rate": (flagged, ~fake)}
        if with_precision:
            shares = {"recall": (flagged, fake), "precision": (fake, flagged)}
        lines = [f"called fake from {column} {known[threshold]:.3f}" if threshold in known else "no file called fake"]
        lines += [f"{name} {describe(float(hit[of].mean()), share_interval(hit[of], group[of]))}"
                  for name, (hit, of) in shares.items() if of.any()]  # fmt: skip
        out.append("\n".join(lines))
    return out
