"""Is a file like those that a detector was trained on? A conformal p-value from two distances: of its content and its processing.

`content` is what the detector's own network sees in a clip, `processing` a set of pixel statistics; each is a vector for every
clip or frame. Their distance from the training files is Mahalanobis's under a shrunk covariance. Its logarithm is scaled by the
tail of the training files, so that neither part hides the other: 0 is the median, and 1 what one training file in a hundred
exceeds by its content, or one in fifty by its processing. The distance of a file is the mean over its clips, and its score the
larger of the two.

The p-value of a new file is the share of validation files, itself included, whose score is no lower. Of files that come from
where these came from, at most a share of `level` has a p-value up to `level`; no other assumption is made. Files of one group
resemble each other, so each group counts once, as in `calibration.conformal`.

Sources: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world", 2005; S. Bates et al., "Testing for
outliers with conformal p-values", 2023 (arXiv 2104.08279); for Mahalanobis's distance of early layers K. Lee et al., "A simple
unified framework for detecting out-of-distribution samples and adversarial attacks", 2018 (arXiv 1807.03888).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import ceil
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.errors import UserError

DEFAULT_LEVEL = 0.05
DISTANCES = ("content_distance", "processing_distance")  # columns of predictions, and outputs of exported models
OTHER_CONTENT, OTHER_PROCESSING = "other content", "other processing"
MAX_COMPONENTS = 512  # of longer vectors; bounds the size of tables and the time to fit them
FOLDS = 5
CONTENT_TAIL, PROCESSING_TAIL = 0.99, 0.98  # quantiles of the distances of training files that are 1
MARGIN = 1e-4  # of a distance of 1: keeps a validation file as usual as itself, though exported models round differently
CONTENT_FLOOR, PROCESSING_FLOOR = 0.1, 0.02  # least standard deviations: relative to the others, and absolute

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Vectors:
    """Vectors of clips, or of single frames, of several files."""

    content: NDArray[np.float32]
    """(rows, n)."""
    processing: NDArray[np.float32]
    """(rows, m)."""
    files: NDArray[Any]
    """(rows,) of any type: which file a row belongs to."""
    groups: NDArray[Any]
    """(rows,): the person or original video."""

    def __getitem__(self, rows: NDArray[Any]) -> Vectors:
        """Return some of the rows, given by a mask or their numbers."""
        return Vectors(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Space:
    """Distances from the training files: (log |((x - mean) / scale) @ whitening| - centre) / spread."""

    mean: NDArray[np.float32]
    """(n,), of the training files."""
    scale: NDArray[np.float32]
    """(n,), their standard deviations, or a floor."""
    whitening: NDArray[np.float32]
    """(n, k): makes the covariance of the training files the identity."""
    offset: NDArray[np.float32]
    """(k,), subtracted from whitened vectors."""
    centre: float
    """Median of the logarithms of the distances of training files, each from the others."""
    spread: float
    """How far a high quantile of them is above that."""

    def distances(self, vectors: ArrayLike) -> Floats:
        """Return the distance of each vector, (rows, n) -> (rows,); of training files 0 is the median, 1 a high quantile."""
        scaled = (np.asarray(vectors, np.float64) - self.mean) / self.scale
        return (_log_norm(scaled @ self.whitening - self.offset) - self.centre) / self.spread


@dataclass(frozen=True)
class Familiarity:
    """What a detector's training files were like, and which distances are usual among validation files."""

    layer: str
    """The layer of the network whose pooled output is the content."""
    content: Space
    processing: Space
    table: NDArray[np.float32]
    """(files,): the scores of the validation files in ascending order."""
    weights: NDArray[np.float64]
    """(files,): one divided by the number of files in the file's group."""
    level: float = DEFAULT_LEVEL
    """Share of files like those of validation that may be marked as unfamiliar, 0..1; 0 marks none."""

    @cached_property
    def groups(self) -> int:
        """The number of groups of the validation files; no p-value is below 1 / (groups + 1)."""
        return round(float(self.weights.sum()))

    @cached_property
    def limit(self) -> float:
        """The score above which a file is unfamiliar: the highest one whose p-value is above the level."""
        return float(self.table[self.p_values(self.table, self.table) > self.level][-1]) if self.level else np.inf

    def p_values(self, content: ArrayLike, processing: ArrayLike) -> Floats:
        """Return the p-value of files whose content and processing have these distances, both (files,) -> (files,) in 0..1."""
        score = _float32(np.maximum(content, processing))
        return np.asarray((1 + self._weights_from[np.searchsorted(self.table, score)]) / (self.groups + 1))

    @cached_property
    def _weights_from(self) -> Floats:
        """(files + 1,): the sum of the weights from each place of the table on."""
        return np.cumsum(np.append(0, self.weights[::-1]))[::-1]

    def reasons(self, content: ArrayLike, processing: ArrayLike) -> NDArray[np.str_]:
        """Return for each file "" if it is familiar, else why it is not: OTHER_CONTENT or OTHER_PROCESSING."""
        other_content, other_processing = (_float32(distance) > self.limit for distance in (content, processing))
        return np.where(other_content, OTHER_CONTENT, np.where(other_processing, OTHER_PROCESSING, ""))

    def with_level(self, level: float | None) -> Familiarity:
        """Return the same with another level, None for the same one. Raises UserError if validation is too small for it."""
        if level and (missing := missing_files(self.groups, level)):
            raise UserError(f"--evaluate.unfamiliar {level:g} is out of reach. {missing} Raise it, or train with more files.")
        return self if level is None else replace(self, level=level)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to an .npz file, without pickles."""
        spaces: dict[str, Any] = {f"{name}.{key}": value for name in ("content", "processing")
                                  for key, value in vars(getattr(self, name)).items()}  # fmt: skip
        own: dict[str, Any] = {"layer": self.layer, "table": self.table, "weights": self.weights, "level": self.level}
        with open(path, "wb") as file:
            np.savez(file, **spaces, **own)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Familiarity:
        """Return what `save` wrote. Raises UserError if the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                values = dict(stored)
            content, processing = (_space(values, f"{name}.") for name in ("content", "processing"))
            return cls(str(values["layer"]), content, processing, values["table"], values["weights"], float(values["level"]))
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}): copy it again, or train the run again.") from error


