"""Worker processes that decode files: how they start and end, how some wait for the next call, and what limits them."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import current_thread, main_thread
from types import ModuleType
from typing import Any, TypeVar

from pebble import ProcessPool

from tfdetect import stages
from tfdetect.data.confinement import Confinement

_hiding_main = threading.Lock()  # pools of several threads start processes at the same time
_idle: "list[Processes] | None" = None  # those that wait for the next call; None where each call ends its own
_confinement: Confinement | None = None  # of all worker processes that are started
T = TypeVar("T")
R = TypeVar("R")


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


class Processes:
    """Worker processes, which read relative paths from the folder in which they were started."""

    def __init__(self, count: int):
        self.key, self.context = _key(count), _WorkerContext()
        self.pool = ProcessPool(count, initializer=_initialise_worker, initargs=(_confinement,), context=self.context)

    @classmethod
    def take(cls, count: int) -> "Processes":
        """Return `count` processes for this folder: those that wait for a call, if there are such, else new ones."""
        for waiting in list(_idle or ()):
            with suppress(ValueError):  # another thread has taken it
                if waiting.key == _key(count) and _idle:
                    _idle.remove(waiting)
                    return waiting
        return cls(count)

    def schedule(self, work: Callable[[T], R], item: T) -> Any:
        """Return the future of an item. Raises BrokenProcessPool if no process can take it."""
        try:
            # Started first, because starting it unblocks SIGINT, which has to stay blocked while worker processes start.
            resource_tracker.ensure_running()
            with _blocked_interrupts():
                return self.pool.schedule(work, (item,))
        except (OSError, ImportError, RuntimeError, AssertionError) as error:
            # No memory or processes left, no semaphores, a broken pool, or this is a worker of multiprocessing.Pool itself.
            raise BrokenProcessPool(str(error)) from (error.__cause__ or error)

    def give_back(self, are_idle: bool) -> None:
        """Let the processes wait for another call if they are idle and such ones are kept; else end them."""
        if _idle is not None and are_idle and self.pool.active:
            _idle.append(self)
        else:
            self.end()

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


def _key(count: int) -> tuple[int, bool, str]:
    """Return what a pool of `count` processes for the current folder has in common with others that can take its place."""
    with suppress(OSError):  # the folder may have been deleted
        return count, stages.active(), os.getcwd()
    return count, stages.active(), ""


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


def _initialise_worker(confinement: Confinement | None) -> None:
    if confinement:
        confinement.apply()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # workers decode on the CPU and must not take the GPU's memory
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs print errors about damaged files; their reasons are returned instead
