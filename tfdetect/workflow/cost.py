"""What a training cost: its time, and the parameters of its model."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfdetect import files
from tfdetect.artifact import Artifact
from tfdetect.workflow.console import devices_line

FILE = "cost.json"


@contextmanager
def timed(artifact: Artifact, precision: str) -> Iterator[None]:
    """Add the seconds that the block takes to those in cost.json, also if it ends with an error; a process that is killed leaves
    its seconds out. Features that are in the cache already cost nothing."""
    start, before = time.monotonic(), read(artifact).get("training_seconds", 0.0)
    try:
        yield
    finally:
        found = {"training_seconds": before + time.monotonic() - start, "device": devices_line(precision).splitlines()[0]}
        files.write_json(artifact.folder / FILE, found)


def read(artifact: Artifact) -> dict[str, Any]:
    """Return `training_seconds` and `device`; {} for a run that was trained before they were measured."""
    path = artifact.folder / FILE
    return files.read_json(path, (), "delete it.") if path.exists() else {}


def count_parameters(model: Path) -> int | None:
    """Return the number of parameters in a .keras file, as `keras.Model.count_params` does, without building the model; None if
    it is gone or damaged."""
    import h5py

    sizes: list[int] = []

    def add(name: str, item: Any) -> None:
        is_weight = "/vars/" in name and not name.startswith("optimizer/") and "seed_generator" not in name
        if is_weight and isinstance(item, h5py.Dataset):
            sizes.append(item.size)

    try:
        with zipfile.ZipFile(model) as parts, h5py.File(io.BytesIO(parts.read("model.weights.h5"))) as weights:
            weights.visititems(add)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return sum(sizes)
