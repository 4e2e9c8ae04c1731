"""The folder of a run, `saved_models/<run>/`, with everything needed to use, evaluate and repeat it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import config, files, hashes, installation, versions
from tfdetect.errors import UserError, suggestion
from tfdetect.settings import Run

if TYPE_CHECKING:
    from tfdetect.evaluation.calibration import Calibration

MAY_CHANGE_ON_RESUME = ("train.epochs", "train.patience")
# The number of workers, the place of the cache and the tracker do not change the result; the classes are derived from the files.
NOT_COMPARED = ("data.workers", "data.cache_dir", "detector.classes", "train.tracker")
MAX_LISTED = 8  # run names or settings in a message
MAX_DEPTH = 3  # levels of folders in which runs are looked for
MAX_ATTEMPTS = 100  # to reserve a folder that other processes try to reserve at the same time


@dataclass(frozen=True)
class Artifact:
    """Paths of the files in a run folder."""

    folder: Path

    config = property(lambda self: self.folder / "config.yaml")
    manifest = property(lambda self: self.folder / "manifest.csv")
    failures = property(lambda self: self.folder / "failures.csv")
    faces = property(lambda self: self.folder / "faces.json")
    equalisation_plan = property(lambda self: self.folder / "equalised.json")
    face_model = property(lambda self: self.folder / "face_model.onnx")
    model = property(lambda self: self.folder / "model.keras")
    saved_model = property(lambda self: self.folder / str(versions.number(self.folder)))
    calibration = property(lambda self: self.folder / "calibration.json")
    familiarity = property(lambda self: self.folder / "familiarity.npz")
    metrics = property(lambda self: self.folder / "metrics.json")
    predictions = property(lambda self: self.folder / "predictions.csv")
    results = property(lambda self: self.folder / "Results.csv")
    final_prediction = property(lambda self: self.folder / "Final_Prediction.txt")
    history = property(lambda self: self.folder / "history.csv")
    shortcuts = property(lambda self: self.folder / "shortcuts.json")
    comparison = property(lambda self: self.folder / "comparison.json")
    report = property(lambda self: self.folder / "report.html")
    card = property(lambda self: self.folder / "README.md")
    report_text = property(lambda self: self.folder / "report.md")
    plots = property(lambda self: self.folder / "plots")
    logs = property(lambda self: self.folder / "logs")
    checkpoints = property(lambda self: self.folder / "checkpoints")

    @property
    def is_finished(self) -> bool:
        """Whether training has finished; the report is written last."""
        return self.report.exists()


def find(folder: Path, required: str = "calibration", trust: bool = False, saved_model: bool = True) -> Artifact:
    """Return the artifact in `folder`, which must contain the file that the `Artifact` property `required` names.

    Raises FileNotFoundError if the run or that file does not exist, BlockingIOError if it is being trained, UserError if files,
    those of the SavedModel if `saved_model`, differ from SHA256SUMS, unless `trust`. An interrupted version takes effect first.
    """
    artifact = Artifact(folder)
    if not artifact.config.exists():
        raise FileNotFoundError(f"No run folder {str(folder)!r}: it has no config.yaml.{_suggest_runs(folder)}")
    if is_locked(artifact):
        raise BlockingIOError(f"{folder} is being trained by another process; wait until it has finished.")
    if versions.is_behind(folder):
        with lock(artifact):
            versions.check_out(folder)
    path: Path = getattr(artifact, required)
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {path.name}: its training did not finish, or the file was moved. "
                                f"Train the run with {installation.command('train')}.")  # fmt: skip
    if not trust:
        hashes.check(folder, saved_model)
    return artifact


def find_runs(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Yield `folder` if it is a run, else the runs in it, at most `depth` levels down; links are followed to runs only.

    A folder that cannot be read is yielded too, since it may be a run; one that was deleted meanwhile is not.
    """
    try:
        is_run = Artifact(folder).config.exists()
        inside = [] if is_run or not depth else sorted(path for path in folder.iterdir() if path.is_dir())
    except PermissionError:
        is_run, inside = True, []
    except FileNotFoundError:
        return
    if is_run:
        yield folder
    for path in inside:
        yield from find_runs(path, 0 if path.is_symlink() else depth - 1)


def _suggest_runs(folder: Path) -> str:
    """Return a sentence that lists the runs inside or beside `folder`, or else in saved_models, the closest name first."""
    for place in dict.fromkeys((folder, folder.parent, Path("saved_models"))):
        with suppress(OSError):
            names = sorted(entry.name for entry in place.iterdir() if Artifact(entry).config.exists())
            if names:
                hint = suggestion(folder.name, names, str(place / "_").removesuffix("_"))
                return f"{hint} Runs in {place}: {', '.join(names[:MAX_LISTED])}{', ...' * (len(names) > MAX_LISTED)}."
    return f" Expected a folder such as saved_models/cnn, which {installation.command('train')} creates."


