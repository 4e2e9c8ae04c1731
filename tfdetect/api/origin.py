"""origin: what files say of their own origin."""

from collections.abc import Iterable, Iterator, Sized
from pathlib import Path

from tfdetect import machine
from tfdetect.data.origin.read import OriginReader
from tfdetect.data.origin.statement import Origin
from tfdetect.data.worker_pool import WorkerFailure, map_ordered
from tfdetect.errors import UserError

SECONDS = 60.0  # per file, besides the time for its hash


def origin(path: str | Path, coordinates: bool = False) -> Origin:
    """Return what an image or video says of its own origin, which needs no run and enters no score.

    The result has the fields sha256, bytes, format, statements (each with the kind of evidence it is), has_position and notes,
    and `to_dict()`. With `coordinates`, the position where it was taken is a statement, too. Raises UserError, with the reason,
    if the file cannot be read.
    """
    [found] = read_origins([path], coordinates)
    if found.error:
        raise UserError(f"{found.path}: {found.error}.")
    return found


def read_origins(paths: Iterable[str | Path], coordinates: bool = False) -> Iterator[Origin]:
    """Yield the origin of each file, in their order; one that cannot be read, or crashes what reads it, has its reason in
    `error`."""
    workers = min(machine.available_cores(), len(paths)) if isinstance(paths, Sized) else None
    for path, found in map_ordered(map(str, paths), OriginReader(coordinates), workers, SECONDS):
        yield Origin(path, error=found.reason) if isinstance(found, WorkerFailure) else found
