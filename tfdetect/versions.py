"""The versions of a run: the run folder is the newest one, and `versions/<n>/` holds each of them as a run folder of its own.

What two versions share is a hard link, so an unchanged model takes no space twice. A new version is written beside the
others, and takes effect by the renaming of its folder to its number; the files of the run folder follow (`check_out`), which
can be repeated. The SavedModels of all versions stay in the run folder, as TensorFlow Serving expects: `1/`, `2/`, ...
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfdetect import config
from tfdetect.errors import UserError

FOLDER = "versions"
PART = ".version-"  # a copy that is being made, or was when a process ended
# What belongs to a version, besides its SavedModel. config.yaml comes last: it says which version a folder holds.
# TensorBoard's logs/ stay where a training wrote them, or it would show each curve several times.
ENTRIES = ("manifest.csv", "failures.csv", "faces.json", "equalised.json", "face_model.onnx", "model.keras", "calibration.json",
           "familiarity.npz", "cost.json", "metrics.json", "predictions.csv", "Results.csv", "Final_Prediction.txt",
           "history.csv", "shortcuts.json", "comparison.json", "plots", "checkpoints", "evaluations", "onnx", "onnx-int8",
           "openvino", "openvino-int8", "litert", "litert-int8", "SERVING.md", "models.config", "batching.config",
           "monitoring.config", "README.md", "report.md", "report.html", "SHA256SUMS", "config.yaml")  # fmt: skip


def adapted(folder: Path) -> Mapping[str, Any]:
    """Return what config.yaml says about how a version came about; empty for a run as it was trained first."""
    path = folder / "config.yaml"
    found = config.load_yaml(path).get("adapted") if path.exists() else None
    if found is not None and not (isinstance(found, Mapping) and isinstance(found.get("version"), int)):
        raise UserError(f"{path}: adapted must state the number of the version, got {found!r}.")
    return found or {}


def number(folder: Path) -> int:
    """Return the number of the version that a run folder holds, from 1."""
    return int(adapted(folder).get("version", 1))


def base(folder: Path) -> Path:
    """Return the run folder to which a folder in its versions/ belongs; any other folder is its own."""
    parent, run = folder.parent, folder.parent.parent
    if not parent.name:  # such as "2", inside of versions/
        parent, run = folder.absolute().parent, folder.absolute().parent.parent
    return run if parent.name == FOLDER and (run / "config.yaml").exists() else folder


def listed(run: Path) -> list[int]:
    """Return the numbers of the complete versions in versions/, in ascending order; none before a run has a second one."""
    return sorted(int(path.parent.name) for path in (run / FOLDER).glob("*/config.yaml") if path.parent.name.isdecimal())


def older(run: Path) -> list[Path]:
    """Return the folders of the versions before the newest one, as far as they exist."""
    return [run / FOLDER / str(own) for own in listed(run) if own != number(run)]


def next_number(run: Path) -> int:
    """Return the number of the version to come."""
    return max([*listed(run), number(run)]) + 1


def checked_out(folder: Path) -> Path:
    """Return the run folder for a folder in its versions/ whose version it holds; any other folder as it is."""
    run = base(folder)
    return run if number(run) == number(folder) else folder


def title(folder: Path) -> str:
    """Return the name of a run for a page: "cnn", or "cnn, version 2"."""
    own, run = number(folder), base(folder)
    return run.resolve().name + (f", version {own}" if own > 1 or run != folder else "")


def name(folder: Path) -> str:
    """Return the name of a run among others: "cnn", or "cnn-v1" for one of its versions."""
    run = base(folder)
    return run.resolve().name + (f"-v{number(folder)}" if run != folder else "")


def trained(folder: Path) -> Path:
    """Return the folder of the version whose training made the model of this one: calibrations in between leave it as it is.

    Raises UserError if that version was deleted.
    """
    found = folder
    while (origin := adapted(found)).get("by") == "calibrate":
        found = base(folder) / FOLDER / str(origin["from"])
        if not (found / "config.yaml").exists():
            raise UserError(f"{found} is gone, which says what version {number(folder)} was trained on: copy it there again, or "
                            "train the run again.")  # fmt: skip
    return found


def is_behind(run: Path) -> bool:
    """Return whether a new version has been written whose files are not in the run folder yet, because a process ended."""
    numbers = listed(run)
    return bool(numbers) and numbers[-1] > number(run)


def publish(run: Path, staged: Path) -> Path:
    """Make the complete run folder `staged`, which lies in versions/, the newest version, and return its new place.

    The caller holds the lock of the run. Raises UserError if another version has taken its number meanwhile.
    """
    new = number(staged)
    if new != next_number(run):
        raise UserError(f"{run} has got another version meanwhile; nothing was changed. Repeat the command.")
    old = run / FOLDER / str(number(run))
    _link(run, old, entries(run))
    target = run / FOLDER / str(new)
    staged.rename(target)
    check_out(run)
    return target


def copy(source: Path, target: Path) -> None:
    """Link the files of the version in one folder into another one that lacks them or has others; nothing else is removed."""
    _link(source, target, entries(source))


def renew(run: Path) -> None:
    """Make the folder in versions/ of the version that a run folder holds, if there is one, hold its SavedModel and files."""
    own, saved_model = run / FOLDER / str(number(run)), str(number(run))
    if (own / "config.yaml").exists():
        _replace_folder(run / saved_model, own / saved_model)
        copy(run, own)


def check_out(run: Path) -> None:
    """Make the run folder hold what the newest folder in versions/ does."""
    source = run / FOLDER / str(listed(run)[-1])
    remove_parts(run)
    wanted = entries(source)
    remove(run, *(name for name in ENTRIES if name not in wanted))
    for name in wanted:
        if (source / name).is_dir():
            _replace_folder(source / name, run / name)
        else:
            _link(source / name, run / name)


def entries(folder: Path) -> list[str]:
    """Return the names of what belongs to the version in a folder and exists, config.yaml last."""
    return [name for name in (str(number(folder)), *ENTRIES) if (folder / name).exists()]


def remove(folder: Path, *names: str) -> None:
    """Delete files and folders of these names, as far as they exist."""
    for name in names:
        if os.path.lexists(folder / name):
            _remove(folder / name)


def remove_parts(folder: Path) -> None:
    """Delete what an interrupted process left half-written in a folder."""
    for path in folder.glob(f"{PART}*"):
        _remove(path)


def _link(source: Path, target: Path, names: Sequence[str] | None = None) -> None:
    """Make `target` a hard link to a file, or a folder of such links to what it holds, or to `names` in it; where the file
    system has none, a copy."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        remove_parts(target)
        for name in sorted(os.listdir(source)) if names is None else names:
            _link(source / name, target / name)
        return
    if target.exists() and os.path.samefile(source, target):
        return
    part = target.with_name(f"{PART}{time.monotonic_ns()}-{target.name}")
    try:
        os.link(source, part)
    except OSError:  # a file system without hard links, or across two of them
        shutil.copy2(source, part)
    os.replace(part, target)


def _replace_folder(source: Path, target: Path) -> None:
    """Make `target` a folder of links to what is in `source`, and nothing else."""
    part = target.with_name(f"{PART}{time.monotonic_ns()}-{target.name}")
    _link(source, part)
    if target.exists():
        target.rename(old := target.with_name(f"{PART}{time.monotonic_ns()}-old"))
        part.rename(target)
        _remove(old)
    else:
        part.rename(target)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
