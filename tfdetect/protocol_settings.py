"""Settings of studies, which are several trainings with one report, and of the part of the data that one of these uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfdetect.errors import UserError

EACH = "each"
# Settings that ask for several trainings, by section; the config.yaml of a single one does not have them.
STUDY_ONLY = {"data": ("leave_out", "amounts"), "train": ("seeds",)}
MAX_SHARE = "--data.{} must be above 0 and at most 1, got {}."


def flag(name: str, alias: str) -> Any:
    """Return the annotation of a setting whose flag has another name, such as --from, which is no name in Python.

    The parser is imported here because annotations are read only where flags are parsed: `doctor` does without it.
    """
    import tyro

    return tyro.conf.arg(name=name, aliases=(f"--{alias}",))


@dataclass(frozen=True)
class ProtocolSettings:
    """Several trainings with one report (docs/protocols.md), or a single one of them."""

    folds: int = 0
    """Cross-validation: one training per fold. Each group is tested in exactly one fold and trained on in the others.
    Splits that come with the data are ignored."""
    fold: int | None = None
    """Train only this fold of --data.folds, counted from 1."""
    leave_out: str = "none"
    """Leave a source of fakes out of training and validation, then test on it and on the others: its name.
    each: one training per source."""
    amounts: tuple[float, ...] = ()
    """Learning curve: one training for each of these shares of the training groups, such as 0.1 0.25 0.5 1."""
    amount: float = 1.0
    """Share of the training groups to use, 0..1; validation and test stay as they are."""

    def check_protocol(self) -> None:
        """Raise UserError for values out of range, and for two kinds of study at once."""
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--data.folds must be at least 2, got {self.folds}.")
        if self.fold is not None and not 1 <= self.fold <= self.folds:
            raise UserError(f"--data.fold must be within 1..{self.folds}, the number of --data.folds, got {self.fold}."
                            if self.folds else "--data.fold needs --data.folds, the number of folds.")  # fmt: skip
        for name, share in (("amount", self.amount), *(("amounts", share) for share in self.amounts)):
            if not 0 < share <= 1:
                raise UserError(MAX_SHARE.format(name, f"{share:g}"))
        if len(self.amounts) == 1 or len({*self.amounts}) < len(self.amounts):
            given = " ".join(f"{share:g}" for share in self.amounts)
            raise UserError(f"--data.amounts takes two or more different shares, such as 0.25 0.5 1, got {given}.")
        if self.amounts and self.amount != 1:
            raise UserError("--data.amount and --data.amounts cannot be combined: give one amount or several.")
        asked = [f"--data.{name}" for name, given in (("folds", self.folds and self.fold is None),
                 ("leave_out", self.leave_out != "none"), ("amounts", self.amounts)) if given]  # fmt: skip
        if len(asked) > 1:
            raise UserError(f"{asked[0]} and {asked[1]} cannot be combined: a study varies one of them, and --train.seeds.")
        if self.fold is not None and self.leave_out != "none":
            raise UserError("--data.fold and --data.leave_out cannot be combined: folds test on all sources.")


def study_flags(run: Any) -> list[str]:
    """Return the flags of a run that ask for several trainings; none for a single one."""
    data = run.data
    asked = {"--search": run.search, "--data.folds": data.folds and data.fold is None, "--data.leave_out": data.leave_out == EACH,
             "--data.amounts": data.amounts, "--train.seeds": run.train.seeds > 1}  # fmt: skip
    return [flag for flag, given in asked.items() if given]


def check_study(run: Any) -> None:
    """Raise UserError if flags of a study, or of a fine-tuning, contradict other settings of a run."""
    if run.from_run and not run.data.path:
        raise UserError("--from fine-tunes on files of your own: add --data.path DIR.")
    if run.rehearse != "auto" and not run.from_run:
        raise UserError(f"--rehearse {run.rehearse} is about the old files of a run: give it with --from RUN.")
    if run.trials < 1:
        raise UserError(f"--trials must be at least 1, got {run.trials}.")
    if run.trials != type(run).trials and not run.search:
        raise UserError(f"--trials {run.trials} needs --search, the settings to try.")
    data, flags = run.data, study_flags(run)
    if data.leave_out != "none" and data.hold_out[0] != "auto":
        raise UserError(f"--data.leave_out {data.leave_out} and --data.hold_out {' '.join(data.hold_out)} both choose "
                        "sources to leave out of training: give one of them.")  # fmt: skip
    if data.leave_out != "none" and data.make_fakes and not data.keep_fakes:
        raise UserError("--data.leave_out needs training on the data set's own fakes, but --data.make_fakes replaces them: add "
                        "--data.keep_fakes.")  # fmt: skip
    if not flags:
        return
    if run.from_run:
        raise UserError(f"--from and {flags[0]} cannot be combined: a study trains new runs.")
    if run.resume or run.overwrite:
        what = "A study goes on when its command is repeated: omit --resume." if run.resume else (
               "To start a study anew, give another --name.")  # fmt: skip
        raise UserError(f"--{'resume' if run.resume else 'overwrite'} and {flags[0]} cannot be combined. {what}")
    if run.search and len(flags) > 1:
        raise UserError(f"--search and {flags[1]} cannot be combined: search first, then give {flags[1]} with the best settings.")
    if run.train.strategy == "multiworker":
        raise UserError(f"{flags[0]} and --train.strategy multiworker cannot be combined: a study trains on one machine.")
