"""What another version of a detector changes: figures on the same files before and after, with intervals, and their difference.

Both versions are judged on the same resamples of groups, so the interval of a difference is a paired one. Versions that only
differ in calibration rank files alike, so their AUC is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tfdetect.errors import UserError
from tfdetect.evaluation import calibration, familiarity
from tfdetect.evaluation.calibration import FAKE, INCONCLUSIVE, REAL, Calibration
from tfdetect.evaluation.familiarity import Vectors
from tfdetect.evaluation.intervals import Resamples, TestSet, decision_figures, divide, to_intervals

Array = NDArray[Any]
FOLDS = 5
# Key, name, and whether it takes files of both classes.
FIGURES = (
    ("auc", "AUC", True),
    ("log_loss", "log loss", True),
    ("brier", "Brier score", True),
    ("calibration_error", "expected calibration error", True),
    ("accuracy", "accuracy at the threshold", False),
    ("balanced_accuracy", "balanced accuracy", True),
    ("false_positive_rate", "reals above the threshold", False),
    ("recall", "fakes above the threshold", False),
    ("unfamiliar", "share unlike the training files", False),
    ("inconclusive", "share inconclusive", False),
    ("real_coverage", "reals not called fake (coverage)", False),
    ("fake_coverage", "fakes not called real (coverage)", False),
)


@dataclass(frozen=True, eq=False)
class Judged:
    """What a version says of files, each array (files,)."""

    score: Array
    probability: Array
    """That of being fake, 0..1, at the share of fakes that the calibration was fitted to."""
    fake: Array
    """Whether the probability reaches the threshold."""
    verdict: Array
    """"real", "fake" or "inconclusive"."""
    unfamiliar: Array | None = None
    """Whether the file is marked as unlike the training files; None if the version cannot tell."""

    def marked(self, unfamiliar: Array | None) -> Judged:
        """Return the same with marks, (files,) bool, which make verdicts inconclusive; unchanged for None."""
        if unfamiliar is None:
            return self
        return replace(self, verdict=np.where(unfamiliar, INCONCLUSIVE, self.verdict), unfamiliar=unfamiliar)

    @classmethod
    def by(cls, fitted: Calibration, scores: ArrayLike) -> Judged:
        """Return what a calibration makes of scores, (files,)."""
        own, score = fitted.with_prevalence(None), np.asarray(scores, np.float64)
        probability = own.probability(score)
        return cls(score, probability, probability >= own.threshold, own.verdicts(score))


@dataclass(frozen=True)
class Change:
    """A figure before and after, each with its 95 % interval; None where it is not defined."""

    key: str
    name: str
    before: float | None
    before_interval: list[float] | None
    after: float | None
    after_interval: list[float] | None
    change: float | None
    change_interval: list[float] | None


def compare(labels: ArrayLike, groups: ArrayLike, before: Judged, after: Judged) -> list[Change]:
    """Return the FIGURES of files with these labels (0 real, 1 fake) and groups, both (files,), that are defined for them."""
    label, resamples = np.asarray(labels), Resamples(groups)
    if before.unfamiliar is not None or after.unfamiliar is not None:  # a version that cannot tell marks none
        none = np.zeros(len(label), bool)
        before, after = (each if each.unfamiliar is not None else replace(each, unfamiliar=none) for each in (before, after))
    both = len(np.unique(label)) == 2
    drawn = [_draw(label, judged, resamples) for judged in (before, after)]
    out = []
    for key, name, takes_both in FIGURES:
        if (takes_both and not both) or not all(np.isfinite(each[key][0]) for each in drawn):
            continue
        kind = key if key == "log_loss" else "difference"  # whose range is -1..1
        columns = (drawn[0][key], drawn[1][key], drawn[1][key] - drawn[0][key])
        cells: list[Any] = []
        for place, column in zip((key, key, kind), columns, strict=True):
            value = float(column[0])
            interval = to_intervals({place: column}, {place: value}, resamples.groups)[place]
            cells += [value, interval if resamples.can_vary(label) else None]
        out.append(Change(key, name, *cells))
    return out


def _draw(label: Array, judged: Judged, resamples: Resamples) -> dict[str, Array]:
    """Return the figures of the files and of all resamples of them, each (1 + draws,); NaN where undefined."""
    one = np.zeros(len(label), int)

    def share(hits: Array, kind: int | None = None) -> Array:
        rows = np.flatnonzero(label == kind) if kind is not None else np.arange(len(label))
        total = resamples.total(rows, one[rows], 1)[:, 0]
        return divide(resamples.total(rows, one[rows], 1, hits[rows])[:, 0], total)

    figures = TestSet(label, judged.score, judged.probability, None, resamples).draw()
    marks = np.full(resamples.weights.shape[1], np.nan) if judged.unfamiliar is None else share(judged.unfamiliar)
    decisions = decision_figures(resamples.total(slice(None), 2 * label + judged.fake, 4))
    return {**figures, **decisions,
            "false_positive_rate": share(judged.fake, 0), "recall": share(judged.fake, 1),
            "unfamiliar": marks, "inconclusive": share(judged.verdict == INCONCLUSIVE),
            "real_coverage": share(judged.verdict != FAKE, 0), "fake_coverage": share(judged.verdict != REAL, 1)}  # fmt: skip


def cross_fitted(files: pd.DataFrame, fit: Callable[[pd.DataFrame], Calibration]) -> Judged:
    """Judge each of the files, with the columns score, label and group, by a calibration that `fit` fits to those of other
    groups.

    There are FOLDS folds of whole groups, with the classes spread evenly. Raises UserError if that leaves a class out.
    """
    parts = [(test, Judged.by(fit(files.iloc[train]), files["score"].iloc[test])) for train, test in _folds(files)]
    order = np.argsort(np.concatenate([test for test, _ in parts]), kind="stable")
    columns = ([getattr(part, name) for _, part in parts] for name in ("score", "probability", "fake", "verdict"))
    return Judged(*(np.concatenate(column)[order] for column in columns))


def _folds(files: pd.DataFrame) -> Iterator[tuple[Array, Array]]:
    """Yield (training rows, test rows)."""
    from sklearn.model_selection import StratifiedGroupKFold

    label, group = files["label"].to_numpy(), files["group"].to_numpy()
    for kind, name in enumerate((REAL, FAKE)):
        count = len(np.unique(group[label == kind]))
        if 0 < count < FOLDS:
            raise UserError(f"The {name} files come from {count} groups of related files, and at least {FOLDS} are needed: each "
                            "file is judged by a calibration that knows nothing of its group. Add files, or give --data.group "
                            "file if they are unrelated.")  # fmt: skip
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(files, label, group):
        if {*label[train]} != {*label}:
            raise UserError("Nearly all files of a class are in one group, so no file can be judged by those of other groups: "
                            "add files of other persons, cameras or videos.")  # fmt: skip
        if len(test):
            yield train, test


def cross_fitted_marks(vectors: Vectors, level: float) -> Array | None:
    """Return whether each file, in order of first appearance, is unlike those of other groups, (files,) bool; `level` is that of
    `familiarity.fit`. None if the files of other groups are too few for it."""
    from sklearn.model_selection import GroupKFold

    file, names = pd.factorize(vectors.files)
    distances, marks = np.zeros((2, len(file))), np.zeros(len(names), bool)
    for train, test in GroupKFold(FOLDS).split(file, groups=vectors.groups):
        if familiarity.missing_files(len(np.unique(vectors.groups[train])), level):
            return None
        fitted, rows = familiarity.fit("", vectors[train], level=level), vectors[test]
        distances[:, test] = fitted.content.distances(rows.content), fitted.processing.distances(rows.processing)
        own = np.unique(file[test])
        means = [np.bincount(file, each, len(names))[own] / np.bincount(file, minlength=len(names))[own] for each in distances]
        marks[own] = fitted.reasons(*means) != ""
    return marks


def fit_to_reals(stored: Calibration, scores: ArrayLike, groups: ArrayLike, rule: str) -> Calibration:
    """Return a calibration with what real files alone determine fitted again: the edge of the band of inconclusive scores
    that reals must exceed to be called fake, and the threshold if `rule` reads only reals (quantile, fpr).

    The map to probabilities and the other edge remain. `scores` and `groups` are (files,). Raises UserError if nothing would
    change.
    """
    score, group = np.asarray(scores, np.float64), np.asarray(groups)
    of_reals = rule.startswith(("quantile", "fpr"))
    fitted = calibration.refit(stored, score, np.zeros(len(score), int), group, rule=rule if of_reals else "")
    band = stored.band and calibration.refit_real_edge(stored.band, score, group)
    if not of_reals and (band is None or band == stored.band):
        needed = "no band of inconclusive scores" if stored.band is None else "too few groups of real files for its band"
        raise UserError(f"All files are real, and probabilities need fakes as well; the run has {needed} and the threshold rule "
                        f"{rule}, so nothing can be calibrated. Add fakes, or give --evaluate.fpr 0.05 for a threshold.")
    return replace(fitted, band=band or stored.band)
