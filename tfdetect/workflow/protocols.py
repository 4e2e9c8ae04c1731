"""Studies: several trainings with one report, over folds, sources left out, amounts of training data, seeds, or a search.

A study is a list of members, each an ordinary run in a folder of the study. Finished ones are skipped, so that a study goes on
when its command is repeated; one that fails is recorded with its reason. study.json says what was asked for, and what became of
it.
"""

import errno
import hashlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import config, files
from tfdetect.artifact import NOT_COMPARED, Artifact
from tfdetect.errors import UserError
from tfdetect.protocol_settings import EACH, STUDY_ONLY, study_flags
from tfdetect.settings import Run
from tfdetect.workflow.console import console, plural, printable

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"--search": "search", "--data.folds": "folds", "--data.leave_out": "leave_out", "--data.amounts": "amounts",
         "--train.seeds": "seeds"}  # fmt: skip
MAY_CHANGE = ("data.amounts", "train.seeds", "trials")  # when a study goes on
Trainer = Callable[[Run], Mapping[str, Any]]  # trains a member and returns what its record is to say besides


class MemberError(Exception):
    """A member failed by a bug, or its process was ended; the message is the reason."""

    def __init__(self, reason: str, trace: str = ""):
        super().__init__(reason)
        self.trace = trace


@dataclass(frozen=True)
class Member:
    """One training of a study."""

    name: str
    """Of its folder in the study."""
    run: Run
    factors: Mapping[str, Any]
    """What distinguishes it from the others: fold, left_out, amount, seed, or the settings of a search."""


