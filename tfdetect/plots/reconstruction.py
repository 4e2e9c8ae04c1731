"""Figures and tables for one-class detectors: autoencoders trained to reconstruct real files only.

Labels (files,) are 0 real, 1 fake; scores (files,) are finite, higher is more likely fake, without unit. The reconstruction
error |x - x'| is in grey levels of 0..255. `style.caption` returns the caption of each plot. If there is nothing to draw, such
as a single class, the figure says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation import metrics
from tfdetect.evaluation.calibration import f1_scores
from tfdetect.plots.style import (
    CLASSES,
    FAINT,
    FAKE,
    INK,
    REAL,
    create_axes,
    draw_histogram,
    finish_axes,
    image_grid,
    set_title,
    show_message,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACTIVE_KL = 0.01  # nats; a latent dimension below this carries no information about the image
MAX_CURVES = 8  # precision-recall curves in one panel; more hide each other
MAX_COLUMNS = 10  # of a gallery
Pair = tuple[ArrayLike, ArrayLike]
Checked = tuple[NDArray[np.int64], NDArray[np.float64]]
ONE_CLASS_MESSAGE = "Not drawn: needs real and fake files."


def score_densities(scores: ArrayLike, labels: ArrayLike, name: str = "score") -> Figure:
    """The distribution of the scores of real and fake files. Each area is one, whatever the number of files; the less the two
    overlap, the better. The outermost bars include all values beyond them.

    `scores` and `labels` are (files,); `name` is the name of the score. Both classes share their bins, which span the 0.5th to
    the 99.5th percentile of either class: otherwise a single outlier would squeeze all other files into one bar.
    """
    label, score = _check_scores(labels, scores)
    figure, axes = create_axes(f"Files by {name}", f"{name} (higher: more likely fake)", "density")
    if len(set(label)) < 2:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    ends = np.array([np.quantile(score[label == kind], (0.005, 0.995)) for kind in (0, 1)])
    margin = 0.5 if np.ptp(ends) <= 1e-9 * np.abs(ends).max() else 0  # equal scores: the range would be too narrow for bins
    low, high = ends.min() - margin, ends.max() + margin
    for kind, text, color in CLASSES:
        values = np.clip(score[label == kind], low, high)
        options: dict[str, Any] = {"bins": np.linspace(low, high, 41), "density": True, "color": color}
        draw_histogram(axes, values, label=f"{text} ({len(values)})", **options)
    return finish_axes(figure, axes, legend="best")


def precision_recall_by_epoch(validations: Mapping[int, Pair], chosen: int) -> Figure:
    """Precision against recall on validation files after several epochs, from light (early) to dark (late); the thick line is
    the epoch that was kept. AP is the area under a curve; the dotted line is chance.

    `validations` is {epoch: (labels, scores), ...}, both (files,); `chosen` is one of its epochs. Beyond MAX_CURVES epochs a
    regular selection is drawn, and a second panel shows the area for every epoch. Raises ValueError if `chosen` is missing.
    """
    checked = {epoch: pair for epoch, pair in _check_epochs(validations).items() if len(set(pair[0])) == 2}
    if validations and chosen not in validations:
        raise ValueError(f"The chosen epoch must be one of the validated epochs, {sorted(validations)}; got {chosen}.")
    many = len(checked) > MAX_CURVES
    figure, panels = create_axes("Precision and recall", "recall (fakes found)", "precision (files called fake that are fake)",
                                 width=11.4 if many else 6.8, columns=1 + many)  # fmt: skip
    axes = np.atleast_1d(panels)[0]
    if not checked:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    area = {epoch: metrics.average_precision(*pair) for epoch, pair in checked.items()}
    _plot_curves(axes, checked, area, chosen)
    if many:
        _plot_average_precision(panels[1], area, chosen)
    return _legend_outside(figure, axes)


def average_precision_table(validations: Mapping[int, Pair]) -> pd.DataFrame:
    """Return one row per validated epoch, in order: epoch, average precision of the fake class, AUC (both 0..1).

    Metrics are None (or NaN) if the files are of one class. `validations` is that of `precision_recall_by_epoch`.
    """
    rows = [(epoch, metrics.average_precision(*pair), metrics.auc(*pair)) for epoch, pair in _check_epochs(validations).items()]
    return pd.DataFrame(rows, columns=["epoch", "average precision", "AUC"])


def f1_over_threshold(splits: Mapping[str, Pair], threshold: float) -> Figure:
    """F1, the harmonic mean of precision and recall, at every possible threshold, for fakes (orange) and real files (blue).
    Dashed lines are validation files, which chose the threshold (dotted vertical line). If the test curves peak elsewhere, the
    threshold does not carry over to the test set.

    `splits` is {"test": (labels, probabilities 0..1), ...}, both (files,); files with probability >= `threshold` (0..1) are
    called fake. Raises ValueError if a probability or the threshold is outside 0..1.
    """
    figure, axes = create_axes("F1 by threshold", "threshold (probability)", "F1", width=6.8)
    checked = {name: _check_scores(*pair) for name, pair in splits.items()}
    values = np.concatenate([[threshold], *(probability for _, probability in checked.values())])
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"Expected a threshold and probabilities in 0..1, got {values.min():.3g} to {values.max():.3g}.")
    if all(len(set(label)) < 2 for label, _ in checked.values()):
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    thresholds = np.union1d(np.linspace(0, 1, 399), threshold)
    for name, (label, probability) in checked.items():
        if len(set(label)) < 2:
            axes.plot([], [], " ", label=f"{name}: not drawn, only one class")
            continue
        line: dict[str, Any] = {"linestyle": "--", "linewidth": 1.5, "alpha": 0.6} if name == "validation" else {"linewidth": 2}
        scores = f1_scores(probability, label, thresholds)
        for f1, kind, color in zip(scores, ("fake", "real"), (FAKE, REAL), strict=True):
            axes.plot(thresholds, f1, color=color, label=f"{name}, {kind}: {f1[thresholds == threshold][0]:.3f}", **line)
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=":")
    return _legend_outside(figure, axes, title=f"F1 at threshold {threshold:.3g}")


def gallery(images: ArrayLike, reconstructions: ArrayLike, title: str) -> Figure:
    """Images, their reconstructions, the reconstruction error (brighter is larger, with one scale for the row) and its spectrum.
    The centre of a spectrum holds low spatial frequencies, the rim high ones; stars and grids are traces of periodic patterns.

    `images` are uint8 RGB (n, height, width, 3), 0..255; `reconstructions` are floats of the same shape, clipped for display
    only. At most MAX_COLUMNS are shown. The error is the mean of |x - x'| over channels; the spectrum is the slice of
    `log_spectrum` of |x - x'| at zero channel frequency. Raises ValueError if shapes or types do not match.
    """
    shown, rebuilt = np.asarray(images)[:MAX_COLUMNS], np.asarray(reconstructions)[:MAX_COLUMNS].astype(np.float64)
    if len(shown) == 0 == len(rebuilt):
        return show_message(*create_axes(title, "", ""), "Not drawn: there are no images.")
    shape, rebuilt_shape = np.shape(images), np.shape(reconstructions)
    if shape != rebuilt_shape or shape[3:] != (3,) or shown.dtype != np.uint8 or not np.isfinite(rebuilt).all():
        raise ValueError(f"Expected uint8 images (n, height, width, 3) and finite reconstructions of the same shape, got "
                         f"{shown.dtype} {shape} and {rebuilt_shape}.")  # fmt: skip
    errors = np.abs(shown - rebuilt)
    difference, spectra = errors.mean(axis=-1), np.stack([log_spectrum(error)[..., 1] for error in errors])
    white, (dark, bright) = difference.max(), np.quantile(spectra, (0.05, 0.999))  # frequency zero outshines all others
    rows = [("image", shown, {}), ("reconstruction", np.clip(np.round(rebuilt), 0, 255).astype(np.uint8), {}),
            (f"error,\nwhite: {white:.3g}\ngrey levels", difference, {"cmap": "gray", "vmin": 0, "vmax": white}),
            ("spectrum\nof the error", spectra, {"cmap": "magma", "vmin": dark, "vmax": bright})]  # fmt: skip
    return image_grid(rows, title)


def log_spectrum(error: ArrayLike) -> NDArray[np.float64]:
    """Return the amplitude spectrum of an error (height, width, 3) over all three axes, as log(1 + amplitude), same shape.

    Amplitude: |sum over y, x, c of error[y, x, c] exp(-2 pi i (u y / height + v x / width + w c / 3))|, in units of the error.
    Frequency zero is at (height // 2, width // 2, 1); the slice [..., 1] has zero frequency along the channels. Raises
    ValueError unless there are three axes.
    """
    values = np.asarray(error, np.float64)
    if values.ndim != 3:
        raise ValueError(f"Expected an error (height, width, 3), got {values.shape}.")
    return np.log1p(np.abs(np.fft.fftshift(np.fft.fftn(values))))


def radial_power(errors: ArrayLike) -> NDArray[np.float64]:
    """Return the power spectrum of errors (n, height, width[, 3]) by radial frequency: (n, bins), bins = min(height, width) // 2.

    It is log10 of the mean |2-D DFT|^2, at least 1e-9 squared units of the error, of the channel mean minus its mean over the
    image. Bin k, from 0, covers frequencies above k / (2 bins) up to (k + 1) / (2 bins) cycles per pixel: 0 to 0.5, without
    zero itself. Raises ValueError if the shape is wrong or a side is shorter than 2 pixels.

    The score `frequency` has its own spectrum, `ErrorSpectrum`: a matrix product of float32 inside the model, whose 32 rings
    saved models were trained on.
    """
    values = np.asarray(errors)
    if values.ndim not in (3, 4) or min(values.shape[1:3]) < 2:
        raise ValueError(f"Expected errors (n, height, width, 3) or (n, height, width) of 2 pixels or more, got {values.shape}.")
    height, width = values.shape[1:3]
    bins = min(height, width) // 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    ring = np.ceil(frequency * 2 * bins - 1e-9).astype(int) - 1  # k / n * n may be slightly above k
    inside = (ring >= 0) & (ring < bins)
    size = np.bincount(ring[inside], minlength=bins)
    out = np.empty((len(values), bins))
    for index, value in enumerate(values):  # one at a time: transforming all at once takes gigabytes
        grey = np.asarray(value, np.float64) if value.ndim == 2 else value.mean(axis=-1, dtype=np.float64)
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        out[index] = np.bincount(ring[inside], power[inside], minlength=bins) / size
    return np.log10(np.maximum(out, 1e-9))


def radial_spectrum(errors: ArrayLike, labels: ArrayLike) -> Figure:
    """Power of the reconstruction error from low (left) to high spatial frequencies (right), for real and fake files: median and
    central 80 % of the files. Many generators produce too much or too little power at high frequencies.

    `errors` are those of `radial_power`, from test files; `labels` (n,).
    """
    powers = radial_power(errors)
    label, _ = _check_scores(labels, powers.sum(axis=1))  # the sum is finite only if all values are
    figure, axes = create_axes("Error by spatial frequency", "cycles per pixel", "log10 of power")
    if len(set(label)) < 2:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    centres = (np.arange(powers.shape[1]) + 0.5) / (2 * powers.shape[1])
    for kind, name, color in CLASSES:
        low, median, high = np.quantile(powers[label == kind], (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(centres, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(centres, median, color=color, linewidth=2, label=f"{name} ({(label == kind).sum()})")
    axes.set_xlim(0, 0.5)
    return finish_axes(figure, axes, legend="best")


def latent_kl(kl: ArrayLike) -> tuple[Figure, pd.DataFrame]:
    """Information in each latent dimension, in decreasing order. Dimensions below the dashed line are inactive: they carry only
    noise. If all are inactive, the detector reconstructs the same average image from every input.

    `kl` (dimensions,) is the mean KL divergence of each latent dimension from its prior over real validation files, in nats.
    The figure clips values at 1e-6 nats. The table has one row: latent dimensions, those above ACTIVE_KL, and the total KL.
    """
    values = _check_kl(kl)
    active = int((values > ACTIVE_KL).sum())
    table = pd.DataFrame([{"latent dimensions": len(values), f"active (KL above {ACTIVE_KL} nats)": active,
                           "total KL in nats": float(values.sum())}])  # fmt: skip
    figure, axes = create_axes("Active latent dimensions", "latent dimension, ordered by KL", "KL divergence in nats")
    if not len(values):
        return show_message(figure, axes, "Not drawn: there are no latent dimensions."), table
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) <= 64 else {}
    axes.plot(np.arange(1, len(values) + 1), np.maximum(np.sort(values)[::-1], 1e-6), color=INK, linewidth=2, **marker)
    axes.axhline(ACTIVE_KL, color=FAINT, linewidth=1.2, linestyle="--", label=f"{ACTIVE_KL} nats: {active} above")
    axes.set(yscale="log", ylim=(5e-7, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return finish_axes(figure, axes, legend="best"), table


def has_collapsed(kl: ArrayLike) -> bool:
    """Return whether the posterior has collapsed: no latent dimension, or fewer than 1 %, have more than ACTIVE_KL nats.

    `kl` is that of `latent_kl`.
    """
    values = _check_kl(kl)
    active = int((values > ACTIVE_KL).sum())
    return active == 0 or 100 * active < len(values)


def _plot_curves(axes: Axes, checked: Mapping[int, Checked], area: Mapping[int, float | None], chosen: int) -> None:
    """Draw at most MAX_CURVES curves: the chosen, first and last epoch and a regular selection of the others."""
    from matplotlib import colormaps
    from sklearn.metrics import precision_recall_curve

    regular = np.linspace(0, len(checked) - 1, MAX_CURVES - 1).round()
    shown = [epoch for index, epoch in enumerate(checked) if len(checked) <= MAX_CURVES or index in regular or epoch == chosen]
    for index, epoch in enumerate(shown):
        precision, recall, _ = precision_recall_curve(*checked[epoch])
        shade = colormaps["Greens"](0.25 + 0.5 * index / max(1, len(shown) - 1))  # not the colour of a class or of the chosen
        thick = epoch == chosen
        axes.plot(recall, precision, drawstyle="steps-post", color=INK if thick else shade, linewidth=2.5 if thick else 1.2,
                  zorder=3 if thick else 2, label=f"epoch {epoch}: AP {area[epoch]:.3f}" + ", kept" * thick)  # fmt: skip
    share = checked[shown[-1]][0].mean()
    axes.axhline(share, color=FAINT, linewidth=1, linestyle=":", label=f"chance: {share:.3f}")


def _plot_average_precision(axes: Any, area: Mapping[int, float | None], chosen: int) -> None:
    set_title(axes, "Average precision by epoch")
    axes.set(xlabel="epoch", ylabel="average precision (AP)")
    axes.plot(list(area), list(area.values()), color=FAINT, linewidth=1.5, marker="o", markersize=3)
    axes.plot(chosen, area.get(chosen, np.nan), "o", color=INK, markersize=8, label=f"kept: epoch {chosen}")
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _legend_outside(figure: Figure, axes: Axes, title: str | None = None) -> Figure:
    """Set both axes to 0..1 and put the legend to the right, where it does not hide curves. Returns the figure."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    style: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "alignment": "left"}
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=title, **style)
    return figure


def _check_epochs(validations: Mapping[int, Pair]) -> dict[int, Checked]:
    return {epoch: _check_scores(*validations[epoch]) for epoch in sorted(validations)}


def _check_kl(kl: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(kl, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"Expected a finite KL divergence for each latent dimension, got {values.shape}. Look for NaN.")
    return values


def _check_scores(labels: ArrayLike, scores: ArrayLike) -> Checked:
    """Return labels as int64 and scores as float64. Raises ValueError if shapes do not match or values are invalid."""
    label, score = np.asarray(labels), np.asarray(scores, np.float64)
    if label.ndim != 1 or label.shape != score.shape or not np.isin(label, (0, 1)).all() or not np.isfinite(score).all():
        raise ValueError(f"Expected a label 0 or 1 and a finite number for each file; got shapes {label.shape} and "
                         f"{score.shape}, or invalid values. Look for NaN.")  # fmt: skip
    return label.astype(np.int64), score
