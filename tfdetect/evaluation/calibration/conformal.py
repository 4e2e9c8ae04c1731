"""A band of scores that are inconclusive: class-conditional (Mondrian) split conformal prediction.

A file can be real unless its score is higher than that of nearly all real validation files, and fake unless it is lower than
that of nearly all fakes. At a coverage of 0.9, at most 10 % of the real files are called fake, and at most 10 % of the fakes
real, if the files come from where the validation files came from; no other assumption is made. Files of one group resemble each
other, so each group counts once, and the promise holds for files of new groups.

Sources: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world", 2005; A. Angelopoulos and S. Bates, "A
gentle introduction to conformal prediction", 2021 (arXiv 2107.07511); for groups Y. Lee, R. Barber and R. Willett,
"Distribution-free inference with hierarchical data", 2023 (arXiv 2306.06342).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MARGIN = 1e-5  # in standard deviations: keeps the validation file at the edge inside, though exported models round differently


@dataclass(frozen=True)
class Band:
    """Scores from `fake_from` on can be those of fakes, scores up to `real_up_to` those of reals, at the coverage, in 0..1."""

    coverage: float
    fake_from: float
    real_up_to: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.fake_from, self.real_up_to]).all() and 0 < self.coverage < 1):
            raise ValueError(f"Expected a coverage in 0..1 and finite scores, got {self}.")


def fit_band(score: NDArray[np.float64], label: NDArray[Any], coverage: float, groups: ArrayLike | None = None) -> Band | None:
    """Return the band of validation files, all arrays (files,); by default each file is a group. None if there are too few."""
    if missing_files(label, coverage, groups):
        return None
    group = np.arange(len(score)) if groups is None else np.asarray(groups)
    reals, fakes = (label == kind for kind in (0, 1))
    return Band(coverage, -_upper_edge(-score[fakes], group[fakes], coverage), _upper_edge(score[reals], group[reals], coverage))


def refit_real_edge(band: Band, score: NDArray[np.float64], groups: ArrayLike) -> Band | None:
    """Return the band with the edge of reals fitted to real files again, both arguments (files,); None if there are too few
    groups."""
    group = np.asarray(groups)
    if (len(np.unique(group)) + 1) * (1 - band.coverage) < 1 - 1e-9:
        return None
    return replace(band, real_up_to=_upper_edge(score, group, band.coverage))


def missing_files(label: NDArray[Any], coverage: float, groups: ArrayLike | None = None) -> str:
    """Return a sentence if validation has too few groups for this coverage, else "": n + 1 must reach 1 / (1 - coverage).

    `label` and `groups` are (files,); by default each file is a group.
    """
    group = np.arange(len(label)) if groups is None else np.asarray(groups)
    reals, fakes = (len(np.unique(group[label == kind])) for kind in (0, 1))
    needed = ceil(1 / (1 - coverage) - 1 - 1e-9)
    if min(reals, fakes) >= needed:
        return ""
    unit = "files" if len(np.unique(group)) == len(label) else "groups"
    return (f"A coverage of {coverage:g} needs {needed} real and {needed} fake validation {unit}, but there are {reals} real and "
            f"{fakes} fake.")  # fmt: skip


def _upper_edge(score: NDArray[np.float64], group: NDArray[Any], coverage: float) -> float:
    """Return the edge that a new file of this class exceeds with a probability of at most 1 - coverage."""
    _, index, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(score, kind="stable")
    ordered, weight = score[order], 1 / (size[index] * (len(size) + 1))[order]
    last = float(ordered[np.flatnonzero(np.cumsum(weight) >= coverage - 1e-9)[0]])
    higher = ordered[ordered > last]
    margin = MARGIN * max(float(score.std()), 1e-6 * max(1.0, abs(last)))
    return last + (min(margin, float(higher[0] - last) / 2) if len(higher) else margin)
