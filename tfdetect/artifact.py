"""The folder of a run, `saved_models/<run>/`: everything to use, judge and repeat it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tfdetect import config
from tfdetect.config import Run
from tfdetect.errors import UserError


@dataclass(frozen=True)
class Artifact:
    """Where each part of a run is."""

    folder: Path

    config = property(lambda self: self.folder / "config.yaml")
    manifest = property(lambda self: self.folder / "manifest.csv")
    failures = property(lambda self: self.folder / "failures.csv")
    faces = property(lambda self: self.folder / "faces.json")
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
    """The artifact in `folder`, which must hold that part. FileNotFoundError says what is missing and how it is made."""
    artifact = Artifact(folder)
    if not artifact.config.exists():
        raise FileNotFoundError(f"{folder} is no run: it has no config.yaml. Expected a folder such as saved_models/cnn.")
    if not getattr(artifact, part).exists():
        raise FileNotFoundError(
            f"{folder} lacks {getattr(artifact, part).name}: its training has not finished, or it was moved. "
            "python scripts/train.py makes it."
        )
    return artifact


def load_config(artifact: Artifact) -> Run:
    """The run that made the artifact; it finds faces with the very model that it was trained with."""
    run = config.parse(["--config", str(artifact.config)], "tfdetect")
    if not artifact.face_model.exists():
        return run
    return replace(run, data=replace(run.data, face_model=artifact.face_model))


def choose(run: Run) -> tuple[Artifact, bool]:
    """The folder for a run, and whether an interrupted run of the very same settings is there to go on with.

    Without a name: the last run of that detector if it was interrupted and is the same, else the next free name. With
    one: FileExistsError where that is taken by anything else, unless --resume or --overwrite says what to do.
    """
    if run.name is None:
        taken = [Artifact(run.out / name) for name in _names(run.detector.name) if (run.out / name).exists()]
        for artifact in taken[-1:]:
            if not artifact.finished and _same(run, artifact) and not _locked(artifact):
                return artifact, True
        name = next(name for name in _names(run.detector.name) if not (run.out / name).exists())
        return Artifact(run.out / name), False
    artifact = Artifact(run.out / run.name)
    if not artifact.folder.exists() or run.overwrite:
        return artifact, False
    same = _same(run, artifact)
    if run.resume and not same:
        raise UserError(f"{artifact.folder} was made with other settings than these: repeat those, or use another --name.")
    if run.resume or (same and not artifact.finished):
        return artifact, True
    raise FileExistsError(
        f"{artifact.folder} exists. Go on with it: --resume. Replace it: --overwrite. Or give another --name."
    )


def _names(detector: str) -> Iterator[str]:
    """cnn, cnn-2, cnn-3 ... up to one past the first gap."""
    yield detector
    yield from (f"{detector}-{number}" for number in range(2, 100_000))


def _same(run: Run, artifact: Artifact) -> bool:
    try:
        _, old = config.read(artifact.config)
    except (OSError, ValueError):
        return False
    tree = config.tree(run)
    detector = {key: value for key, value in tree["detector"].items() if key != "name"}
    # Neither the number of workers nor the place of the cache changes the result; the classes come from the files.
    drop = ("data.workers", "data.cache_dir", "detector.classes")
    return _without(old, drop) == _without(config.flags({**tree, "detector": detector}), drop)


def _without(flags: list[str], names: tuple[str, ...]) -> list[str]:
    """The flags and their values, but for those of these names."""
    out, keep = [], True
    for flag in flags:
        keep = flag.removeprefix("--") not in names if flag.startswith("--") else keep
        out += [flag] if keep else []
    return out


def _locked(artifact: Artifact) -> bool:
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
    handle = os.open(artifact.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{artifact.folder} is being trained by another process; give another --name.") from error
        yield
    finally:
        os.close(handle)


def create(artifact: Artifact, run: Run) -> None:
    """Make the folder, empty but for its config.yaml."""
    if artifact.folder.exists():
        shutil.rmtree(artifact.folder)
    artifact.folder.mkdir(parents=True)
    config.write(run, artifact.config)
