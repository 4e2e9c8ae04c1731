"""The folder of a run, `saved_models/<run>/`: everything to use, judge and repeat it."""

import difflib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.settings import Run

if TYPE_CHECKING:
    from tfdetect.evaluation.calibration import Calibration

RESUME_MAY_CHANGE = ("train.epochs", "train.patience")  # a run that goes on may have more of these
MAX_LISTED = 8  # names of runs in a message
MAX_ATTEMPTS = 100  # at a folder that other processes want, too


@dataclass(frozen=True)
class Artifact:
    """Where each part of a run is."""

    folder: Path

    config = property(lambda self: self.folder / "config.yaml")
    manifest = property(lambda self: self.folder / "manifest.csv")
    failures = property(lambda self: self.folder / "failures.csv")
    faces = property(lambda self: self.folder / "faces.json")
    plan = property(lambda self: self.folder / "equalised.json")
    face_model = property(lambda self: self.folder / "face_model.onnx")
    model = property(lambda self: self.folder / "model.keras")
    saved_model = property(lambda self: self.folder / "1")
    calibration = property(lambda self: self.folder / "calibration.json")
    metrics = property(lambda self: self.folder / "metrics.json")
    predictions = property(lambda self: self.folder / "predictions.csv")
    results = property(lambda self: self.folder / "Results.csv")
    final = property(lambda self: self.folder / "Final_Prediction.txt")
    history = property(lambda self: self.folder / "history.csv")
    shortcuts = property(lambda self: self.folder / "shortcuts.json")
    comparison = property(lambda self: self.folder / "comparison.json")
    report = property(lambda self: self.folder / "report.html")
    plots = property(lambda self: self.folder / "plots")
    logs = property(lambda self: self.folder / "logs")
    checkpoints = property(lambda self: self.folder / "checkpoints")

    @property
    def finished(self) -> bool:
        """The report is written last."""
        return self.report.exists()


def find(folder: Path, part: str = "calibration") -> Artifact:
    """The artifact in `folder`, which must hold that part. FileNotFoundError says what is missing and how it is made, and names
    the runs that there are; BlockingIOError where it is being trained just now."""
    artifact = Artifact(folder)
    if not artifact.config.exists():
        raise FileNotFoundError(f"No run folder {str(folder)!r}: it has no config.yaml.{_suggest_runs(folder)}")
    if _is_locked(artifact):
        raise BlockingIOError(f"{folder} is being trained by another process; wait until it has finished.")
    if not getattr(artifact, part).exists():
        raise FileNotFoundError(
            f"{folder} lacks {getattr(artifact, part).name}: its training has not finished, or it was moved. "
            "python scripts/train.py makes it."
        )
    return artifact


def _suggest_runs(folder: Path) -> str:
    """The runs that may have been meant: those beside it, else those in the usual place."""
    for place in dict.fromkeys((folder.parent, folder, Path("saved_models"))):
        with suppress(OSError):
            names = sorted(entry.name for entry in place.iterdir() if Artifact(entry).config.exists())
            near = difflib.get_close_matches(folder.name, names, n=1)
            hint = f" Perhaps you meant {place / near[0]}." if near else ""
            if names:
                return f"{hint} Runs in {place}: {', '.join(names[:MAX_LISTED])}{', ...' * (len(names) > MAX_LISTED)}."
    return " Expected a folder such as saved_models/cnn; python scripts/train.py makes one."


def load_config(artifact: Artifact) -> Run:
    """The run that made the artifact; it finds faces with the very model that it was trained with."""
    try:
        run = config.parse(["--config", str(artifact.config)], "tfdetect")
    except SystemExit as error:  # the parser has said which value is wrong
        raise UserError(f"That stands in {artifact.config}: mend it, or copy the run anew.") from error
    if not artifact.face_model.exists():
        return run
    return replace(run, data=replace(run.data, face_model=artifact.face_model))