@dataclass
class Study:
    """A folder of trainings, and what became of each so far."""

    folder: Path
    kind: str
    run: Run
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name of the member: factors, state (finished or failed), reason, minutes, and what its trainer returned."""
    files: str = ""
    """SHA-256 of the list of files, which must not change between members."""

    @property
    def file(self) -> Path:
        """Where the study is recorded."""
        return self.folder / "study.json"

    def save(self, results: Mapping[str, Any] | None = None) -> None:
        """Write study.json; with `results`, the study is complete."""
        members = [{"name": name, **record} for name, record in self.records.items()]
        content = {"version": 1, "kind": self.kind, "detector": self.run.detector.name, "settings": study_settings(self.run),
                   "files": self.files, "members": members}  # fmt: skip
        files.write_json(self.file, content | ({} if results is None else {"results": results}))

    def require_same_files(self, table: "pd.DataFrame") -> None:
        """Raise UserError if the list of files is not the one that the study began with: its tests would not fit together."""
        columns = [table["path"].map(os.path.abspath), *(table[name] for name in ("label", "split", "group", "source"))]
        rows = zip(*columns, strict=True)
        digest = hashlib.sha256("\n".join(sorted(map(str, rows))).encode(errors="surrogateescape")).hexdigest()
        if self.files and digest != self.files:
            raise UserError(f"The files, or their labels, groups or sources, have changed since {self.folder} was begun: give "
                            "another --name.")  # fmt: skip
        self.files = digest

    def named(self, state: str) -> list[str]:
        """Return the names of the members in a state."""
        return [name for name, record in self.records.items() if record["state"] == state]

    def train(self, members: Iterable[Member], trainer: Trainer, total: int = 0) -> None:
        """Train the members that are not finished yet, and record each; print their numbers if there is a total.

        Raises UserError if all of them failed.
        """
        self.save()
        for number, member in enumerate(members, 1):
            artifact = Artifact(self.folder / member.name)
            if artifact.is_finished:
                if member.name not in self.named("finished"):
                    self.records[member.name] = record(member, "finished")
                console.print(f"[{number}/{total}] {printable(member.name)} is finished")
                continue
            if total:
                console.print(f"\n[{number}/{total}] {printable(member.name)}")
            self.records[member.name] = attempt(member, trainer, self.folder)
            self.save()
        failed = self.named("failed")
        if failed and not self.named("finished"):
            first = self.records[failed[0]]["reason"]
            raise UserError(f"All {plural(len(failed), 'training')} of {self.folder} failed; the first, {failed[0]}: {first}")


def is_study(run: Run) -> bool:
    """Return whether the settings ask for several trainings."""
    return bool(study_flags(run))


def require_single(run: Run) -> None:
    """Raise UserError if the settings ask for several trainings, which `reproduce` does not make."""
    if flags := study_flags(run):
        raise UserError(f"{flags[0]} asks for several trainings, but this is a single one: give it to train instead.")


def as_single(run: Run) -> Run:
    """Return the run with a source named by --data.leave_out held out, which is what that flag means for a single training."""
    if run.data.leave_out in ("none", EACH):
        return run
    return replace(run, data=replace(run.data, leave_out="none", hold_out=(run.data.leave_out,)))


def open_study(run: Run) -> Study:
    """Return the study that the settings ask for: the one that its name says, else the detector's last one if it has the same
    settings and is not complete, else a new one.

    Raises UserError if the folder holds anything but a study with these settings.
    """
    kind = KINDS[study_flags(run)[0]]
    if run.name is not None:
        return read_study(run.out / run.name, kind, run)
    slug = f"{run.detector.name}-{kind.replace('_', '-')}"
    names = (slug if number == 1 else f"{slug}-{number}" for number in count(1))
    last = None
    for folder in (run.out / name for name in names):
        if not folder.exists():
            break
        last = folder
    if last is not None:
        with suppress(UserError):
            study = read_study(last, kind, run)
            if not is_complete(last):
                return study
    return Study(folder, kind, run)


def is_complete(folder: Path) -> bool:
    """Return whether the study in a folder has its results."""
    return "results" in files.read_json(folder / "study.json", ("members",), "delete the folder, or give another --name.")


def read_study(folder: Path, kind: str, run: Run) -> Study:
    """Return the study in a folder, a new one if there is none. Raises UserError if it is another study, or none."""
    study = Study(folder, kind, run)
    if not folder.exists() or not any(folder.iterdir()):
        return study
    hint = "give another --name."
    if not study.file.exists():
        raise UserError(f"{folder} exists and holds no study: {hint}")
    old = files.read_json(study.file, ("kind", "settings", "members"), f"delete the folder, or {hint}")
    before, now = (flatten(settings) for settings in (old["settings"], study_settings(run)))
    changed = [f"{name} was {before[name]} and is now {now[name]}" for name in now if name in before
               and before[name] != now[name] and name not in (*NOT_COMPARED, *MAY_CHANGE)]  # fmt: skip
    if old["kind"] != kind or changed:
        what = ", ".join(changed[:8]) or f"it is one of {old['kind']} and this is one of {kind}"
        raise UserError(f"{folder} holds another study ({what}): {hint}")
    study.records = {record.pop("name"): record for record in old["members"]}
    study.files = str(old.get("files", ""))
    return study


def study_settings(run: Run) -> dict[str, Any]:
    """Return all settings of a study that affect its results."""
    own = {section: {name: getattr(getattr(run, section), name) for name in names} for section, names in STUDY_ONLY.items()}
    single = config.run_to_dict(run)
    return {**single, **{section: {**single[section], **values} for section, values in own.items()}, "search": run.search,
            "trials": run.trials}  # fmt: skip


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their flags, as JSON has them."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        out |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {
            f"{prefix}{name}": list(value) if isinstance(value, tuple) else value}  # fmt: skip
    return out


def attempt(member: Member, trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Train a member and return its record. Raises OSError if the disk is full, since no other member could be saved either."""
    start = time.monotonic()
    try:
        found = trainer(member.run)
    except Exception as error:
        if os.environ.get("TFDETECT_DEBUG") or is_disk_full(error):
            raise
        reason, trace = describe_error(error), getattr(error, "trace", None) or traceback.format_exc()
        if not isinstance(error, UserError | OSError):
            log = folder / f"{member.name}.log"
            files.write_bytes(log, trace.encode(errors="backslashreplace"))
            reason += f" The traceback is in {log.name}."
        console.print(printable(f"{member.name} failed: {reason}"))
        return record(member, "failed", start, reason=reason)
    return record(member, "finished", start, **found)


def record(member: Member, state: str, start: float | None = None, reason: str = "", **more: Any) -> dict[str, Any]:
    """Return what study.json says about a member."""
    minutes = None if start is None else round((time.monotonic() - start) / 60, 2)
    return {"factors": dict(member.factors), "state": state, "reason": reason, "minutes": minutes, **more}


def describe_error(error: Exception) -> str:
    """Return an error as a sentence on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}."
    text = " ".join(str(error).split())
    expected = isinstance(error, UserError | MemberError)
    return text if expected else f"{type(error).__name__}: {text}".rstrip(": .") + "."


def is_disk_full(error: Exception) -> bool:
    """Return whether the disk is full, so that no other member could be saved either."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC
