"""The models that a server holds in memory: the newest versions of each run, and those that a label names.

A version that `calibrate` or `train --from` adds is loaded beside the others, warmed up, and takes effect between two requests.
One that cannot be loaded changes nothing. What is replaced leaves memory once nobody holds it any more.
"""

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfdetect import artifact as artifacts
from tfdetect import hashes, installation, versions
from tfdetect.api.load import TrainedDetector
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.server.batcher import Batcher
from tfdetect.server.metrics import Metrics
from tfdetect.server.settings import ServeSettings
from tfdetect.serving import saved_model
from tfdetect.workflow import verdicts

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

T = TypeVar("T")
log = logging.getLogger("tfdetect.server")


class UnknownModel(LookupError):
    """There is no such model or version; the message says so as TensorFlow Serving does."""


class UnknownLabel(UnknownModel):
    """There is no such label, which TensorFlow Serving calls an invalid request."""


class ServedDetector(TrainedDetector):
    """A detector that is loaded without a line on the device each time."""

    @cached_property
    def predictor(self) -> "Predictor":
        """The exported model and its calibration."""
        return verdicts.load_predictor(self.artifact, self.run, announce=False)


@dataclass(frozen=True)
class ServedModel:
    """A version of a run, loaded."""

    name: str
    version: int
    detector: TrainedDetector

    @property
    def predictor(self) -> "Predictor":
        """What scores files with it; safe to be read by several threads."""
        return self.detector.predictor

    def signatures(self) -> Mapping[str, Any]:
        """Return the signatures of the SavedModel by name, TensorFlow's concrete functions."""
        found: Mapping[str, Any] = self.predictor.model.signatures
        return found

    @cached_property
    def signature_defs(self) -> Mapping[str, Any]:
        """The signatures as JSON, as TensorFlow Serving shows them."""
        return saved_model.signature_defs(self.detector.artifact.saved_model)

    @property
    def lacks_verdicts(self) -> bool:
        """Whether signatures answer with a probability alone, as older versions of tfdetect exported them."""
        return any("probability" in each.structured_outputs and "verdict" not in each.structured_outputs
                   for each in self.signatures().values())  # fmt: skip

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], set[str]]:
        """Call a signature; return its outputs, and the names of those that have a row for each row of the inputs."""
        function = self.signatures()[signature]
        by_row = {name for name, spec in function.structured_outputs.items() if spec.shape.rank and spec.shape[0] is None}
        return saved_model.call_signature(function, inputs), by_row

    @cached_property
    def model_hash(self) -> str:
        """The SHA-256 of the run's SHA256SUMS, which stands for all files that decide a verdict (docs/runs.md)."""
        return hashes.model_hash(self.detector.folder)

    def warm_up(self) -> None:
        """Load all that answers need, and call each signature once: the first calls are slow, and fail if it is damaged."""
        _ = self.model_hash, self.signatures()
        _ = self.predictor.spec, self.signature_defs
        saved_model.warm_up(self.detector.artifact.saved_model, self.predictor.model)


@dataclass(eq=False)
class _Version:
    """What is known of a version; `model` is None unless it can be asked."""

    model: ServedModel | None = None
    state: str = "LOADING"  # TensorFlow Serving's words: LOADING, AVAILABLE, UNLOADING, END
    error: str = ""
    changed: float = 0.0  # when the files were last changed that could not be loaded