def load_config(artifact: Artifact) -> Run:
    """Return the run that made the artifact; it uses the face detector stored with it.

    Raises UserError if config.yaml contains a value that is not valid.
    """
    try:
        run = config.parse(["--config", str(artifact.config)], "tfdetect")
    except SystemExit as error:  # the parser has printed which value is wrong
        raise UserError(f"{artifact.config} is not valid, see above: correct that value, or copy the run again.") from error
    if not artifact.face_model.exists():
        return run
    return replace(run, data=replace(run.data, face_model=artifact.face_model))


def load_calibration(artifact: Artifact) -> "Calibration":
    """Return the calibration of a run. Raises UserError if calibration.json is damaged."""
    from tfdetect.evaluation.calibration import Calibration

    try:
        return Calibration.from_dict(json.loads(artifact.calibration.read_bytes()))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{artifact.calibration} is damaged ({error}): copy it again, or train the run again.") from error


def select_folder(run: Run) -> tuple[Artifact, bool]:
    """Return the folder for a run, and whether to resume the interrupted run with the same settings that it holds.

    Without a name: the detector's last run if it was interrupted and has the same settings, otherwise the next free name.
    With a name: raises FileExistsError if it is taken by a finished run or one with other settings, unless --resume or
    --overwrite says what to do with it, and UserError if the run cannot be resumed.
    """
    if run.name is None:
        existing = set(os.listdir(run.out)) if run.out.is_dir() else set()  # listed once: one stat per name takes seconds
        taken = [Artifact(run.out / name) for name in _candidate_names(run.detector.name) if name in existing]
        for artifact in taken[-1:]:
            if not artifact.is_finished and not changed_settings(run, artifact) and not is_locked(artifact):
                return artifact, True
        name = next(name for name in _candidate_names(run.detector.name) if name not in existing)
        return Artifact(run.out / name), False
    artifact = Artifact(run.out / run.name)
    if run.resume and not artifact.folder.exists():
        raise UserError(f"There is no run {artifact.folder} to resume.{_suggest_runs(artifact.folder)}")
    if not artifact.folder.exists() or run.overwrite:
        return artifact, False
    changed = changed_settings(run, artifact)
    if run.resume:
        _require_resumable(artifact, changed)
    if run.resume or not (changed or artifact.is_finished):
        return artifact, True
    if _is_empty(artifact.folder):
        return artifact, False
    hint = "train it further with --resume and a higher --train.epochs" if artifact.is_finished else "resume it with --resume"
    raise FileExistsError(f"{artifact.folder} exists: {hint}, replace it with --overwrite, or give another --name.")


def _require_resumable(artifact: Artifact, changed: dict[str, str]) -> None:
    """Raise UserError if settings other than the length of the training have changed, or a calibration would be lost."""
    if versions.number(artifact.folder) > 1:
        raise UserError(f"{artifact.folder} has several versions, and --resume would change the newest: give --from "
                        f"{artifact.folder} instead, which makes a new one.")  # fmt: skip
    if texts := [text for name, text in changed.items() if name not in MAY_CHANGE_ON_RESUME]:
        raise UserError(f"{artifact.folder} was trained with other settings: {', '.join(texts[:MAX_LISTED])}. Use the same "
                        "settings or another --name; --resume can only change --train.epochs and --train.patience.")  # fmt: skip


def _candidate_names(detector: str) -> Iterator[str]:
    """Yield the default run names: cnn, cnn-2, cnn-3 ..."""
    yield detector
    yield from (f"{detector}-{number}" for number in range(2, 100_000))


def changed_settings(run: Run, artifact: Artifact) -> dict[str, str]:
    """Map the name of each setting that affects the result and differs from the artifact's to a description of the change."""
    try:
        detector, flags = config.read_yaml(artifact.config)
    except (OSError, ValueError) as error:
        return {"config": f"its config.yaml cannot be read ({error})"}
    settings = config.run_to_dict(run)
    new = {"detector": [settings["detector"].pop("name")], **_values_by_flag(config.to_flags(settings))}
    old = {"detector": [detector], **_values_by_flag(flags)}
    changed = {}
    for name in {**old, **new}:
        before, after = (" ".join(values.get(name, ["not set"])) for values in (old, new))
        chosen = name == "data.hold_out" and before.split()[:1] == after.split()[:1] == ["auto"]  # followed by what auto chose
        if before != after and name not in NOT_COMPARED and not chosen:
            changed[name] = f"{'--' * ('.' in name)}{name} was {before} and is now {after}"
    return changed


def _values_by_flag(flags: list[str]) -> dict[str, list[str]]:
    """Group the output of `config.to_flags` by flag: ["--train.no_xla", "--data.size", "64"] -> train.xla off, data.size 64."""
    grouped: dict[str, list[str]] = {}
    for word in flags:
        if word.startswith("--"):
            section, _, name = word.removeprefix("--").rpartition(".")
            positive = name.removeprefix("no_")
            values = grouped.setdefault(f"{section}.{positive}", ["on"] if positive == name else ["off"])
        else:
            values[:] = [*(values if values != ["on"] else []), word]
    return grouped


