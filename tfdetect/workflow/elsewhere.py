"""Score files on the workers of Dask or Beam, each of which loads the model once; the verdicts are those of this machine."""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import artifact as artifacts
from tfdetect import models  # noqa: F401  (registers the detectors)
from tfdetect.errors import UserError
from tfdetect.settings import DecodeOverrides
from tfdetect.verdict_settings import AS_TRAINED, VerdictOverrides
from tfdetect.workflow import console, operating_point, verdicts
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor, Verdict

Elsewhere = Callable[["ScoreFiles", Iterable[str | Path]], "Generator[Verdict]"]
FILES = 32  # that Dask sends to a worker at a time
_loading = threading.Lock()  # a worker may have several threads


@dataclass(frozen=True)
class ScoreFiles:
    """Score files by a run, in whichever process it is called."""

    run: Path
    """Its folder, which all machines see under the same path."""
    key: str
    """The `settings_key` of the run, by which a worker knows that it sees the same files."""
    data: DecodeOverrides
    base: Path
    """Folder from which relative paths start."""
    given: VerdictOverrides = AS_TRAINED
    """How scores become verdicts."""

    @classmethod
    def of(cls, artifact: artifacts.Artifact, data: DecodeOverrides, given: VerdictOverrides = AS_TRAINED) -> "ScoreFiles":
        """Return what scores files by the run in this folder."""
        settings = data.apply_to(artifacts.load_config(artifact).data)
        return cls(artifact.folder.absolute(), verdicts.settings_key(artifact, settings, given), data, Path.cwd(), given)

    def load(self) -> "tuple[Predictor, float]":
        """Return the predictor of the run, whose model a process loads once, and the seconds that a file may take.

        Raises UserError if the run is another one here.
        """
        with _loading:
            predictor, seconds = _load(self)
            _ = predictor.model
            return predictor, seconds

    def __call__(self, paths: Sequence[str], workers: int | None = 1) -> "list[Verdict]":
        """Return the verdicts on files; they are decoded by `workers` processes, None for one per core."""
        predictor, seconds = self.load()
        with closing(predictor.predict_files([self.base / path for path in paths], seconds, workers)) as found:
            return [replace(verdict, path=path) for path, verdict in zip(paths, found, strict=True)]


@lru_cache(1)  # a worker may be given several runs in turn, and the same one again after it was trained again
def _load(score: ScoreFiles) -> "tuple[Predictor, float]":
    start()
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.dataset import cache_for, with_equalisation

    artifact = artifacts.find(score.run, trust=True)  # `key` says whether it is the run that was checked where it was sent from
    run = artifacts.load_config(artifact)
    settings = score.data.apply_to(run.data)
    if verdicts.settings_key(artifact, settings, score.given) != score.key:
        raise UserError(f"{score.run} is another run on a worker than here: all machines must see the same folder there.")
    spec = with_equalisation(cache_for(run.data, run.detector), artifact).spec

    def import_quietly() -> None:
        _ = console.served_devices_line() if artifact.saved_model.exists() else console.import_keras()

    calibration = operating_point.calibration_of(artifact, score.given)
    predictor = Predictor(artifact, spec, run.detector, import_quietly, run.evaluate.aggregate, calibration)
    return predictor.judging(score.given.unfamiliar, score.given.any).with_limits(settings.limits), settings.timeout


def on_dask(score: ScoreFiles, paths: Iterable[str | Path], address: str | None, workers: int | None) -> "Generator[Verdict]":
    """Yield the verdict on each file in turn, by the cluster whose scheduler is at `address`, or by processes on this machine."""
    from tfdetect.data import dask_pool
    from tfdetect.data.worker_pool import WorkerFailure
    from tfdetect.serving.predictor import Verdict

    with dask_pool.connect(address, workers) as cluster:
        for path, found in cluster.map_ordered(map(str, paths), score, FILES):
            yield Verdict(path, error=found.reason) if isinstance(found, WorkerFailure) else found
