"""Figures and tables for a detector that learns on stored features: where the classes lie in them, what training moved.

Features are (files, dimensions) of finite numbers in no unit; labels (files,) are 0 real, 1 fake. `canvas.caption` gives the
caption of each plot. What cannot be shown, such as two components of two files, is a sentence in place of the plot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation import metrics
from tfdetect.plots.style import CLASSES, FAINT, GREEN, INK, PURPLE, create_axes, finish_axes, draw_matrix, show_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANCE_SHARE = 0.9  # of the variance, for which components are counted
MAX_POINTS = 3000  # points of a scatter: more hide each other
MAX_TSNE_POINTS = 1000  # points of t-SNE, whose time grows faster than they do
Pair = tuple[ArrayLike, ArrayLike]


def pca(features: ArrayLike, labels: ArrayLike) -> Figure:
    """The features from the two sides on which they differ most: their first two principal components. Where real and fake
    lie apart, a straight cut separates them already; where they do not, other components still may."""
    points, label = _check_features(features, labels)
    figure, axes = create_axes("Principal components", "", "")
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    found = _fit_pca(points)
    flat = found.transform(points)[:, :2]
    names = [f"{nth} component, {share:.1%} of the variance"
             for nth, share in zip(("first", "second"), found.explained_variance_ratio_, strict=False)]
    axes.set(xlabel=names[0], ylabel=names[1])
    return _scatter(figure, axes, flat, label, balanced_sample(label, MAX_POINTS))


def explained_variance(features: ArrayLike) -> Figure:
    """How many directions the features take up: the share of their variance that the first components hold together. The
    dashed line stands at 90 %; the sooner the curve is there, the fewer numbers tell most of what there is."""
    points, _ = _check_features(features)
    figure, axes = create_axes("Variance by components", "components", "share of the variance, together")
    if reason := _reason_not_drawn(points, least=1):
        return show_message(figure, axes, reason)
    shares = np.cumsum(_fit_pca(points).explained_variance_ratio_)
    enough = _components_needed(shares)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(shares) <= 30 else {}
    axes.plot(np.arange(1, len(shares) + 1), shares, color=INK, linewidth=2, **marker)
    axes.axvline(enough, color=FAINT, linewidth=1.2, linestyle="--", label=f"{VARIANCE_SHARE:.0%}: {enough} components")
    if len(shares) > 30:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, 1.02)
    return finish_axes(figure, axes, legend="best")


def explained_variance_table(features: ArrayLike) -> pd.DataFrame:
    """One row: files, dimensions, the share of the first component, and the components for 90 %; None where all files have
    the same features. There are never more components than files less one."""
    points, _ = _check_features(features)
    first, enough = None, None
    if not _reason_not_drawn(points, least=1):
        shares = _fit_pca(points).explained_variance_ratio_
        first, enough = float(shares[0]), _components_needed(np.cumsum(shares))
    row = {"files": len(points), "dimensions": points.shape[1], "share of the first component": first,
           f"components for {VARIANCE_SHARE:.0%}": enough}
    return pd.DataFrame([row], dtype=object)


def tsne(features: ArrayLike, labels: ArrayLike, seed: int = 0) -> Figure:
    """Neighbours in the features are neighbours here. Where fakes lie among reals, the features take them for alike. How far
    groups lie apart and how wide they are says nothing.

    Of at most NEIGHBOURS files, drawn by `seed`. L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    points, label = _check_features(features, labels)
    figure, axes = create_axes("Neighbourhoods (t-SNE)", "", "")
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    chosen = balanced_sample(label, MAX_TSNE_POINTS, seed)
    points, label = points[chosen], label[chosen]
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    flat = _fit_pca(points).transform(points)[:, :50]  # the authors' own first step; the rest is mostly noise
    perplexity = min(30.0, (len(flat) - 1) / 3)
    with threadpool_limits(1):  # several threads that wait for each other took five times as long on two busy cores
        placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    axes.set(xticks=[], yticks=[])  # they have no unit
    axes.spines[:].set_visible(False)
    return _scatter(figure, axes, placed, label, np.arange(len(label)))


def distance_histograms(before: Pair, after: Pair) -> Figure:
    """How far a file lies from one of its own class (green) and from one of the other (purple), before training and after.
    Training should pull the green to the left of the purple."""
    figure, panels = create_axes("", "distance", "density", width=9.6, height=3.8, columns=2)
    for axes, title, pair in zip(panels, ("Before training", "After training"), (before, after), strict=True):
        same, other = (np.asarray(values, np.float64).ravel() for values in pair)
        if len(same) != len(other) or not all(np.isfinite(values).all() and (values >= 0).all() for values in (same, other)):
            raise ValueError(f"Expected as many distances to the same class as to the other, finite and from 0 up; got "
                             f"{len(same)} and {len(other)} of them {title.lower()}. Look for NaN.")  # fmt: skip
        axes.set_title(title, fontsize=12, weight="bold", loc="left", color=INK)
        if not len(same):
            show_message(figure, axes, "Not drawn: there are no triplets.")
            continue
        _plot_densities(axes, same, other)
    return figure


