"""Stop what a thread waits for in other processes: a thread itself cannot be cancelled."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_event: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


@contextmanager
def by(event: threading.Event) -> Iterator[None]:
    """Once `event` is set, end what `worker_pool` computes for this thread, and for those that get its context, as those of
    `asyncio.to_thread` do."""
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def event() -> threading.Event | None:
    """Return the event that stops this thread's work, if there is one."""
    return _event.get()
