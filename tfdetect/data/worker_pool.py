"""One function over many items, on all cores; a crash or a hang costs one item, never the run."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, resource_tracker
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from tfdetect.data import deadline
from tfdetect.machine import available_cores

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WorkerFailure:
    """Stands where a result would: the process that worked on the item is gone."""

    reason: str


@dataclass(frozen=True)
class _Guarded(Generic[T, R]):
    """Returns what `work` raises, so that the pool's own troubles and those of the work are never confused."""

    work: Callable[[T], R]
    seconds: float | None

    def __call__(self, item: T) -> R | WorkerFailure | Exception:
        deadline.start(self.seconds)
        try:
            return self.work(item)
        except MemoryError:
            return WorkerFailure("it needs more memory than there is")
        except Exception as error:
            return error
        finally:
            deadline.start(None)


def results(items: Iterable[T], work: Callable[[T], R], workers: int | None = None,
            seconds: float | None = None) -> Iterator[tuple[T, R | WorkerFailure]]:
    """Yield (item, work(item)) as they come, in processes of their own; at most `seconds` for each, unless `work` allows
    it more (`deadline.allow`).

    `work` must be picklable. An item that brings its process down, or takes longer, yields Lost, and a new process takes
    over. What `work` raises is raised here, and ends it all. Few items are taken ahead, so `items` may be endless.
    """
    count = workers or available_cores()
    todo, guarded = iter(items), _Guarded(work, seconds)
    resource_tracker.ensure_running()  # by itself it starts with the first process, and then lets that one hear Ctrl-C
    # "spawn": a fork of a process that runs TensorFlow's threads may hang.
    pool = ProcessPool(count, initializer=_quiet, context=get_context("spawn"))
    running: dict[Any, T] = {}
    try:
        while True:
            for item in islice(todo, 4 * count - len(running)):
                with _deaf():
                    running[pool.schedule(guarded, (item,))] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _outcome(future, seconds)
    finally:
        pool.stop()
        pool.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C waits. The pool's threads, made meanwhile, and so the processes that they start never hear it: one that is only
    starting would die of it with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(future: Any, seconds: float | None) -> Any:
    try:
        found = future.result()
    except ProcessExpired as error:
        if deadline.passed(error.exitcode):
            return WorkerFailure(f"it took longer than {seconds:g} seconds and what its length adds (--data.timeout)")
        return WorkerFailure("its decoder crashed")
    if isinstance(found, Exception):
        raise found
    return found


def _quiet() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # workers decode on the CPU and must not take the GPU's memory
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs write about broken files to stderr; the reasons are returned