def load_calibration(artifact: Artifact) -> "Calibration":
    """Of the run. UserError where it is damaged."""
    from tfdetect.evaluation.calibration import Calibration

    try:
        return Calibration.from_dict(json.loads(artifact.calibration.read_bytes()))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{artifact.calibration} is damaged ({error}): copy it anew, or train the run again.") from error


def select_folder(run: Run) -> tuple[Artifact, bool]:
    """The folder for a run, and whether an interrupted run of the very same settings is there to go on with.

    Without a name: the last run of that detector if it was interrupted and is the same, else the next free name. With
    one: FileExistsError where that is taken by anything else, unless --resume or --overwrite says what to do.
    """
    if run.name is None:
        there = set(os.listdir(run.out)) if run.out.is_dir() else set()  # once: a look for each name would take seconds
        taken = [Artifact(run.out / name) for name in _candidate_names(run.detector.name) if name in there]
        for artifact in taken[-1:]:
            if not artifact.is_finished and _same(run, artifact) and not _is_locked(artifact):
                return artifact, True
        name = next(name for name in _candidate_names(run.detector.name) if name not in there)
        return Artifact(run.out / name), False
    artifact = Artifact(run.out / run.name)
    if run.resume and not artifact.folder.exists():
        raise UserError(f"There is no run {artifact.folder} to go on with.{_suggest_runs(artifact.folder)}")
    if not artifact.folder.exists() or run.overwrite:
        return artifact, False
    changed = _changed_settings(run, artifact)
    same = not changed
    if run.resume and (other := [text for name, text in changed.items() if name not in RESUME_MAY_CHANGE]):
        raise UserError(f"{artifact.folder} was made with other settings: {', '.join(other[:MAX_LISTED])}. Repeat those, or use "
                        "another --name; with --resume, only --train.epochs and --train.patience may change.")  # fmt: skip
    if run.resume or (same and not artifact.is_finished):
        return artifact, True
    if _is_empty(artifact.folder):
        return artifact, False
    way = "Train it further: --resume with a higher --train.epochs" if artifact.is_finished else "Go on with it: --resume"
    raise FileExistsError(f"{artifact.folder} exists. {way}. Replace it: --overwrite. Or give another --name.")


def _candidate_names(detector: str) -> Iterator[str]:
    """cnn, cnn-2, cnn-3 ... up to one past the first gap."""
    yield detector
    yield from (f"{detector}-{number}" for number in range(2, 100_000))


def _same(run: Run, artifact: Artifact) -> bool:
    return not _changed_settings(run, artifact)


def _changed_settings(run: Run, artifact: Artifact) -> dict[str, str]:
    """The settings that decide the result and differ from those in a folder, by name, each with what it is there and here."""
    try:
        detector, flags = config.read_yaml(artifact.config)
    except (OSError, ValueError) as error:
        return {"config": f"its config.yaml cannot be read ({error})"}
    tree = config.run_to_dict(run)
    here = {"detector": [tree["detector"].pop("name")], **_values_by_flag(config.to_flags(tree))}
    there = {"detector": [detector], **_values_by_flag(flags)}
    said = {name: [" ".join(values.get(name, ["not set"])) for values in (there, here)] for name in {**there, **here}}
    # Neither the number of workers nor the place of the cache changes the result; the classes come from the files.
    drop = ("data.workers", "data.cache_dir", "detector.classes")
    other = {name: values for name, values in said.items() if values[0] != values[1] and name not in drop}
    return {name: f"--{name} is {old} there and {new} here" for name, (old, new) in other.items()}


def _values_by_flag(flags: list[str]) -> dict[str, list[str]]:
    """Flags as `config.to_flags` writes them, by name: ["--train.no_xla", "--data.size", "64"] -> xla False, size 64."""
    out: dict[str, list[str]] = {}
    for flag in flags:
        if flag.startswith("--"):
            part, _, name = flag.removeprefix("--").rpartition(".")
            plain = name.removeprefix("no_")
            values = out.setdefault(f"{part}.{plain}", ["on"] if plain == name else ["off"])
        else:
            values[:] = [*(values if values != ["on"] else []), flag]
    return out


