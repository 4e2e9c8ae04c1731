"""Where the time goes: seconds of named stages, in this process and in the worker processes that decode files.

Nothing is measured unless `measuring` is active, which worker processes learn from the environment. A stage inside another one
does not count for the outer one, so the seconds of all stages add up to the time in which threads were in any of them.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

VARIABLE = "TFDETECT_PROFILE"
_END = object()
T = TypeVar("T")


class _Clock(threading.local):
    """The stages of a thread that have begun and not ended, as [name, seconds of inner stages]."""

    def __init__(self) -> None:
        self.open: list[list[float]] = []


_clock, _lock = _Clock(), threading.Lock()
_totals: dict[str, float] = defaultdict(float)


def active() -> bool:
    """Return whether stages are measured."""
    return VARIABLE in os.environ


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time in the block, except that of stages inside it, as time of the stage."""
    if not active():
        yield
        return
    start, inner = time.perf_counter(), [0.0]
    _clock.open.append(inner)
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        _clock.open.pop()
        if _clock.open:
            _clock.open[-1][0] += elapsed
        add({name: elapsed - inner[0]})


def waiting(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and count the time in which the next one was waited for as stage "wait"."""
    iterator = iter(items)
    while True:
        with stage("wait"):
            item = next(iterator, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]


def add(seconds: Mapping[str, float]) -> None:
    """Add seconds of stages, such as those that a worker process has measured."""
    with _lock:
        for name, value in seconds.items():
            _totals[name] += value


def take() -> dict[str, float]:
    """Return the seconds of each stage so far, and start again."""
    with _lock:
        taken: dict[str, float] = dict(_totals)
        _totals.clear()
    return taken


@contextmanager
def measuring() -> Iterator[None]:
    """Measure the stages in the block, in this process and in those that it starts."""
    take()
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[VARIABLE]
