"""Apply a function to many items in parallel processes; a crash or hang fails one item, not the run."""

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
    """Takes the place of a result when an item could not be processed."""

    reason: str


@dataclass(frozen=True)
class _GuardedWork(Generic[T, R]):
    """Return exceptions of `work` instead of raising them, so that they are never mistaken for failures of the pool."""

    work: Callable[[T], R]
    seconds: float | None

    def __call__(self, item: T) -> R | WorkerFailure | Exception:
        deadline.start(self.seconds)
        try:
            return self.work(item)
        except MemoryError:
            return WorkerFailure("not enough memory to decode it")
        except Exception as error:
            return error
        finally:
            deadline.start(None)


def map_unordered(items: Iterable[T], work: Callable[[T], R], workers: int | None = None,
                  seconds: float | None = None) -> Iterator[tuple[T, R | WorkerFailure]]:
    """Yield (item, work(item)) in order of completion, computed in `workers` processes (default: one per core).

    `work` must be picklable. Each item may take `seconds`, plus what `work` requests by `deadline.extend`. If an item crashes
    its process or exceeds its time, its result is a WorkerFailure and a new process takes over. Exceptions of `work` are
    re-raised here and stop the iteration. Only a few items are read ahead, so `items` may be infinite.
    """
    count = workers or available_cores()
    remaining, guarded = iter(items), _GuardedWork(work, seconds)
    # Started first, because starting it unblocks SIGINT, which has to stay blocked while worker processes start.
    resource_tracker.ensure_running()
    # "spawn": forking a process that runs TensorFlow's threads may deadlock.
    pool = ProcessPool(count, initializer=_initialise_worker, context=get_context("spawn"))
    running: dict[Any, T] = {}
    try:
        while True:
            for item in islice(remaining, 4 * count - len(running)):
                with _blocked_interrupts():
                    running[pool.schedule(guarded, (item,))] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _outcome(future, seconds)
    finally:
        pool.stop()
        pool.join()


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block SIGINT. Threads of the pool started meanwhile, and their processes, inherit the mask and never receive Ctrl-C.

    A process that receives it while starting would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(future: Any, seconds: float | None) -> Any:
    try:
        result = future.result()
    except ProcessExpired as error:
        if deadline.is_timeout(error.exitcode):
            return WorkerFailure(f"decoding took longer than {seconds:g} s plus the allowance for its length (--data.timeout)")
        return WorkerFailure("the decoder crashed")
    if isinstance(result, Exception):
        raise result
    return result


def _initialise_worker() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # workers decode on the CPU and must not take the GPU's memory
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs print errors about damaged files; their reasons are returned instead