def _is_locked(artifact: Artifact) -> bool:
    try:
        with lock(artifact):
            return False
    except (BlockingIOError, FileNotFoundError):
        return True


@contextmanager
def lock(artifact: Artifact) -> Iterator[None]:
    """Hold the run's folder; the system lets go of it when the process ends, however it ends.

    BlockingIOError where another process trains into it.
    """
    try:
        import fcntl
    except ModuleNotFoundError as error:
        raise UserError("tfdetect runs on Linux and macOS; on Windows, run it inside WSL 2.") from error
    handle = os.open(artifact.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{artifact.folder} is being trained by another process; give another --name.") from error
        os.stat(artifact.folder)  # FileNotFoundError where its last holder has just removed it
        yield
    finally:
        os.close(handle)


@contextmanager
def reserve_folder(run: Run) -> Iterator[tuple[Artifact, bool]]:
    """`select_folder`, and the folder made and held before any work, so that no other process takes it.

    A folder that is still bare at the end goes again. What --overwrite replaces stays until `reset_folder`.
    """
    made = not run.out.exists()
    with ExitStack() as held:
        artifact, going_on = _reserve(run, held)
        try:
            yield artifact, going_on
        finally:
            if _is_empty(artifact.folder):
                artifact.config.unlink(missing_ok=True)
                artifact.folder.rmdir()
                with suppress(OSError):  # other runs are in it by now
                    run.out.rmdir() if made else None


def _reserve(run: Run, held: ExitStack) -> tuple[Artifact, bool]:
    for _ in range(MAX_ATTEMPTS):
        artifact, going_on = select_folder(run)
        try:
            if not os.path.lexists(artifact.folder):
                artifact.folder.mkdir(parents=True)
            held.enter_context(lock(artifact))
        except (FileExistsError, FileNotFoundError):  # another process was faster, or has just let go
            continue
        except BlockingIOError:
            if run.name is not None:
                raise
            continue
        if _is_empty(artifact.folder):
            config.write_yaml(run, artifact.config)
        elif run.overwrite:
            _require_run(artifact)
        elif not going_on:  # between the look and the lock, another process was there
            raise FileExistsError(f"{artifact.folder} was taken by another process just now; repeat the command.")
        return artifact, going_on
    raise FileExistsError(f"{artifact.folder} cannot be made or is taken again and again; give another --name.")


def reset_folder(artifact: Artifact, run: Run) -> None:
    """Make the folder, empty but for its config.yaml. What is in it goes, if it is a run."""
    artifact.folder.mkdir(parents=True, exist_ok=True)
    if not _is_empty(artifact.folder):
        _require_run(artifact)
    for path in artifact.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    config.write_yaml(run, artifact.config)


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or no more than a claim leaves: its settings."""
    names = os.listdir(folder) if folder.is_dir() else [""]
    return not names or (names == ["config.yaml"] and _is_run(Artifact(folder)))


def _is_run(artifact: Artifact) -> bool:
    """Whether a folder is a run: its config.yaml is one of this suite's."""
    try:
        return bool(config.read_yaml(artifact.config))
    except (OSError, ValueError):
        return False


def _require_run(artifact: Artifact) -> None:
    """UserError unless the folder is a run, and nothing but a run: only such a one is ever deleted."""
    if not _is_run(artifact):
        raise UserError(f"{artifact.folder} is left as it is: it holds no config.yaml of a run, so --overwrite would delete "
                        "other files. Delete it yourself, or give another --name.")  # fmt: skip
    inner = next((path.name for path in artifact.folder.iterdir() if Artifact(path).config.exists()), None)
    if inner:
        raise UserError(f"{artifact.folder} is left as it is: another run, {inner}, is in it. Move that, or give another --name.")
