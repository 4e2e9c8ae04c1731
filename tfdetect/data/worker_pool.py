"""Apply a function to many items in parallel processes; a crash or hang fails one item, not the run."""

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired

from tfdetect import machine, stages
from tfdetect.data import deadline, stopping
from tfdetect.data.worker_processes import Processes, end_idle_processes, is_confined

CRASHED = "the decoder crashed"
NOT_STARTED = "no decoder could be started"
NO_PROCESSES = ("Worker processes cannot be started ({}): files are decoded in this process, one at a time and without a time "
                "limit. A file that crashes its decoder now ends this process.")  # fmt: skip
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WorkerFailure:
    """Takes the place of a result when an item could not be processed."""

    reason: str


@dataclass(frozen=True)
class _GuardedWork(Generic[T, R]):
    """Return (result, seconds of stages), with exceptions of `work` instead of raising them, so that they are never mistaken for
    failures of the pool."""

    work: Callable[[T], R]
    seconds: float | None

    def __call__(self, item: T) -> tuple[R | WorkerFailure | Exception, dict[str, float]]:
        deadline.start(self.seconds)
        try:
            return self.work(item), stages.take()
        except MemoryError:
            return WorkerFailure("not enough memory to decode it"), stages.take()
        except Exception as error:
            return error, stages.take()
        finally:
            deadline.start(None)


def map_unordered(items: Iterable[T], work: Callable[[T], R], workers: int | None = None, seconds: float | None = None,
                  stop: threading.Event | None = None) -> Generator[tuple[T, R | WorkerFailure]]:  # fmt: skip
    """Yield (item, work(item)) in order of completion, computed in `workers` processes (default: one per core).

    `work` must be picklable. Each item may take `seconds`, plus what `work` requests by `deadline.extend`. If an item crashes
    its process or exceeds its time, its result is a WorkerFailure and a new process takes over. Exceptions of `work` are
    re-raised here and stop the iteration. Only a few items are read ahead, so `items` may be infinite. Once another thread sets
    `stop`, by default that of `stopping`, it ends within a second. Where no process can be started, the items are processed in
    this one, without a time limit, and a line on stderr says so; if processes are confined (`worker_processes.confine`), the
    items fail instead.
    """
    remaining, guarded, stop = iter(items), _GuardedWork(work, seconds), stop or stopping.event()
    while True:
        in_work: dict[Any, T] = {}
        try:
            yield from _map_in_pool(remaining, in_work, guarded, workers, stop)
            return
        except BrokenProcessPool as error:
            if not _processes_start():
                remaining = chain(in_work.values(), remaining)
                if is_confined():
                    yield from ((item, WorkerFailure(NOT_STARTED)) for item in remaining)
                    return
                with machine.stderr_lock:
                    print(NO_PROCESSES.format(error.__cause__ or error), file=sys.stderr)
                break
        for item in in_work.values():  # one of them ended its process before the pool knew that it was working on it
            yield item, _run_alone(item, guarded)
    for item in remaining:
        yield item, _raise_error(_GuardedWork(work, None)(item))


def map_ordered(items: Iterable[T], work: Callable[[T], R], workers: int | None = None, seconds: float | None = None,
                ahead: int = 0) -> Iterator[tuple[T, R | WorkerFailure]]:
    """Yield as `map_unordered` does, but in the order of `items`, of which at most `ahead` are taken beyond the next to come out.

    An item that takes long thus never has more than that many results wait for it; workers that would exceed it pause. At least
    two items per worker are taken.
    """
    done: dict[int, tuple[T, R | WorkerFailure]] = {}
    window = _Window(items, max(ahead, 2 * (workers or machine.available_cores())))
    for (number, item), result in map_unordered(window, _Numbered(work), workers, seconds):
        done[number] = item, result
        while window.first in done:
            yield done.pop(window.first)
            window.first += 1


class _Window(Generic[T]):
    """Numbered items, of which none is handed out for now while `size` of them are out, from the number `first` on."""

    def __init__(self, items: Iterable[T], size: int):
        self.items, self.size, self.first = enumerate(items), size, 0
        self.taken = 0

    def __iter__(self) -> "_Window[T]":
        return self

    def __next__(self) -> tuple[int, T]:
        if self.taken - self.first >= self.size:
            raise StopIteration  # `_map_in_pool` asks again after each result
        self.taken += 1
        return next(self.items)


@dataclass(frozen=True)
class _Numbered(Generic[T, R]):
    """Apply `work` to the item in (number, item)."""

    work: Callable[[T], R]

    def __call__(self, numbered: tuple[int, T]) -> R:
        return self.work(numbered[1])


def _processes_start() -> bool:
    """Return whether a worker process can be started and used. Those that wait may have died, too, and are ended."""
    end_idle_processes()
    guarded: _GuardedWork[int, Any] = _GuardedWork(abs, None)
    try:
        return bool(list(_map_in_pool(iter([0]), {}, guarded, 1)))
    except BrokenProcessPool:
        return False


def _run_alone(item: T, work: _GuardedWork[T, Any]) -> Any:
    """Return the result of an item in a pool of its own, whose end can only be due to this item."""
    try:
        [(_, result)] = _map_in_pool(iter([item]), {}, work, 1)
        return result
    except BrokenProcessPool:
        return WorkerFailure(CRASHED)


def _map_in_pool(items: Iterator[T], in_work: dict[Any, T], work: _GuardedWork[T, R], workers: int | None,
                 stop: threading.Event | None = None) -> Iterator[tuple[T, R | WorkerFailure]]:  # fmt: skip
    """Yield as `map_unordered` does; `in_work` holds the items that were taken and have no result yet.

    Raises BrokenProcessPool if processes cannot be started.
    """
    count = workers or machine.available_cores()
    processes = Processes.take(count)
    crashes = processes.context.count_crashes()
    try:
        while True:
            for item in islice(items, 4 * count - len(in_work)):
                in_work[None] = item  # it stays there if the pool breaks now
                future = processes.schedule(work, item)
                in_work[future] = in_work.pop(None)
            if not in_work:
                return
            done = wait(in_work, timeout=1.0, return_when=FIRST_COMPLETED).done
            if stop and stop.is_set():
                return
            # pebble forgets an item if its process ends before pebble reads that it has begun, or if the pool breaks meanwhile.
            if not done and (not processes.pool.active or processes.context.count_crashes() > crashes):
                raise BrokenProcessPool("All workers expired")
            for future in done:
                outcome = _outcome(future, work.seconds)
                crashes += isinstance(future.exception(), ProcessExpired)
                yield in_work.pop(future), outcome
    finally:
        processes.give_back(are_idle=not in_work)


def _outcome(future: Any, seconds: float | None) -> Any:
    try:
        result = future.result()
    except ProcessExpired as error:
        if deadline.is_timeout(error.exitcode):
            return WorkerFailure(f"decoding took longer than {seconds:g} s plus the allowance for its length (--data.timeout)")
        return WorkerFailure(CRASHED)
    return _raise_error(result)


def _raise_error(answer: tuple[Any, dict[str, float]]) -> Any:
    """Return the result of `_GuardedWork`, and count its stages here; raise it if it is an exception of the work."""
    result, seconds = answer
    stages.add(seconds)
    if isinstance(result, Exception):
        raise result
    return result
