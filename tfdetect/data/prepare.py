"""Manifest -> cache, on all cores."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any

import pandas as pd

from tfdetect.data.cache import Cache, failed

Progress = Callable[[dict[str, Any]], None]


def prepare(table: pd.DataFrame, cache: Cache, workers: int | None = None,
            progress: Progress | None = None) -> pd.DataFrame:
    """Decode every file of the manifest that the cache lacks.

    Returns the manifest with the columns sha, frames, width, height, note and error.

    `progress` is called with the result of each file. A file whose decoder brings its process down is a failure like
    any other. Raises OSError where the cache cannot be written.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, result in _results(list(table["path"]), cache, workers or os.cpu_count() or 1):
        found[path] = result
        if progress:
            progress(result)
    details = pd.DataFrame([found[path] for path in table["path"]], index=table.index)
    return pd.concat([table, details], axis=1)


def _results(paths: list[str], cache: Cache, workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    todo = iter(paths)
    while True:
        suspects: list[str] = []
        yield from _pool(todo, cache, min(workers, len(paths)), suspects)
        if not suspects:
            return
        for path in suspects:  # one of these killed a worker: each gets a process of its own, so that it is found out
            crashed: list[str] = []
            yield from _pool(iter([path]), cache, 1, crashed)
            if crashed:
                yield path, failed("", "its decoder crashed")


def _pool(todo: Iterator[str], cache: Cache, workers: int, crashed: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results as they come; where a worker dies, what was in flight goes to `crashed` and the rest stays in `todo`."""
    # "spawn": a fork of a process that runs TensorFlow's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        running: dict[Future[dict[str, Any]], str] = {}
        try:
            while True:
                for path in islice(todo, 4 * workers - len(running)):  # a bounded queue: memory stays flat
                    running[_submit(pool, cache, path, crashed)] = path
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            crashed += running.values()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _submit(pool: ProcessPoolExecutor, cache: Cache, path: str, crashed: list[str]) -> Future[dict[str, Any]]:
    try:
        return pool.submit(cache.add, path)
    except BrokenProcessPool:
        crashed.append(path)
        raise


def _quiet() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs write about broken files to stderr; the reasons are returned
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # workers decode on the CPU and must not take the GPU's memory


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a prepared manifest that hold a picture."""
    return table[table["error"] == ""].reset_index(drop=True)


def problems(table: pd.DataFrame, column: str) -> list[tuple[str, str]]:
    """(path, reason) of the rows whose `column`, "error" or "note", says something."""
    rows = table[table[column] != ""]
    return list(zip(rows["path"], rows[column], strict=True))
