"""Figures and tables for a one-class detector: an autoencoder that learnt to rebuild reals, and reals only.

Labels (files,) are 0 real, 1 fake; scores (files,) are finite, higher is more likely fake, in no unit. Errors are |x - x^|,
the distance of a picture from its reconstruction, in grey levels of 0..255. `canvas.caption` gives the caption of each plot.
What cannot be shown, such as one class alone, is a sentence in place of the plot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation import metrics
from tfdetect.plots.style import CLASSES, FAINT, FAKE, INK, REAL, create_axes, finish_axes, image_grid, show_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACTIVE_KL = 0.01  # nats: a latent number with less says nothing of the picture
MAX_CURVES = 8  # of precision and recall in one panel: more hide each other
MAX_COLUMNS = 10  # of a gallery
Pair = tuple[ArrayLike, ArrayLike]
Checked = tuple[NDArray[np.int64], NDArray[np.float64]]
ONE_CLASS_MESSAGE = "Not drawn: it takes reals and fakes."


def score_densities(scores: ArrayLike, labels: ArrayLike, name: str = "score") -> Figure:
    """How the scores of reals and of fakes are spread: each area sums to one, however many files it stands for. The less the
    two overlap, the better. What lies beyond the left or the right end is counted in the last bar there.

    `scores` and `labels` are (files,), `name` what the scores are called. The bins, the same for both, span the 0.5th to the
    99.5th percentile of either class: one of hundreds of files, far out, would squeeze all others into one bar.
    """
    label, score = _check_scores(labels, scores)
    figure, axes = create_axes(f"Files by {name}", f"{name}: the higher, the more likely fake", "density")
    if len(set(label)) < 2:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    ends = np.array([np.quantile(score[label == kind], (0.005, 0.995)) for kind in (0, 1)])
    room = 0.5 if np.ptp(ends) <= 1e-9 * np.abs(ends).max() else 0  # all alike: too narrow for bins
    low, high = ends.min() - room, ends.max() + room
    for kind, text, color in CLASSES:
        values = np.clip(score[label == kind], low, high)
        drawn: dict[str, Any] = {"bins": np.linspace(low, high, 41), "density": True, "color": color}
        axes.hist(values, alpha=0.3, **drawn)
        axes.hist(values, histtype="step", linewidth=1.8, label=f"{text} ({len(values)})", **drawn)
    return finish_axes(figure, axes, legend="best")


def precision_recall_by_epoch(judged: Mapping[int, Pair], chosen: int) -> Figure:
    """Of the files that are flagged, how many are fake (up), as more and more of the fakes are found (right), after several
    epochs: light is early, dark late, the thick line the epoch that was chosen. AP is the area under a curve; the dotted line
    is what flagging at random gets.

    `judged` is {epoch: (labels, scores), ...}, both (files,); `chosen` is one of its epochs. Of more than CURVES epochs some
    are drawn, evenly, and a second panel has the area over all of them.
    """
    found = {epoch: pair for epoch, pair in _check_epochs(judged).items() if len(set(pair[0])) == 2}
    if judged and chosen not in judged:
        raise ValueError(f"The chosen epoch must be one of those that were judged, {sorted(judged)}; got {chosen}.")
    many = len(found) > MAX_CURVES
    figure, panels = create_axes("Precision and recall", "fakes found (recall)", "flagged files that are fake (precision)",
                           width=11.4 if many else 6.8, columns=1 + many)  # fmt: skip
    axes = np.atleast_1d(panels)[0]
    if not found:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    area = {epoch: metrics.average_precision(*pair) for epoch, pair in found.items()}
    _plot_curves(axes, found, area, chosen)
    if many:
        _plot_average_precision(panels[1], area, chosen)
    return _legend_outside(figure, axes)


def average_precision_table(judged: Mapping[int, Pair]) -> pd.DataFrame:
    """One row a judged epoch, in order: epoch, area under precision and recall (average precision of the fakes), AUC; both 0..1,
    None (or NaN) where the files are of one class. `judged` is that of `precision_recall_by_epoch`."""
    rows = [(epoch, metrics.average_precision(*pair), metrics.auc(*pair)) for epoch, pair in _check_epochs(judged).items()]
    return pd.DataFrame(rows, columns=["epoch", "area under precision and recall", "AUC"])


def f1_over_threshold(parts: Mapping[str, Pair], threshold: float) -> Figure:
    """How good the decisions would be at any other threshold: F1, the harmonic mean of precision and recall, of the fakes
    (orange) and of the reals (blue). Dashes are validation, which chose the threshold at the vertical line. Where the test
    has its top elsewhere, the threshold does not carry over.

    `parts` is {"test": (labels, probabilities 0..1), ...}, both (files,); fake is what has probability >= `threshold`, 0..1.
    """
    figure, axes = create_axes("F1 by threshold", "threshold on the probability", "F1", width=6.8)
    checked = {name: _check_scores(*pair) for name, pair in parts.items()}
    told = np.concatenate([[threshold], *(probability for _, probability in checked.values())])
    if not (told.min() >= 0 and told.max() <= 1):
        raise ValueError(f"Expected a threshold and probabilities in 0..1, got {told.min():.3g} to {told.max():.3g}.")
    if all(len(set(label)) < 2 for label, _ in checked.values()):
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    at = np.union1d(np.linspace(0, 1, 399), threshold)
    for name, (label, probability) in checked.items():
        if len(set(label)) < 2:
            axes.plot([], [], " ", label=f"{name}: not drawn, one class only")
            continue
        look: dict[str, Any] = {"linestyle": "--", "linewidth": 1.5, "alpha": 0.6} if name == "validation" else {"linewidth": 2}
        for values, kind, color in zip(_f1_scores(label, probability, at), ("fake", "real"), (FAKE, REAL), strict=True):
            axes.plot(at, values, color=color, label=f"{name}, {kind}: {values[at == threshold][0]:.3f}", **look)
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=":")
    return _legend_outside(figure, axes, title=f"F1 at threshold {threshold:.3g}")


def gallery(pictures: ArrayLike, again: ArrayLike, title: str) -> Figure:
    """Pictures, what the detector rebuilt of them, and what it missed: the difference, the brighter the larger, on one scale for
    the row, and the spectrum of the difference. There the middle is what changes slowly across the picture, the rim what
    changes from pixel to pixel; stars and grids are traces that repeat.

    `pictures` (n, height, width, 3) uint8 RGB 0..255, `again` the same as float, clipped for showing only; COLUMNS of them are
    shown. Difference: mean of |x - x^| over channels. Spectrum: slice of zero channel frequency of `log_spectrum` of |x - x^|.
    """
    shown, rebuilt = np.asarray(pictures)[:MAX_COLUMNS], np.asarray(again)[:MAX_COLUMNS].astype(np.float64)
    if len(shown) == 0 == len(rebuilt):
        return show_message(*create_axes(title, "", ""), "Not drawn: there are no pictures.")
    came, back = np.shape(pictures), np.shape(again)
    if came != back or came[3:] != (3,) or shown.dtype != np.uint8 or not np.isfinite(rebuilt).all():
        raise ValueError(f"Expected uint8 (n, height, width, 3) and finite floats alike, got {shown.dtype} {came} and {back}.")
    errors = np.abs(shown - rebuilt)
    difference, spectra = errors.mean(axis=-1), np.stack([log_spectrum(error)[..., 1] for error in errors])
    white, (dark, bright) = difference.max(), np.quantile(spectra, (0.05, 0.999))  # zero, the mean, outshines all others
    rows = [("picture", shown, {}), ("rebuilt", np.clip(np.round(rebuilt), 0, 255).astype(np.uint8), {}),
            (f"difference,\nwhite: {white:.3g}\ngrey levels", difference, {"cmap": "gray", "vmin": 0, "vmax": white}),
            ("its spectrum", spectra, {"cmap": "magma", "vmin": dark, "vmax": bright})]
    return image_grid(rows, title)


def log_spectrum(error: ArrayLike) -> NDArray[np.float64]:
    """The discrete Fourier transform of an error (height, width, 3) over all three axes, as log(1 + amplitude), of that shape.

    Amplitude: |sum over y, x, c of error[y, x, c] exp(-2 pi i (u y / height + v x / width + w c / 3))|, in the unit of the error.
    Frequency zero is in the middle of each axis, at (height // 2, width // 2, 1); [..., 1], the slice of zero frequency along the
    channels, is what `gallery` shows.
    """
    values = np.asarray(error, np.float64)
    if values.ndim != 3:
        raise ValueError(f"Expected an error (height, width, 3), got {values.shape}.")
    return np.log1p(np.abs(np.fft.fftshift(np.fft.fftn(values))))


def radial_power(errors: ArrayLike) -> NDArray[np.float64]:
    """Power by frequency of errors (n, height, width, 3) or (n, height, width): (n, bins), bins = min(height, width) // 2.

    log10 of the mean of |2-D DFT|^2, at least 1e-9 squared units of the error, of the mean over channels less its mean over the
    picture. Ring k, from 0, is above k / (2 bins) and up to (k + 1) / (2 bins) cycles per pixel: 0 to 0.5, but zero itself.
    """
    values = np.asarray(errors)
    if values.ndim not in (3, 4) or min(values.shape[1:3]) < 2:
        raise ValueError(f"Expected errors (n, height, width, 3) or (n, height, width) of 2 pixels or more, got {values.shape}.")
    height, width = values.shape[1:3]
    bins = min(height, width) // 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    ring = np.ceil(frequency * 2 * bins - 1e-9).astype(int) - 1  # k / n times n may come out just above k
    inside = (ring >= 0) & (ring < bins)
    size = np.bincount(ring[inside], minlength=bins)
    out = np.empty((len(values), bins))
    for place, value in enumerate(values):  # one by one: as many transforms at once take gigabytes
        flat = np.asarray(value, np.float64) if value.ndim == 2 else value.mean(axis=-1, dtype=np.float64)
        power = np.abs(np.fft.fft2(flat - flat.mean())) ** 2
        out[place] = np.bincount(ring[inside], power[inside], minlength=bins) / size
    return np.log10(np.maximum(out, 1e-9))


def radial_spectrum(errors: ArrayLike, labels: ArrayLike) -> Figure:
    """How much of what the detector could not rebuild is coarse (left) and how much is fine (right), in reals and in fakes: the
    line is the median, the band holds the middle 80 % of the files. Generators often leave too much or too little of the fine.

    `errors` are those of `radial_power`, of test files; `labels` (n,).
    """
    powers = radial_power(errors)
    label, _ = _check_scores(labels, powers.sum(axis=1))  # a sum is finite where all of it is
    figure, axes = create_axes("Errors by spatial frequency", "cycles per pixel", "log10 of power")
    if len(set(label)) < 2:
        return show_message(figure, axes, ONE_CLASS_MESSAGE)
    middle = (np.arange(powers.shape[1]) + 0.5) / (2 * powers.shape[1])
    for kind, name, color in CLASSES:
        low, median, high = np.quantile(powers[label == kind], (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(middle, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(middle, median, color=color, linewidth=2, label=f"{name} ({(label == kind).sum()})")
    axes.set_xlim(0, 0.5)
    return finish_axes(figure, axes, legend="best")


def latent_kl(kl: ArrayLike) -> tuple[Figure, pd.DataFrame]:
    """What each number of the latent code tells of a picture, the most telling first. Those under the dashed line are not used:
    there the code is noise. Where all are, the detector rebuilds the same average of whatever it sees.

    `kl` (dimensions,): mean KL divergence of each latent number from its prior over the reals of validation, in nats. The
    figure shows 1e-6 nats for less; the table is one row: latent numbers, how many have more than ACTIVE, the sum in nats.
    """
    values = _check_kl(kl)
    active = int((values > ACTIVE_KL).sum())
    table = pd.DataFrame([{"latent numbers": len(values), f"of them active (KL above {ACTIVE_KL} nats)": active,
                           "sum of KL in nats": float(values.sum())}])  # fmt: skip
    figure, axes = create_axes("Latent numbers in use", "latent numbers, by KL", "KL divergence in nats")
    if not len(values):
        return show_message(figure, axes, "Not drawn: there are no latent numbers."), table
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) <= 64 else {}
    axes.plot(np.arange(1, len(values) + 1), np.maximum(np.sort(values)[::-1], 1e-6), color=INK, linewidth=2, **marker)
    axes.axhline(ACTIVE_KL, color=FAINT, linewidth=1.2, linestyle="--", label=f"{ACTIVE_KL} nats: {active} above")
    axes.set(yscale="log", ylim=(5e-7, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return finish_axes(figure, axes, legend="best"), table


def has_collapsed(kl: ArrayLike) -> bool:
    """Whether the code says nothing: no latent number is active, that is has more than ACTIVE nats, or fewer than 1 % are.
    `kl` is that of `latent_kl`."""
    values = _check_kl(kl)
    active = int((values > ACTIVE_KL).sum())
    return active == 0 or 100 * active < len(values)


def _plot_curves(axes: Axes, found: Mapping[int, Checked], area: Mapping[int, float | None], chosen: int) -> None:
    """The chosen epoch's curve, that of the first, of the last, and of some between: CURVES at most."""
    from matplotlib import colormaps
    from sklearn.metrics import precision_recall_curve

    even = np.linspace(0, len(found) - 1, MAX_CURVES - 1).round()
    shown = [epoch for place, epoch in enumerate(found) if len(found) <= MAX_CURVES or place in even or epoch == chosen]
    for place, epoch in enumerate(shown):
        precision, recall, _ = precision_recall_curve(*found[epoch])
        shade = colormaps["Greens"](0.25 + 0.5 * place / max(1, len(shown) - 1))  # neither class's colour, nor the chosen's
        thick = epoch == chosen
        axes.plot(recall, precision, drawstyle="steps-post", color=INK if thick else shade, linewidth=2.5 if thick else 1.2,
                  zorder=3 if thick else 2, label=f"epoch {epoch}: AP {area[epoch]:.3f}" + ", chosen" * thick)  # fmt: skip
    share = found[shown[-1]][0].mean()
    axes.axhline(share, color=FAINT, linewidth=1, linestyle=":", label=f"chance: {share:.3f}")


def _plot_average_precision(axes: Any, area: Mapping[int, float | None], chosen: int) -> None:
    axes.set_title("Area by epoch", fontsize=12, weight="bold", loc="left", color=INK)
    axes.set(xlabel="epoch", ylabel="area under precision and recall (AP)")
    axes.plot(list(area), list(area.values()), color=FAINT, linewidth=1.5, marker="o", markersize=3)
    axes.plot(chosen, area.get(chosen, np.nan), "o", color=INK, markersize=8, label=f"chosen: epoch {chosen}")
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _legend_outside(figure: Figure, axes: Axes, title: str | None = None) -> Figure:
    """Curves of shares over shares, with the legend on their right: inside it would hide them."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    style: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "alignment": "left"}
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=title, **style)
    return figure


def _f1_scores(label: NDArray[np.int64], probability: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of fake and F1 of real, (2, thresholds), where fake is what has probability >= threshold; both classes are there."""
    passed_real, missed = (np.searchsorted(np.sort(probability[label == kind]), at, "left") for kind in (0, 1))
    found, wrong = (label == 1).sum() - missed, (label == 0).sum() - passed_real + missed
    return np.stack([2 * found / (2 * found + wrong), 2 * passed_real / (2 * passed_real + wrong)])


def _check_epochs(judged: Mapping[int, Pair]) -> dict[int, Checked]:
    return {epoch: _check_scores(*judged[epoch]) for epoch in sorted(judged)}


def _check_kl(kl: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(kl, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"Expected a finite KL divergence a latent number (dimensions,), got {values.shape}. Look for NaN.")
    return values


def _check_scores(labels: ArrayLike, scores: ArrayLike) -> Checked:
    """Labels and scores as arrays. ValueError for what they must not be."""
    label, score = np.asarray(labels), np.asarray(scores, np.float64)
    if label.ndim != 1 or label.shape != score.shape or not np.isin(label, (0, 1)).all() or not np.isfinite(score).all():
        raise ValueError(f"Expected a label 0 or 1 and a finite number for each file, got {label.shape} and {score.shape} of "
                         f"them, or other values. Look for NaN.")  # fmt: skip
    return label.astype(np.int64), score
