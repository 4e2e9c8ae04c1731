"""The models that a server holds in memory: one for each run, by its name."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfdetect import artifact as artifacts
from tfdetect import installation, versions
from tfdetect.api.load import TrainedDetector
from tfdetect.errors import UserError
from tfdetect.server.batcher import Batcher
from tfdetect.server.settings import ServeSettings
from tfdetect.serving.saved_model import call_signature

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

T = TypeVar("T")


class UnknownModel(LookupError):
    """There is no such model, version or label; the message says so as TensorFlow Serving does."""


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

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], set[str]]:
        """Call a signature; return its outputs, and the names of those that have a row for each row of the inputs."""
        function = self.signatures()[signature]
        by_row = {name for name, spec in function.structured_outputs.items() if spec.shape.rank and spec.shape[0] is None}
        return call_signature(function, inputs), by_row


class Models:
    """The models of a server by name. All methods may be called from any thread, those that wait from any event loop."""

    def __init__(self, runs: Sequence[Path], settings: ServeSettings | None = None):
        """Check that these folders are runs with a SavedModel; `load` loads them.

        Raises FileNotFoundError, which suggests existing runs, where there is no run, and UserError for a run without SavedModel,
        and for two of the same name.
        """
        self.settings = settings or ServeSettings()
        self._runs = {find(run).folder.resolve().name: run for run in runs}
        if twice := [name for name, count in Counter(run.resolve().name for run in runs).items() if count > 1]:
            raise UserError(f"Two runs are named {twice[0]}, and a model is asked for by its name: rename one of the folders.")
        self._loaded: dict[str, dict[int, ServedModel]] = {}
        self._lock, self._batcher = threading.Lock(), Batcher(self.settings.batch.size, self.settings.batch.queue)

    def load(self) -> "Models":
        """Load the newest version of each run that is not loaded, and return self. Raises UserError for a damaged one."""
        for name, run in self._runs.items():
            if name not in self._loaded:
                model = load_version(name, run)
                with self._lock:
                    self._loaded[name] = {model.version: model}
        return self

    @property
    def ready(self) -> bool:
        """Whether all models are loaded."""
        return len(self._loaded) == len(self._runs)

    def names(self) -> list[str]:
        """Return the names of all models, also of those that are being loaded, in the order of the runs."""
        return list(self._runs)

    def get(self, name: str, version: int | None = None, label: str | None = None) -> ServedModel:
        """Return a model, by default its newest version. Raises UnknownModel, a LookupError, if it is not loaded."""
        with self._lock:
            loaded = self._loaded.get(name, {})
            if label is not None or version not in (None, *loaded) or not loaded:
                asked = f"Specific({name}, {version})" if version is not None else f"Latest({name})"
                raise UnknownModel(f"Servable not found for request: {asked}")
            return loaded[max(loaded) if version is None else version]

    @contextmanager
    def hold(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[ServedModel]:
        """Yield a model, which stays loaded meanwhile. Raises UnknownModel, a LookupError, if it is not loaded."""
        yield self.get(name, version, label)

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

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._batcher.close()


def find(run: Path) -> artifacts.Artifact:
    """Return the artifact of a run that can be served. Raises FileNotFoundError and UserError as `Models` does."""
    artifact = artifacts.find(run)
    if not artifact.saved_model.exists():
        raise UserError(f"{run} has no SavedModel: make one with {installation.command('export', run)}, on the Keras backend "
                        "TensorFlow.")  # fmt: skip
    return artifact


def load_version(name: str, run: Path) -> ServedModel:
    """Load the newest version of a run. Raises UserError if it is damaged."""
    detector = TrainedDetector(find(run).folder)
    model = ServedModel(name, versions.number(run), detector)
    model.signatures()  # loads it
    return model
