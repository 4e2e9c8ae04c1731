"""Figures and tables for detectors that train on stored features: how the classes are arranged, and what training changed.

Features are (files, dimensions), finite and without unit; labels (files,) are 0 real, 1 fake. `style.caption` returns the
caption of each plot. If there is nothing to draw, such as two components of two files, the figure says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation import metrics
from tfdetect.machine import threads_for
from tfdetect.plots.style import (
    CLASSES,
    FAINT,
    GREEN,
    INK,
    PURPLE,
    SPLIT_STYLES,
    create_axes,
    draw_histogram,
    draw_matrix,
    finish_axes,
    set_title,
    shorten,
    show_message,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANCE_SHARE, NEARLY_ALL = 0.9, 0.99  # the numbers of components that explain these shares of the variance are reported
BARS = ("accuracy", "precision", "recall", "F1")
MAX_POINTS = 3000  # in a scatter plot; more points hide each other
MAX_TSNE_POINTS = 1000  # the run time of t-SNE grows faster than linearly
Pair = tuple[ArrayLike, ArrayLike]


def pca(features: ArrayLike, labels: ArrayLike, fitted: Any = None) -> Figure:
    """The files in the two directions of largest variance, the first two principal components. If real and fake form separate
    groups, a linear classifier can separate them; if they overlap here, other components may still separate them.

    `fitted` is `fit_pca(features)`, if it is known already, here and in the functions below.
    """
    points, label = _check_features(features, labels)
    figure, axes = create_axes("Principal components", "", "")
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    fitted = fitted or fit_pca(points)
    with threads_for(points.size):
        projected = fitted.transform(points)[:, :2]
    names = [f"{ordinal} component, {share:.1%} of the variance"
             for ordinal, share in zip(("first", "second"), fitted.explained_variance_ratio_, strict=False)]  # fmt: skip
    axes.set(xlabel=names[0], ylabel=names[1])
    return _scatter(figure, axes, projected, label, balanced_sample(label, MAX_POINTS))


def explained_variance(features: ArrayLike, fitted: Any = None) -> Figure:
    """The share of the variance that the first principal components explain together. The dashed line marks 90 %; the earlier
    the curve reaches it, the fewer dimensions the features really use."""
    points, _ = _check_features(features)
    figure, axes = create_axes("Explained variance", "number of components", "cumulative share of the variance")
    if reason := _reason_not_drawn(points, least=1):
        return show_message(figure, axes, reason)
    shares = np.cumsum((fitted or fit_pca(points)).explained_variance_ratio_)
    needed = _components_needed(shares)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(shares) <= 30 else {}
    axes.plot(np.arange(1, len(shares) + 1), shares, color=INK, linewidth=2, **marker)
    axes.axvline(needed, color=FAINT, linewidth=1.2, linestyle="--", label=f"{VARIANCE_SHARE:.0%}: {needed} components")
    if len(shares) > 30:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, 1.02)
    return finish_axes(figure, axes, legend="best")


def explained_variance_table(features: ArrayLike, fitted: Any = None) -> pd.DataFrame:
    """Return one row: files, dimensions, variance share of the first component, and components needed for 90 and 99 %.

    The last three are None if all files have the same features. There are at most as many components as files minus one.
    """
    points, _ = _check_features(features)
    drawn = not _reason_not_drawn(points, least=1)
    shares = np.cumsum((fitted or fit_pca(points)).explained_variance_ratio_) if drawn else np.empty(0)
    needed = {f"components for {share:.0%} of the variance": _components_needed(shares, share) if drawn else None
              for share in (VARIANCE_SHARE, NEARLY_ALL)}  # fmt: skip
    row = {"files": len(points), "dimensions": points.shape[1],
           "variance share of the first component": float(shares[0]) if drawn else None, **needed}  # fmt: skip
    return pd.DataFrame([row], dtype=object)


def tsne(features: ArrayLike, labels: ArrayLike, seed: int = 0, fitted: Any = None) -> Figure:
    """Files with similar features are close to each other. Where fakes lie among real files, the features do not tell them
    apart. The size of a cluster and the distance between clusters have no meaning.

    Draws at most MAX_TSNE_POINTS files, sampled with `seed`. Source: L. van der Maaten and G. Hinton, "Visualizing data using
    t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE

    points, label = _check_features(features, labels)
    figure, axes = create_axes("Neighbourhoods (t-SNE)", "", "")
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    chosen = balanced_sample(label, MAX_TSNE_POINTS, seed)
    if len(chosen) < len(points):
        fitted = None
    points, label = points[chosen], label[chosen]
    if reason := _reason_not_drawn(points):
        return show_message(figure, axes, reason)
    with threads_for(points.size):  # the authors' own first step; the other components are mostly noise
        projected = (fitted or fit_pca(points)).transform(points)[:, :50]
    perplexity = min(30.0, (len(projected) - 1) / 3)
    with threads_for(projected.size):
        embedded = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(projected)
    axes.set(xticks=[], yticks=[])  # the axes have no unit
    axes.spines[:].set_visible(False)
    return _scatter(figure, axes, embedded, label, np.arange(len(label)))