def is_locked(artifact: Artifact) -> bool:
    """Return whether another process is training into the folder, or has just deleted it."""
    try:
        with lock(artifact, shared=True):  # several processes may ask at the same time
            return False
    except (BlockingIOError, FileNotFoundError):
        return True


@contextmanager
def lock(artifact: Artifact, shared: bool = False) -> Iterator[None]:
    """Hold an exclusive or shared lock on the run folder; the operating system releases it when the process ends for any reason.

    Raises BlockingIOError if another process is training into the folder.
    """
    import fcntl  # which Windows lacks; there, nothing starts

    handle = os.open(artifact.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{artifact.folder} is being trained by another process; give another --name.") from error
        os.stat(artifact.folder)  # raises FileNotFoundError if the previous holder has just deleted the folder
        yield
    finally:
        os.close(handle)


@contextmanager
def reserve_folder(run: Run) -> Iterator[tuple[Artifact, bool]]:
    """Create and lock the folder chosen by `select_folder` before any work, so that no other process takes it.

    Yields what `select_folder` returns. A folder that is still empty at the end is deleted. With --overwrite, the old run
    is kept until `reset_folder`.
    """
    created_parent = not run.out.exists()
    with ExitStack() as locks:
        artifact, resumes = _reserve(run, locks)
        try:
            yield artifact, resumes
        finally:
            if _is_empty(artifact.folder):
                artifact.config.unlink(missing_ok=True)
                artifact.folder.rmdir()
                with suppress(OSError):  # the parent may hold other runs by now
                    run.out.rmdir() if created_parent else None


def _reserve(run: Run, locks: ExitStack) -> tuple[Artifact, bool]:
    for _ in range(MAX_ATTEMPTS):
        artifact, resumes = select_folder(run)
        try:
            if not os.path.lexists(artifact.folder):
                artifact.folder.mkdir(parents=True)
            locks.enter_context(lock(artifact))
        except (FileExistsError, FileNotFoundError):  # another process has just created or deleted it
            continue
        except BlockingIOError:
            if run.name is not None:
                raise
            continue
        if _is_empty(artifact.folder):
            config.write_yaml(run, artifact.config)
        elif run.overwrite:
            require_run(artifact)
        elif not resumes:  # another process used the folder between selection and lock
            raise FileExistsError(f"{artifact.folder} was just taken by another process; repeat the command.")
        return artifact, resumes
    raise FileExistsError(f"{artifact.folder} cannot be created, or other processes keep taking it; give another --name.")


def reset_folder(artifact: Artifact, run: Run) -> None:
    """Create the run folder, or delete the run in it, so that it only contains config.yaml. Raises UserError if the folder
    holds anything other than a run."""
    artifact.folder.mkdir(parents=True, exist_ok=True)
    if not _is_empty(artifact.folder):
        require_run(artifact)
    _delete_content(artifact)
    config.write_yaml(run, artifact.config)


@contextmanager
def lock_for_deletion(artifact: Artifact) -> Iterator[None]:
    """Hold the lock of a run that may be deleted. Raises UserError if the folder is a link or anything but one run,
    BlockingIOError if it is being trained."""
    if artifact.folder.is_symlink():
        raise UserError(f"{artifact.folder} is a link to {artifact.folder.resolve()}. Delete it yourself.")
    with lock(artifact):
        require_run(artifact, "Delete the folder yourself.")
        yield


def delete(artifact: Artifact) -> None:
    """Delete a run. Raises UserError and BlockingIOError as `lock_for_deletion` does."""
    with lock_for_deletion(artifact):
        _delete_content(artifact)
        artifact.config.unlink()
        artifact.folder.rmdir()


def _delete_content(artifact: Artifact) -> None:
    """Delete all but config.yaml, the report first: what an interruption leaves is an unfinished run."""
    for path in sorted(artifact.folder.iterdir(), key=lambda path: path != artifact.report):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != artifact.config:
            path.unlink()


def _is_empty(folder: Path) -> bool:
    """Return whether a folder contains nothing but, at most, the config.yaml that `reserve_folder` writes."""
    names = os.listdir(folder) if folder.is_dir() else [""]
    return not names or (names == ["config.yaml"] and _is_run(Artifact(folder)))


def _is_run(artifact: Artifact) -> bool:
    """Return whether the folder contains the config.yaml of a run, of any version."""
    try:
        return bool(config.load_yaml(artifact.config))
    except (OSError, ValueError):
        return False


def require_run(artifact: Artifact, hint: str = "Delete the folder yourself, or give another --name.") -> None:
    """Raise UserError unless the folder is a run and contains no other run; nothing else is ever deleted."""
    folder = artifact.folder
    if not _is_run(artifact):
        raise UserError(f"{folder} has no config.yaml of a run, so other files could be lost; nothing was deleted. {hint}")
    for path, _ in files.walk(folder):
        is_version = Path(path).parent.parent == folder / versions.FOLDER
        if os.path.basename(path) == artifact.config.name and Path(path) != artifact.config and not is_version:
            raise UserError(f"{folder} contains another run, {Path(path).parent.relative_to(folder)}; nothing was deleted. Move "
                            "that run elsewhere first.")  # fmt: skip
