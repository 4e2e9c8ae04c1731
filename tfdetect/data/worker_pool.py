"""Apply a function to many items in parallel processes; a crash or hang fails one item, not the run."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import current_thread, main_thread
from types import ModuleType
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from tfdetect import machine, stages
from tfdetect.data import deadline, stopping
from tfdetect.data.confinement import Confinement

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


_hiding_main = threading.Lock()  # pools of several threads start processes at the same time
_idle: "list[_Pool] | None" = None  # pools that wait for the next call; None where each call ends its own
_confinement: Confinement | None = None  # of all worker processes that are started


@contextmanager
def hidden_main() -> Iterator[None]:
    """Replace the main module by an empty one, so that processes which are started meanwhile do not import it."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _WorkerProcess(SpawnProcess):
    """A process that does not import the main module of its parent again, which may be a notebook, standard input or a script
    without a guard."""

    def start(self) -> None:
        """Start the process while an empty main module hides the real one."""
        with _hiding_main, hidden_main():
            super().start()


class _WorkerContext(SpawnContext):
    """Starts fresh interpreters, since forking a process that runs TensorFlow's threads may deadlock, and can end them."""

    def __init__(self) -> None:
        self.processes: list[_WorkerProcess] = []

    def Process(self, *args: Any, **options: Any) -> _WorkerProcess:  # type: ignore[override]  # there it is a class
        """Return a new process."""
        self.processes.append(_WorkerProcess(*args, **options))
        return self.processes[-1]

    def count_crashes(self) -> int:
        """Return how many processes have ended by a crash or a signal."""
        return sum(process.exitcode not in (None, 0) for process in self.processes if process.pid)

    def end_processes(self) -> None:
        """End the processes that were started, and wait for them."""
        started = [process for process in self.processes if process.pid]
        for process in started:
            process.terminate()
        for process in started:
            process.join(1.0)


def map_unordered(items: Iterable[T], work: Callable[[T], R], workers: int | None = None, seconds: float | None = None,
                  stop: threading.Event | None = None) -> Generator[tuple[T, R | WorkerFailure]]:  # fmt: skip
    """Yield (item, work(item)) in order of completion, computed in `workers` processes (default: one per core).

    `work` must be picklable. Each item may take `seconds`, plus what `work` requests by `deadline.extend`. If an item crashes
    its process or exceeds its time, its result is a WorkerFailure and a new process takes over. Exceptions of `work` are
    re-raised here and stop the iteration. Only a few items are read ahead, so `items` may be infinite. Once another thread sets
    `stop`, by default that of `stopping`, it ends within a second. Where no process can be started, the items are processed in
    this one, without a time limit, and a line on stderr says so; if processes are confined (`confine`), the items fail instead.
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
                if _confinement:
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
    processes = _take_idle(count) or _Pool(count)
    pool, context = processes.pool, processes.context
    crashes = context.count_crashes()
    try:
        while True:
            for item in islice(items, 4 * count - len(in_work)):
                in_work[_schedule(pool, work, item, in_work)] = item
            if not in_work:
                return
            done = wait(in_work, timeout=1.0, return_when=FIRST_COMPLETED).done
            if stop and stop.is_set():
                return
            # pebble forgets an item if its process ends before pebble reads that it has begun, or if the pool breaks meanwhile.
            if not done and (not pool.active or context.count_crashes() > crashes):
                raise BrokenProcessPool("All workers expired")
            for future in done:
                outcome = _outcome(future, work.seconds)
                crashes += isinstance(future.exception(), ProcessExpired)
                yield in_work.pop(future), outcome
    finally:
        if _idle is not None and not in_work and pool.active:
            _idle.append(processes)
        else:
            processes.end()


class _Pool:
    """Worker processes, which read relative paths from the folder in which they were started."""

    def __init__(self, count: int):
        self.key, self.context = _pool_key(count), _WorkerContext()
        self.pool = ProcessPool(count, initializer=_initialise_worker, initargs=(_confinement,), context=self.context)

    def end(self) -> None:
        """End the processes, whatever they do."""
        self.pool.stop()
        self.context.end_processes()  # before the pool removes what a process that is still starting would look for
        self.pool.join()


def keep_processes() -> None:
    """Let worker processes survive the calls that start them, for a process that makes many short calls."""
    global _idle
    _idle = [] if _idle is None else _idle


def confine(limits: Confinement | None) -> None:
    """Limit what worker processes that are started from now on may use, and decode nothing elsewhere; None ends it."""
    global _confinement
    end_idle_processes()
    _confinement = limits


def is_confined() -> bool:
    """Return whether files may only be decoded by limited processes."""
    return _confinement is not None


def end_idle_processes() -> None:
    """End the worker processes that wait for another call."""
    with suppress(IndexError):  # another thread has taken the last
        while _idle:
            _idle.pop().end()


def _pool_key(count: int) -> tuple[int, bool, str]:
    """Return what a pool of `count` processes for the current folder has in common with others that can take its place."""
    with suppress(OSError):  # the folder may have been deleted
        return count, stages.active(), os.getcwd()
    return count, stages.active(), ""


def _take_idle(count: int) -> _Pool | None:
    """Return a pool of `count` processes in this folder that waits for a call, if there is one; threads may ask at once."""
    for pool in list(_idle or ()):
        with suppress(ValueError):  # another thread has taken it
            if pool.key == _pool_key(count) and _idle:
                _idle.remove(pool)
                return pool
    return None


def _schedule(pool: ProcessPool, work: _GuardedWork[T, R], item: T, in_work: dict[Any, T]) -> Any:
    """Return the future of an item. Raises BrokenProcessPool, with the item in `in_work`, if the pool cannot take it."""
    try:
        # Started first, because starting it unblocks SIGINT, which has to stay blocked while worker processes start.
        resource_tracker.ensure_running()
        with _blocked_interrupts():
            return pool.schedule(work, (item,))
    except (OSError, ImportError, RuntimeError, AssertionError) as error:
        # No memory or processes left, no semaphores, a broken pool, or this is a worker of multiprocessing.Pool itself.
        in_work[None] = item
        raise BrokenProcessPool(str(error)) from (error.__cause__ or error)


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Hold back SIGINT. Threads of the pool started meanwhile, and their processes, inherit the mask and never receive Ctrl-C.

    A process that receives it while starting would print a traceback, and so would one whose start it interrupts here: a thread
    that does not block the signal may receive it and have this one raise KeyboardInterrupt.
    """
    held: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT) if current_thread() is main_thread() else None
    if handler is not None:  # None: another thread, or a handler that was not installed from Python
        signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held:
            signal.raise_signal(signal.SIGINT)


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


def _initialise_worker(confinement: Confinement | None) -> None:
    if confinement:
        confinement.apply()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # workers decode on the CPU and must not take the GPU's memory
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs print errors about damaged files; their reasons are returned instead