def distance_histograms(before: Pair, after: Pair) -> Figure:
    """Distance from a file to one of the same class (green) and to one of the other class (purple), before and after training.
    Training should move green to the left of purple.

    Each argument is (distances to the same class, distances to the other class), both (triplets,), non-negative.
    """
    figure, panels = create_axes("", "distance", "density", width=9.6, height=3.8, columns=2)
    for axes, title, pair in zip(panels, ("Before training", "After training"), (before, after), strict=True):
        same, other = (np.asarray(values, np.float64).ravel() for values in pair)
        if len(same) != len(other) or not all(np.isfinite(values).all() and (values >= 0).all() for values in (same, other)):
            raise ValueError(f"Expected equally many distances to the same and to the other class, finite and not negative; got "
                             f"{len(same)} and {len(other)} of them {title.lower()}. Look for NaN.")  # fmt: skip
        set_title(axes, title)
        if not len(same):
            show_message(figure, axes, "Not drawn: there are no triplets.")
            continue
        _plot_densities(axes, same, other)
    return figure


def confusion_matrices(splits: Mapping[str, Pair], threshold: float) -> Figure:
    """Confusion matrix of each split: true classes in rows, decisions in columns. An accuracy that is far higher on training than
    on test files is a sign of overfitting.

    `splits` is {"train": (labels, probabilities 0..1), ...}; files with probability >= `threshold` are called fake.
    """
    checked = _check_splits(splits)
    figure, panels = create_axes("", "", "", width=3.7 * len(checked) + 0.3, height=4.2, columns=len(checked))
    for axes, (name, (label, probability)) in zip(np.atleast_1d(panels), checked.items(), strict=True):
        result = metrics.decision_metrics(label, probability, threshold)
        set_title(axes, name)
        if result["confusion"] is None:
            show_message(figure, axes, "Not drawn: there are no files.")
            continue
        set_title(axes, f"{name}: {result['accuracy']:.1%} correct")
        counts = np.array(list(result["confusion"].values())).reshape(2, 2)
        draw_matrix(figure, axes, counts, ["real", "fake"], ["called real", "called fake"])
    return figure


def set_weights(table: pd.DataFrame) -> Figure:
    """How much each feature set adds to the score, as a share of all of them, and the AUC of the score from this set alone and
    without it. The other sets, or this one, are then at the mean of the training files; nothing is trained again.

    `table` has the columns "feature set", "share", "AUC alone" and "AUC without"; the AUCs may be None.
    """
    rows, places = table.iloc[::-1], np.arange(len(table))
    figure, panels = create_axes("", "", "", width=9.6, height=1.4 + 0.45 * len(rows), columns=2)
    labels = [shorten(str(name)) for name in rows["feature set"]]
    set_title(panels[0], "Share of the score")
    panels[0].barh(places, rows["share"], height=0.6, color=GREEN, alpha=0.8)
    for place, share in zip(places, rows["share"], strict=True):
        panels[0].text(share, place, f" {share:.0%}", va="center", fontsize=9, color=INK)
    set_title(panels[1], "AUC")
    for name, marker, color in (("AUC alone", "o", GREEN), ("AUC without", "D", PURPLE)):
        panels[1].scatter(rows[name].astype(float), places, s=36, marker=marker, color=color, label=name.removeprefix("AUC "))
    panels[1].axvline(0.5, color=FAINT, linestyle=":")
    panels[0].set_xlim(0, 1.12 * max(rows["share"].max(), 0.01))
    panels[1].set(xlim=(min(0.48, rows[["AUC alone", "AUC without"]].astype(float).min().min() - 0.02), 1.01))
    for axes, names in ((panels[0], labels), (panels[1], [])):
        axes.set_yticks(places, names or [""] * len(places))
        axes.set_ylim(-0.6, len(rows) - 0.4)
    return finish_axes(figure, panels[1], legend="best")


def metric_bars(splits: Mapping[str, Pair], threshold: float) -> Figure:
    """Accuracy, and the means of precision, recall and F1 over both classes, in each split. Bars that are far higher for training
    than for test files are a sign of overfitting.

    `splits` and `threshold` are those of `confusion_matrices`. An undefined metric has no bar.
    """
    checked = _check_splits(splits)
    figure, axes = create_axes("Accuracy, precision, recall and F1", "", "", width=9.6, height=3.8)
    width = 0.84 / len(checked)
    for place, (name, (label, probability)) in enumerate(checked.items()):
        result = metrics.decision_metrics(label, probability, threshold)
        values = [np.nan if value is None else value for value in (result["accuracy"], *result["macro"].values())]
        color = SPLIT_STYLES["training" if name == "train" else name]["color"]
        bars = axes.bar(np.arange(len(BARS)) - 0.42 + (place + 0.5) * width, values, 0.94 * width, color=color, label=name)
        axes.bar_label(bars, ["" if np.isnan(value) else f"{value:.1%}" for value in values], fontsize=8, color=INK, padding=2)
    axes.set_xticks(range(len(BARS)), BARS)
    axes.set_ylim(0, 1.25)  # room for the legend
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.grid(False, axis="x")
    axes.legend(loc="upper center", ncols=len(checked), frameon=False, fontsize=9)
    return figure


