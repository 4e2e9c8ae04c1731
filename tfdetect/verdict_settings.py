"""The settings of verdicts: --evaluate.*, for training and, as overrides, for `evaluate`."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from tfdetect.errors import UserError


@dataclass(frozen=True)
class EvaluateSettings:
    """How scores become verdicts and figures."""

    aggregate: str = "mean"
    """How the scores of a file's frames or crops become the score of the file.
    mean, median or max of them.
    top:K: mean of the K highest, such as top:3."""

    def __post_init__(self) -> None:
        _check_aggregate(self.aggregate)


@dataclass(frozen=True)
class EvaluateOverrides:
    """How scores become verdicts and figures; by default as in training."""

    aggregate: str | None = None
    """How the scores of a file's frames or crops become its score: mean, median, max or top:K; by default as in training."""

    def __post_init__(self) -> None:
        _check_aggregate(self.aggregate or "mean")

    def apply_to(self, settings: EvaluateSettings) -> EvaluateSettings:
        """Return `settings` with the values given here replaced."""
        return dataclasses.replace(settings, **{name: value for name, value in vars(self).items() if value is not None})


def _check_aggregate(rule: str) -> None:
    if not re.fullmatch(r"mean|median|max|top:[1-9]\d*", rule):
        raise UserError(f"--evaluate.aggregate must be mean, median, max or top:K with a number K of at least 1, got {rule!r}.")