def missing_files(groups: int, level: float) -> str:
    """Return a sentence if there are too few groups of validation files for this level, else "": n + 1 must reach 1 / level."""
    needed = ceil(1 / level - 1 - 1e-9)
    if groups >= needed:
        return ""
    return (f"Marking at most {100 * level:.3g} % of the files like those of training as unlike them needs {needed} groups of "
            f"validation files, but there are {groups}.")  # fmt: skip


def fit(layer: str, reference: Vectors, usual: Vectors | None = None, level: float = DEFAULT_LEVEL) -> Familiarity:
    """Return how far files are from those of `reference`, and how far those of `usual` are, which must be other files.

    Without `usual`, the distances of the reference files themselves are the usual ones, each group's from the other groups.
    Raises UserError if there are too few groups for the level.
    """
    if missing := missing_files(len(np.unique((usual or reference).groups)), level) if level else "":
        raise UserError(f"--evaluate.unfamiliar {level:g} is out of reach. {missing} Raise it, or add files.")
    (content, far), (processing, altered) = (
        _fit_space(reference.content, reference.groups, CONTENT_TAIL, relative=CONTENT_FLOOR),
        _fit_space(reference.processing, reference.groups, PROCESSING_TAIL, absolute=PROCESSING_FLOOR))  # fmt: skip
    if usual is not None:
        far, altered = content.distances(usual.content), processing.distances(usual.processing)
    files, groups = (getattr(usual or reference, name) for name in ("files", "groups"))
    _, first, file = np.unique(files, return_index=True, return_inverse=True)
    counts = np.bincount(file)
    score = np.maximum(*(np.bincount(file, values) / counts for values in (far, altered))) + MARGIN
    _, index, sizes = np.unique(groups[first], return_inverse=True, return_counts=True)
    order = np.argsort(score, kind="stable")
    return Familiarity(layer, content, processing, _float32(score[order]), (1 / sizes[index])[order], level)


def _fit_space(x: ArrayLike, groups: NDArray[Any], quantile: float, relative: float = 0.0,
               absolute: float = 0.0) -> tuple[Space, Floats]:  # fmt: skip
    """Return the space of vectors (rows, n), and the distance (rows,) of each from those of other groups."""
    x = np.asarray(x, np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    floor = max(relative * float(np.sqrt(np.mean(deviation**2))), absolute, 1e-5 * (1 + float(np.abs(mean).max())))
    scale = np.maximum(deviation, floor)
    scaled = (x - mean) / scale
    axes = _components(scaled)
    reduced = scaled @ axes
    logs = np.zeros(len(x))
    for fitted, others in _folds(groups):
        centre, whitening = _whitening(reduced[fitted])
        logs[others] = _log_norm((reduced[others] - centre) @ whitening)
    centre, whitening = _whitening(reduced)
    median, tail = np.quantile(logs, [0.5, quantile])
    numbers = float(median), max(float(tail - median), 1e-6)
    arrays = (_float32(value) for value in (mean, scale, axes @ whitening, centre @ whitening))
    return Space(*arrays, *numbers), (logs - numbers[0]) / numbers[1]  # type: ignore[call-arg, arg-type]


def _components(scaled: Floats) -> Floats:
    """Return orthonormal axes (n, k) that span what varies most; all of them for short vectors."""
    from sklearn.decomposition import PCA

    width = scaled.shape[1]
    if width <= MAX_COMPONENTS:
        return np.eye(width)
    found = PCA(min(MAX_COMPONENTS, len(scaled)), svd_solver="randomized", random_state=0).fit(scaled)
    return np.asarray(found.components_.T)


def _whitening(rows: Floats) -> tuple[Floats, Floats]:
    """Return the mean (k,) of rows, and a matrix (k, k) after which their covariance is about the identity."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(rows)
    ridge = 1e-6 * np.eye(rows.shape[1])  # for rows that are all equal
    return fitted.location_, np.linalg.cholesky(np.linalg.inv(fitted.covariance_ + ridge))


def _folds(groups: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield (rows to fit, other rows) FOLDS times, with each group on one side; all rows on both where there is one group."""
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(np.unique(groups)))
    if count < 2:
        return iter([(np.arange(len(groups)),) * 2])
    return GroupKFold(count).split(groups, groups=groups)


def _log_norm(rows: Floats) -> Floats:
    """Return the logarithm of the length of each row, (rows, k) -> (rows,)."""
    return 0.5 * np.log((rows**2).sum(axis=1) + 1e-12)


def _space(values: Mapping[str, Any], prefix: str) -> Space:
    stored = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    fields: dict[str, Any] = {name: value if value.ndim else float(value) for name, value in stored.items()}
    return Space(**fields)


def _float32(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