class Models:
    """The models of a server by name. All methods may be called from any thread, those that wait from any event loop."""

    def __init__(self, runs: Sequence[Path], settings: ServeSettings | None = None):
        """Check that these folders are runs with a SavedModel; `load` or `watch` loads them.

        Raises FileNotFoundError, which suggests existing runs, where there is no run, and UserError for a run without SavedModel,
        for two of the same name, and for a label of an unknown model.
        """
        self.settings, batch = settings or ServeSettings(), (settings or ServeSettings()).batch
        self._runs = {find(run, self.settings.trust).folder.resolve().name: run for run in runs}
        if twice := [name for name, count in Counter(run.resolve().name for run in runs).items() if count > 1]:
            raise UserError(f"Two runs are named {twice[0]}, and a model is asked for by its name: rename one of the folders.")
        self.labels = self.settings.labels_of(self._runs)
        self.metrics = Metrics(lambda: self._batcher.waiting)
        self._batcher = Batcher(batch.size, batch.wait, batch.queue, lambda key, *figures: self.metrics.batch(key[0], *figures))
        self._versions: dict[str, dict[int, _Version]] = {name: {} for name in self._runs}
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._wake, self._stopped, self._unloaded = threading.Event(), False, False
        self._watcher: threading.Thread | None = None
        self.failure: Exception | None = None
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        """Whether a version of each model can be asked."""
        return not self.loading()

    def loading(self) -> list[str]:
        """Return the names of the models of which no version can be asked yet."""
        with self._lock:
            return [name for name, known in self._versions.items() if not any(each.model for each in known.values())]

    def names(self) -> list[str]:
        """Return the names of all models, also of those that are being loaded, in the order of the runs."""
        return list(self._runs)

    def states(self, name: str) -> dict[int, tuple[str, str]]:
        """Return number -> state and error of the versions of a model; none of an unknown one."""
        with self._lock:
            return {number: (each.state, each.error) for number, each in self._versions.get(name, {}).items()}

    def get(self, name: str, version: int | None = None, label: str | None = None) -> ServedModel:
        """Return a model, by default its newest version; it stays loaded as long as somebody holds it.

        Raises UnknownModel, a LookupError, if it is not loaded.
        """
        if label is not None:
            if (name, label) not in self.labels:
                raise UnknownLabel(f"Unrecognized servable version label: {label}")
            version = self.labels[name, label]
        with self._lock:
            loaded = {number: each.model for number, each in self._versions.get(name, {}).items() if each.model}
        found = loaded.get(max(loaded, default=0) if version is None else version)
        if not found:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise UnknownModel(f"Servable not found for request: {asked}")
        return found

    async def predict(self, model: ServedModel, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Call a signature with arrays that all have a row per example, together with the inputs of other requests.

        Raises KeyError for a signature that the model lacks, and Overloaded if too many requests wait.
        """
        shapes = [(name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items())]
        key = (model.name, model.version, signature, *shapes)
        return await asyncio.wrap_future(self._batcher.submit(key, partial(model.call, signature), inputs))

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)`, which calls TensorFlow, where the models are called, too. Raises Overloaded."""
        found: T = await asyncio.wrap_future(self._batcher.run(function, *args))
        return found

    def load(self) -> "Models":
        """Load what is to be served and is not loaded yet, drop what is not, and return self.

        Raises UserError if no version of a run can be loaded, and none is.
        """
        with self._loading:
            for name, run in self._runs.items():
                if self._stopped and not self.ready:
                    break  # nobody will ask
                self._refresh(name, run)
        return self

    def watch(self) -> None:
        """Load the models in a thread, and look for new versions until `stop_watching`.

        `on_ready` is called once all are loaded. If one cannot be loaded at first, `failure` says why and `on_failure` is called.
        """
        self._stopped = False
        self._watcher = threading.Thread(target=self._watch, name="loader", daemon=True)
        self._watcher.start()

    def stop_watching(self) -> None:
        """End the thread that `watch` began."""
        self._stopped = True
        self._wake.set()
        if self._watcher:
            self._watcher.join()

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self.stop_watching()
        self._batcher.close()

    def _watch(self) -> None:
        last = -float("inf")
        while not self._stopped:
            try:
                if not self.ready or (self.settings.reload and time.monotonic() - last >= self.settings.reload):
                    was_ready, _ = self.ready, self.load()
                    last = time.monotonic()
                    if not was_ready and not self._stopped:
                        self.on_ready()
            except Exception as error:
                if not self.ready:
                    self.failure = error
                    self.on_failure()
                    return
                log.exception("looking for new versions failed")
            self._wake.wait(self.settings.reload or None)
            self._wake.clear()
            if self._unloaded:
                self._unloaded = False
                gc.collect()  # TensorFlow's objects refer to each other

    def _refresh(self, name: str, run: Path) -> None:
        """Load the newest versions of a run that can be loaded, and those with a label; drop the others."""
        labelled = {number for (model, _), number in self.labels.items() if model == name}
        existing, kept = existing_versions(run), list[int]()
        for number in sorted(existing, reverse=True):
            if (len(kept) < self.settings.versions or number in labelled) and self._ensure(name, number, existing[number]):
                kept.append(number)
        with self._lock:
            known = self._versions[name]
            if not kept and not any(each.model for each in known.values()):
                raise UserError(known[max(known)].error)
            for number, each in known.items():
                if kept and each.model and number not in kept:
                    weakref.finalize(each.model, self._forget, name, number)
                    each.model, each.state = None, "UNLOADING"
            newest = max(number for number, each in known.items() if each.model)
        self.metrics.version.labels(name).set(newest)

    def _ensure(self, name: str, number: int, folder: Path) -> bool:
        """Return whether a version can be asked, once it was loaded if need be; one that failed is tried again if it changed."""
        known, changed = self._versions[name].get(number), last_change(folder)
        if known and (known.model or known.changed == changed):
            return known.model is not None
        entry, start = _Version(), time.monotonic()
        with self._lock:
            self._versions[name][number] = entry
        try:
            model = ServedModel(name, number, ServedDetector(find(folder, self.settings.trust).folder))
            model.warm_up()
        except Exception as error:
            entry.state, entry.error, entry.changed = "END", " ".join(str(error).split()), changed
            log.error("model=%s version=%d not loaded: %s", name, number, entry.error)
        else:
            entry.model, entry.state = model, "AVAILABLE"
            log.info("model=%s version=%d loaded in %.1f s", name, number, time.monotonic() - start)
        self.metrics.loads.labels(name, "failed" if entry.error else "loaded").inc()
        return entry.model is not None

    def _forget(self, name: str, number: int) -> None:
        """Note that nobody holds a replaced version any more, and have its memory freed."""
        self._versions[name][number].state, self._unloaded = "END", True
        log.info("model=%s version=%d unloaded", name, number)
        self._wake.set()


def find(run: Path, trust: bool = False) -> Artifact:
    """Return the artifact of a run that can be served. Raises FileNotFoundError and UserError as `Models` does, and UserError if
    its files differ from its SHA256SUMS, unless `trust`."""
    artifact = artifacts.find(run, trust=trust)
    if not artifact.saved_model.exists():
        raise UserError(f"{run} has no SavedModel, as after a training with KERAS_BACKEND=torch or jax: make one with "
                        f"{installation.command('export', run)}.")  # fmt: skip
    return artifact


def existing_versions(run: Path) -> dict[int, Path]:
    """Return the folder of each version of a run that exists."""
    found = {number: run / versions.FOLDER / str(number) for number in versions.listed(run)}
    return found or {versions.number(run): run}


def last_change(folder: Path) -> float:
    """Return when the files of a version were last changed."""
    return max((path.stat().st_mtime for path in (folder, *Artifact(folder).saved_model.rglob("*"))), default=0.0)
