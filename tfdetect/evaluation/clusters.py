"""Uncertainty of means and shares over files that come in groups: files of one group resemble each other."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def standard_error(values: ArrayLike, groups: ArrayLike) -> float | None:
    """Return the standard error of the mean of `values`, with `groups` both (files,); None for fewer than two groups.

    It is that of a ratio of sums over groups (W. Cochran, "Sampling techniques", 1977, section 9.2); with a group for each file
    the usual one.
    """
    value = np.asarray(values, np.float64)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(group.max()) + 1 if len(group) else 0
    if count < 2:
        return None
    residual = np.bincount(group, value - value.mean(), count)
    return float(np.sqrt(count / (count - 1) * (residual**2).sum()) / len(value))


def effective_counts(hits: ArrayLike, groups: ArrayLike) -> tuple[float, float]:
    """Return how many independent files, and hits among them, say as much about the share of `hits` as these files in `groups`.

    `hits` is bool (files,). Source: E. Korn and B. Graubard, "Confidence intervals for proportions with small expected number of
    positive counts", 1998. If all files are hits, or none, the groups count.
    """
    hit, group = np.asarray(hits, bool), np.asarray(groups)
    share, number = float(hit.mean()), float(len(hit))
    error = standard_error(hit, group)
    effective = min(number, share * (1 - share) / error**2) if error else float(len(np.unique(group)))
    return effective, effective * share


def share_interval(hits: ArrayLike, groups: ArrayLike, level: float = 0.95) -> list[float] | None:
    """Return the interval [low, high] of the share of `hits`, bool (files,), in files of other groups; None for no files.

    It is Clopper and Pearson's exact one for the effective number of files; see `effective_counts`.
    """
    from scipy.stats import beta

    if not np.size(hits):
        return None
    n, k = effective_counts(hits, groups)
    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else float(beta.ppf(tail, k, n - k + 1))
    return [low, 1.0 if k >= n else float(beta.ppf(1 - tail, k + 1, n - k))]


def precision_interval(hits: tuple[ArrayLike, ArrayLike], groups: tuple[ArrayLike, ArrayLike], prevalence: float,
                       level: float = 0.95) -> tuple[float | None, list[float]]:  # fmt: skip
    """Return the share of files called fake that are fake, where `prevalence` (0..1) of all are, and its interval [low, high].

    `hits` says which reals, and which fakes, are called fake, bool (files,); there must be some of each. The share is None if
    none is called fake. The interval is that of Jeffreys' priors for both rates, by 20,000 fixed draws (L. Brown, T. Cai and
    A. DasGupta, "Interval estimation for a binomial proportion", 2001).
    """
    random = np.random.default_rng(0)

    def draws(kind: int) -> NDArray[np.float64]:
        n, k = effective_counts(hits[kind], groups[kind])
        return random.beta(k + 0.5, n - k + 0.5, 20_000)

    def precision(false: Any, found: Any) -> Any:
        return prevalence * found / (prevalence * found + (1 - prevalence) * false)

    false, found = (float(np.mean(np.asarray(hit, bool))) for hit in hits)
    tail = (1 - level) / 2
    low, high = np.quantile(precision(draws(0), draws(1)), [tail, 1 - tail])
    if not (false or found):
        return None, [float(low), float(high)]
    # No error in a few files does not prove that there is none: the interval must hold the point.
    return float(precision(false, found)), [float(low), 1.0 if not false else float(high)]