def confusion_matrices(parts: Mapping[str, Pair], threshold: float) -> Figure:
    """What the files of each split are (rows) and what they are called (columns), as in training, so in the test. Where the
    training files are told far better than the test's, they were learnt by heart.

    `parts` is {"train": (labels, probabilities 0..1), ...}; fake is what has probability >= `threshold`.
    """
    checked = _check_splits(parts)
    figure, panels = create_axes("", "", "", width=3.7 * len(checked) + 0.3, height=4.2, columns=len(checked))
    for axes, (name, (label, probability)) in zip(np.atleast_1d(panels), checked.items(), strict=True):
        found = metrics.decision_metrics(label, probability, threshold)
        axes.set_title(name, fontsize=12, weight="bold", loc="left", color=INK)
        if found["confusion"] is None:
            show_message(figure, axes, "Not drawn: it holds no files.")
            continue
        axes.set_title(f"{name}: {found['accuracy']:.1%} right", fontsize=12, weight="bold", loc="left", color=INK)
        counts = np.array(list(found["confusion"].values())).reshape(2, 2)
        draw_matrix(figure, axes, counts, ["real", "fake"], ["called real", "called fake"])
    return figure


def metrics_by_split(parts: Mapping[str, Pair], threshold: float) -> pd.DataFrame:
    """One row a split and class: its precision, recall, F1 and files, and the split's accuracy and AUC. None for what is not
    defined. `parts` and `threshold` are those of `confusion_matrices`."""
    rows = []
    for name, (label, probability) in _check_splits(parts).items():
        found = metrics.decision_metrics(label, probability, threshold)
        for kind, text, _ in CLASSES:
            of_class = found["per_class"][text]
            rows.append({"split": name, "class": text, "precision": of_class["precision"], "recall": of_class["recall"],
                         "F1": of_class["f1"], "files": int((label == kind).sum()), "accuracy": found["accuracy"],
                         "AUC": metrics.auc(label, probability)})  # fmt: skip
    return pd.DataFrame(rows)


def balanced_sample(labels: ArrayLike, most: int, seed: int = 0) -> NDArray[np.intp]:
    """At most `most` places in `labels` (files,), in order; as many of each class as it has, or up to half."""
    label, random = np.asarray(labels), np.random.default_rng(seed)
    if len(label) <= most:
        return np.arange(len(label))
    places = [random.permutation(np.flatnonzero(label == kind)) for kind in (0, 1)]
    fakes = min(len(places[1]), max(most // 2, most - len(places[0])))
    return np.sort(np.concatenate([places[0][: most - fakes], places[1][:fakes]]))


def _fit_pca(points: NDArray[np.float64]) -> Any:
    """A fitted PCA of all components."""
    from sklearn.decomposition import PCA

    return PCA(svd_solver="covariance_eigh" if len(points) > points.shape[1] else "full").fit(points)


def _components_needed(shares: NDArray[np.float64]) -> int:
    """How many of the cumulated shares it takes for VARIANCE_SHARE."""
    return int(np.searchsorted(shares, VARIANCE_SHARE - 1e-9) + 1)


def _reason_not_drawn(points: NDArray[np.float64], least: int = 2) -> str:
    """Why there are no `least` components to show; empty if there are."""
    if len(points) <= least or points.shape[1] < least:
        return f"Not drawn: it takes {least + 1} files with {least} features each, at the least."
    return "Not drawn: all files have the same features." if not np.ptp(points, axis=0).any() else ""


def _scatter(figure: Figure, axes: Axes, flat: NDArray[Any], label: NDArray[Any], drawn: NDArray[np.intp]) -> Figure:
    """Points (files, 2) in the colours of their classes. They are drawn in one go and mixed: no class covers the other."""
    order = np.random.default_rng(0).permutation(drawn)
    axes.scatter(flat[order, 0], flat[order, 1], s=14, c=[CLASSES[kind][2] for kind in label[order]], alpha=0.55, linewidth=0)
    for kind, name, color in CLASSES:
        shown = int((label[drawn] == kind).sum())
        axes.scatter([], [], s=30, color=color, label=f"{name} ({shown})")
    return finish_axes(figure, axes, legend="best")


def _plot_densities(axes: Axes, same: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Two histograms of area one over the same bins."""
    kind: dict[str, Any] = {"bins": 40, "range": (0.0, max(same.max(), other.max()) or 1.0), "density": True}
    for values, name, color in ((same, "same class", GREEN), (other, "other class", PURPLE)):
        axes.hist(values, alpha=0.3, color=color, **kind)
        axes.hist(values, histtype="step", linewidth=1.8, color=color, label=f"{name}: {values.mean():.3g} on average", **kind)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", frameon=False, fontsize=9, title=f"nearer to its own: {(same < other).mean():.1%}",
                alignment="left", title_fontsize=9)


def _check_features(features: ArrayLike, labels: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features as float64 and labels as integers. ValueError for what they must not be."""
    points = np.asarray(features, np.float64)
    label = np.zeros(len(points), np.int64) if labels is None else np.asarray(labels)
    if points.ndim != 2 or label.shape != points.shape[:1]:
        raise ValueError(f"Expected features (files, dimensions) and a label for each, got {points.shape} and {label.shape}.")
    if not np.isfinite(points).all() or not np.isin(label, (0, 1)).all():
        raise ValueError("Features must be finite and labels 0 (real) or 1 (fake). Look for NaN.")
    return points, label.astype(np.int64)


def _check_splits(parts: Mapping[str, Pair]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Labels and probabilities of each split as arrays. ValueError for what they must not be."""
    out = {}
    for name, (labels, probabilities) in parts.items():
        label, probability = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
        good = label.shape == probability.shape == (len(label),) and np.isin(label, (0, 1)).all()
        if not good or not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError(f"The {name} split needs a label 0 or 1 and a probability in 0..1 for each file, got "
                             f"{label.shape} and {probability.shape} of them, or other values.")  # fmt: skip
        out[name] = label, probability
    if not out:
        raise ValueError("Expected at least one split, such as {'test': (labels, probabilities)}; got none.")
    return out
