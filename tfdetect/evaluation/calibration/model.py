"""A fitted calibration: from score to probability, decision and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfdetect.evaluation.calibration.conformal import Band
from tfdetect.evaluation.calibration.curves import CURVES, MIN_FILES_PER_CLASS, Curve

REAL, FAKE, INCONCLUSIVE = "real", "fake", "inconclusive"
MAX_LOG_ODDS = 34.657359027997  # of a probability 2^-50 below 1: isotonic probabilities of 0 and 1 have infinite log-odds


@dataclass(frozen=True)
class Calibration:
    """A monotone map from score to probability, a decision threshold, and a band of inconclusive scores.

    The log-odds are curve(slope x score + intercept), without a curve slope x score + intercept; see `curves`. A file is called
    fake if probability >= threshold. `reals` and `fakes` are the numbers of validation files used for the fit, None if unknown.
    With `prevalence`, in 0..1, the probabilities and the threshold hold where that share of the files is fake; else where it is
    that of validation. `losses` are the log losses by which the method was chosen. Raises ValueError unless slope > 0, the
    intercept is finite, the threshold lies in 0..1 and a prevalence comes with both counts.
    """

    slope: float
    intercept: float
    threshold: float
    reals: int | None = None
    fakes: int | None = None
    method: str = "platt"
    curve: Curve | None = None
    band: Band | None = None
    prevalence: float | None = None
    losses: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0 and 0 <= self.threshold <= 1):
            raise ValueError(f"Expected a slope above 0, a finite intercept and a threshold in 0..1, got {self}.")
        if self.prevalence is not None and not (0 < self.prevalence < 1 and self.reals and self.fakes):
            raise ValueError(f"Expected a prevalence in 0..1 and the numbers of real and fake validation files, got {self}.")

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of being fake, float64 in 0..1, for scores of any shape."""
        from scipy.special import expit

        probabilities: NDArray[np.float64] = expit(self._log_odds(scores))
        return probabilities

    def log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the log-odds of being fake, float64 and finite, for scores of any shape. Unlike probabilities, they do not
        saturate, except those of isotonic calibration."""
        log_odds = self._log_odds(scores)
        return log_odds if self.is_linear else np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)

    def _log_odds(self, scores: ArrayLike) -> NDArray[np.float64]:
        linear = self.slope * np.asarray(scores, np.float64) + self.intercept
        curved = linear if self.curve is None else self.curve.log_odds(linear)
        return curved if self.prevalence is None else curved + self.shift

    @property
    def is_linear(self) -> bool:
        """Whether the log-odds of a mean score are the mean of the log-odds."""
        return self.curve is None

    @property
    def shift(self) -> float:
        """What the prevalence adds to the log-odds: those of its share of fakes less those of validation's."""
        if self.prevalence is None or not self.reals or not self.fakes:
            return 0.0
        return float(np.log(self.prevalence / (1 - self.prevalence)) - np.log(self.fakes / self.reals))

    def with_prevalence(self, prevalence: float | None) -> Calibration:
        """Return the same decisions with probabilities and threshold for another share of fakes, None for validation's."""
        from scipy.special import expit, logit

        if prevalence == self.prevalence:
            return self
        other = replace(self, prevalence=prevalence)
        return replace(other, threshold=float(expit(logit(self.threshold) - self.shift + other.shift)))

    @property
    def score_threshold(self) -> float:
        """The threshold in units of the score; infinite if the threshold is a probability of 0 or 1."""
        from scipy.special import logit

        log_odds = logit(self.threshold) - self.shift
        return float(((log_odds if self.curve is None else self.curve.inverse(log_odds)) - self.intercept) / self.slope)

    def verdicts(self, scores: ArrayLike) -> NDArray[np.str_]:
        """Return "real", "fake" or "inconclusive" for scores of any shape.

        A verdict needs both the threshold and the band: a file is called fake if its probability reaches the threshold and its
        score exceeds those of reals, and real if neither is so. The share of each class that is called the other is therefore at
        most 1 - coverage, whatever the threshold.
        """
        score, fake = np.asarray(scores, np.float64), self.probability(scores) >= self.threshold
        verdicts = np.where(fake, FAKE, REAL).astype(f"<U{len(INCONCLUSIVE)}")
        if self.band is None:
            return verdicts
        return np.where(np.where(fake, score <= self.band.real_up_to, score >= self.band.fake_from), INCONCLUSIVE, verdicts)

    @property
    def inconclusive(self) -> tuple[float, float] | None:
        """The lowest and the highest probability of inconclusive files; None if there is no band, or an empty one."""
        if self.band is None:
            return None
        low, high, threshold = *self.probability([self.band.fake_from, self.band.real_up_to]), self.threshold
        low, high = min(float(low), threshold), max(float(high), threshold)
        return (low, high) if low < high else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if too few files were available for reliable probabilities; otherwise empty."""
        if self.reals is None or self.fakes is None or min(self.reals, self.fakes) >= MIN_FILES_PER_CLASS:
            return ()
        return (f"The probabilities only rank the files: they were calibrated on {self.reals} real and {self.fakes} fake "
                f"validation files. Reliable probabilities need at least {MIN_FILES_PER_CLASS} of each class.",)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set as a dictionary ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration stored by `to_dict`, also one of an older version. Raises ValueError if keys are missing or
        unknown."""
        values = dict(values)
        method, curve = values.pop("method", "platt"), values.pop("curve", {})
        band, losses = values.pop("band", None), values.pop("losses", None)
        numbers = {name: int(value) if name in ("reals", "fakes") else float(value) for name, value in values.items()}
        required = {"slope", "intercept", "threshold"}
        if set(numbers) - {"prevalence", "reals", "fakes"} != required or bool(curve) != (method in CURVES):
            raise ValueError(f"A calibration needs slope, intercept and threshold, and for {' and '.join(CURVES)} a curve, got "
                             f"{sorted(values)}.")  # fmt: skip
        fields: dict[str, Any] = {**numbers, "method": method, "losses": losses, "band": Band(**band) if band else None}
        if curve:
            shape: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in curve.items()}
            fields["curve"] = CURVES[method](**shape)
        return cls(**fields)
