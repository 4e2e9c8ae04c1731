"""The settings of verdicts: --evaluate.*, for training and, as overrides, for `evaluate`."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from tfdetect.errors import UserError

Method = Literal["auto", "temperature", "platt", "beta", "isotonic"]
REFITTED = ("calibration", "coverage", "prevalence", "fpr")  # settings for which a calibration is fitted again


@dataclass(frozen=True)
class EvaluateSettings:
    """How scores become verdicts and figures."""

    aggregate: str = "mean"
    """How the scores of a file's frames or crops become the score of the file.
    mean, median or max of them.
    top:K: mean of the K highest, such as top:3.
    With --data.faces all, these are the frames of each face, and the file's score is the max over its faces.
    FRAMES,FACES, such as mean,mean or mean,top:2, combines the scores of faces in another way."""
    calibration: Method = "auto"
    """How scores become probabilities, on validation files (docs/calibration.md).
    auto: the simplest method whose cross-validated log loss is as low as that of the best.
    temperature, platt, beta, isotonic: this method."""
    coverage: float | None = None
    """Share of each class that is not to be called the other; files for which that takes it are inconclusive.
    By default 0.9 if there are enough validation files; 0 calls every file real or fake."""
    prevalence: float | None = None
    """Share of fakes where the detector is used, such as 0.01; probabilities are shifted from that of validation."""
    fpr: float | None = None
    """Share of real validation files that may be called fake, such as 0.01: short for --train.threshold fpr:SHARE."""
    unfamiliar: float | None = None
    """Share of files like those of training that may be marked as unlike them, and so inconclusive (docs/familiarity.md).
    By default 0.05 if there are enough validation files; 0 marks none."""

    def __post_init__(self) -> None:
        _check_aggregate(self.aggregate)
        _check_shares(self)


@dataclass(frozen=True)
class VerdictOverrides:
    """How scores become verdicts; by default as in training. What is given is fitted to the run's validation files again."""

    calibration: Method | None = None
    """How scores become probabilities: auto, temperature, platt, beta or isotonic; by default as in training."""
    coverage: float | None = None
    """Share of each class that is not to be called the other, such as 0.9; files for which that takes it are inconclusive.
    0 calls every file real or fake; by default as in training."""
    prevalence: float | None = None
    """Share of fakes where the detector is used, such as 0.01; by default as in training."""
    fpr: float | None = None
    """Share of real validation files that may be called fake, such as 0.01; by default the threshold of the run."""
    unfamiliar: float | None = None
    """Share of files like those of training that may be marked as unlike them, 0 for none; by default as in training."""
    any: bool = False
    """Give the verdict on files that are unlike the training data, too; they are inconclusive otherwise."""

    def __post_init__(self) -> None:
        _check_shares(self)

    @property
    def rule(self) -> str | None:
        """The rule that chooses the threshold, None for that of the run."""
        return None if self.fpr is None else f"fpr:{self.fpr:g}"

    @property
    def verdicts(self) -> dict[str, object]:
        """What is given, by name; none if the verdicts of a run are to stay as they are."""
        names = (*REFITTED, "unfamiliar")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return given | ({"any": True} if self.any else {})

    def apply_to(self, settings: EvaluateSettings) -> EvaluateSettings:
        """Return `settings` with the values given here replaced."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "any"}
        return dataclasses.replace(settings, **given)

    @property
    def changes_verdicts(self) -> bool:
        """Whether the verdicts of a run are to be others than its own."""
        return bool(self.verdicts)

    @property
    def refits(self) -> bool:
        """Whether the calibration of a run is to be fitted again."""
        return any(name in self.verdicts for name in REFITTED)


@dataclass(frozen=True)
class EvaluateOverrides(VerdictOverrides):
    """How scores become verdicts and figures; by default as in training."""

    aggregate: str | None = None
    """How the scores of a file's frames or crops become its score: mean, median, max or top:K; by default as in training.
    With --data.faces all also FRAMES,FACES, such as mean,mean; of faces, the max counts by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_aggregate(self.aggregate or "mean")

    def aggregate_for(self, settings: EvaluateSettings, faces: str) -> str:
        """Return how the frames of a run with these settings and --data.faces become files; raises as `require_faces` does."""
        require_faces(rule := self.aggregate or settings.aggregate, faces)
        return rule


def _check_aggregate(rule: str) -> None:
    one = r"(mean|median|max|top:[1-9]\d*)"
    if not re.fullmatch(f"{one}(,{one})?", rule):
        raise UserError("--evaluate.aggregate must be mean, median, max or top:K with a number K of at least 1, or two of them, "
                        f"FRAMES,FACES, got {rule!r}.")  # fmt: skip


def require_faces(rule: str, faces: str) -> None:
    """Raise UserError if a rule says how faces are combined where files do not have several; `faces` is --data.faces."""
    if "," in rule and faces != "all":
        raise UserError(f"--evaluate.aggregate {rule} combines the faces of a file, which takes --data.faces all, not {faces}; "
                        f"give {rule.partition(',')[0]}.")  # fmt: skip


def check_faces(run: Any) -> None:
    """Raise UserError if the settings of a run need faces that are not looked for: to combine those of a file, or to make fakes;
    or if still fakes are to be made for a detector of clips."""
    require_faces(run.evaluate.aggregate, run.data.faces)
    if run.data.faces == "none" and run.train.makes_face_fakes:
        raise UserError("The step sbi of --train.augment blends face crops, but no faces are looked for: add --data.faces "
                        "yunet. For pictures without faces, there is the step selfblend.")  # fmt: skip
    if run.data.make_fakes and run.detector.input_kind == "clip":
        raise UserError(f"--data.make_fakes makes still pictures, but {run.detector.name} takes clips: use one of single "
                        "frames.")  # fmt: skip
    if run.data.keep_fakes and not run.data.make_fakes:
        raise UserError("--data.keep_fakes needs --data.make_fakes: without it, the data set's own fakes are used anyway.")


def _check_shares(settings: EvaluateSettings | VerdictOverrides) -> None:
    if settings.coverage is not None and not 0 <= settings.coverage < 1:
        raise UserError(f"--evaluate.coverage must be a share below 1, such as 0.9, or 0 for none, got {settings.coverage}.")
    if settings.prevalence is not None and not 0 < settings.prevalence < 1:
        raise UserError(f"--evaluate.prevalence must be a share between 0 and 1, such as 0.01, got {settings.prevalence}.")
    if settings.unfamiliar is not None and not 0 <= settings.unfamiliar < 1:
        raise UserError(f"--evaluate.unfamiliar must be a share below 1, such as 0.05, or 0 for none, got {settings.unfamiliar}.")
    if settings.fpr is not None and not 0 <= settings.fpr <= 1:
        raise UserError(f"--evaluate.fpr must be a share in 0..1, such as 0.01, got {settings.fpr}.")


AS_TRAINED = VerdictOverrides()