def metrics_by_split(splits: Mapping[str, Pair], threshold: float) -> pd.DataFrame:
    """Return one row per split and class: precision, recall, F1 and number of files, and the split's accuracy and AUC.

    Undefined metrics are None. `splits` and `threshold` are those of `confusion_matrices`.
    """
    rows = []
    for name, (label, probability) in _check_splits(splits).items():
        result = metrics.decision_metrics(label, probability, threshold)
        for kind, text, _ in CLASSES:
            of_class = result["per_class"][text]
            rows.append({"split": name, "class": text, "precision": of_class["precision"], "recall": of_class["recall"],
                         "F1": of_class["f1"], "files": int((label == kind).sum()), "accuracy": result["accuracy"],
                         "AUC": metrics.auc(label, probability)})  # fmt: skip
    return pd.DataFrame(rows)


def balanced_sample(labels: ArrayLike, size: int, seed: int = 0) -> NDArray[np.intp]:
    """Return at most `size` sorted indices into `labels` (files,), half of them of each class if both have enough files."""
    label, random = np.asarray(labels), np.random.default_rng(seed)
    if len(label) <= size:
        return np.arange(len(label))
    indices = [random.permutation(np.flatnonzero(label == kind)) for kind in (0, 1)]
    fakes = min(len(indices[1]), max(size // 2, size - len(indices[0])))
    return np.sort(np.concatenate([indices[0][: size - fakes], indices[1][:fakes]]))


def fit_pca(features: ArrayLike) -> Any:
    """Return a fitted scikit-learn PCA with all components; None for features of which no components are drawn."""
    from sklearn.decomposition import PCA

    points, _ = _check_features(features)
    if _reason_not_drawn(points, least=1):
        return None
    with threads_for(points.size):
        return PCA(svd_solver="covariance_eigh" if len(points) > points.shape[1] else "full").fit(points)


def _components_needed(shares: NDArray[np.float64], share: float = VARIANCE_SHARE) -> int:
    """Return how many components reach `share` of the variance, from the cumulative shares (components,)."""
    return int(np.searchsorted(shares, share - 1e-9) + 1)


def _reason_not_drawn(points: NDArray[np.float64], least: int = 2) -> str:
    """Return why there are fewer than `least` components, or "" if there are enough."""
    if len(points) <= least or points.shape[1] < least:
        return f"Not drawn: needs at least {least + 1} files with {least} features each."
    return "Not drawn: all files have the same features." if not np.ptp(points, axis=0).any() else ""


def _scatter(figure: Figure, axes: Axes, points: NDArray[Any], label: NDArray[Any], shown: NDArray[np.intp]) -> Figure:
    """Draw points (files, 2) in the colours of their classes, in random order so that no class covers the other."""
    order = np.random.default_rng(0).permutation(shown)
    axes.scatter(points[order, 0], points[order, 1], s=14, c=[CLASSES[kind][2] for kind in label[order]], alpha=0.55, linewidth=0)
    for kind, name, color in CLASSES:
        axes.scatter([], [], s=30, color=color, label=f"{name} ({int((label[shown] == kind).sum())})")
    return finish_axes(figure, axes, legend="best")


def _plot_densities(axes: Axes, same: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Draw two histograms, each of area one, over common bins."""
    options: dict[str, Any] = {"bins": 40, "range": (0.0, max(same.max(), other.max()) or 1.0), "density": True}
    for values, name, color in ((same, "same class", GREEN), (other, "other class", PURPLE)):
        draw_histogram(axes, values, color=color, label=f"{name}: mean {values.mean():.3g}", **options)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", frameon=False, fontsize=9, title=f"closer to the same class: {(same < other).mean():.1%}",
                alignment="left", title_fontsize=9)  # fmt: skip


def _check_features(features: ArrayLike, labels: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return features as float64 and labels as int64. Raises ValueError if shapes do not match or values are invalid."""
    points = np.asarray(features, np.float64)
    label = np.zeros(len(points), np.int64) if labels is None else np.asarray(labels)
    if points.ndim != 2 or label.shape != points.shape[:1]:
        raise ValueError(f"Expected features (files, dimensions) and a label for each, got {points.shape} and {label.shape}.")
    if not np.isfinite(points).all() or not np.isin(label, (0, 1)).all():
        raise ValueError("Features must be finite and labels 0 (real) or 1 (fake). Look for NaN.")
    return points, label.astype(np.int64)


def _check_splits(splits: Mapping[str, Pair]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return labels and probabilities of each split as arrays. Raises ValueError if there is none, or one is invalid."""
    out = {}
    for name, (labels, probabilities) in splits.items():
        label, probability = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
        valid = label.shape == probability.shape == (len(label),) and np.isin(label, (0, 1)).all()
        if not valid or not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError(f"The {name} split needs a label 0 or 1 and a probability in 0..1 for each file; got shapes "
                             f"{label.shape} and {probability.shape}, or invalid values.")  # fmt: skip
        out[name] = label, probability
    if not out:
        raise ValueError("Expected at least one split, such as {'test': (labels, probabilities)}; got none.")
    return out
