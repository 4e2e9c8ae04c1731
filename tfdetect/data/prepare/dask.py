"""Decode on a Dask cluster: the same function for each file as on one machine; this machine alone writes the cache."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from tfdetect.data import dask_pool, worker_pool
from tfdetect.data.prepare.clip_cache import Cache, Decoded
from tfdetect.data.worker_pool import WorkerFailure

MAX_FILES, MAX_BYTES = 16, 2**25  # of a group, whose clips travel together


@dataclass(frozen=True)
class DaskRunner:
    """Where to decode. Its `results` replaces `decode_locally` in `decode.prepare`."""

    address: str | None = None  # of the scheduler; None starts processes on this machine

    def results(self, paths: Iterable[str], cache: Cache, workers: int | None = None,
                seconds: float | None = None) -> Iterator[tuple[str, Decoded | WorkerFailure]]:  # fmt: skip
        """Decode the files, each within `seconds`, and yield (path, what became of it) in their order.

        `workers` is the number of processes if there is no address. Raises UserError as `dask_pool` does.
        """
        remaining = iter(paths)
        if (first := next(remaining, None)) is None:
            return
        spec = cache.spec
        size = max(1, min(MAX_FILES, MAX_BYTES // (spec.max_squares * spec.size**2 * 3)))
        with dask_pool.connect(self.address, workers) as cluster:
            yield from cluster.map_ordered(chain([first], remaining), _DecodeFiles(_without_folder(cache), seconds), size)


@dataclass(frozen=True)
class _DecodeFiles:
    """Decode some files in one process that is not the Dask worker's, which a file may crash."""

    cache: Cache
    seconds: float | None

    def __call__(self, paths: Sequence[str]) -> list[Decoded | WorkerFailure]:
        return [outcome for _, outcome in worker_pool.map_ordered(paths, self.cache.decode_file, 1, self.seconds)]


def _without_folder(cache: Cache) -> Cache:
    """Return the cache for a machine that only reads files: it looks for no clip, so the cache's folder need not be shared."""
    faces = cache.spec.faces and replace(cache.spec.faces, model=cache.spec.faces.model.absolute())
    return replace(cache, root=Path(os.devnull), spec=replace(cache.spec, faces=faces))
