"""Gathers calls of the network from many requests into batches, on a thread of its own.

Whatever waits while a call runs is scored together in the next one, so an idle model answers at once and a busy one in large
batches. Clients that were answered together ask again together: the next call waits a moment for as many. TensorFlow's own
operation for batches (`tf.nondifferentiable_batch`) would have to be written into every SavedModel, and blocks a thread for each
request.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Overloaded(RuntimeError):
    """Too many requests wait already."""


@dataclass(eq=False)
class _Request:
    inputs: Arrays
    rows: int
    future: "Future[Any]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Group:
    """Requests that may share a call of `function`; one that is not batched is called without inputs."""

    key: Hashable
    function: Callable[..., Any]
    batched: bool = True
    requests: deque[_Request] = field(default_factory=deque)


class Batcher:
    """Calls functions on its thread, those of equal keys with many inputs at a time.

    A function takes arrays by name, whose first axis is that of rows, and returns arrays by name, and the names of those that
    have a row for each row of its inputs; each request gets its own rows of these, and the whole of the others.
    """

    def __init__(self, size: int = 16, wait: float = 0.01, queue: int = 1000,
                 observe: Callable[[Any, int, float], None] = lambda key, rows, waited: None):  # fmt: skip
        """Start the thread. `size` is that of a batch in rows, `wait` the seconds that a request waits at most for as many rows
        as the last batch had, `queue` the number of requests that may wait, and `observe` is called with the key and rows of
        each batch and the seconds that its first request has waited."""
        self.size, self.wait, self.queue, self.observe = size, wait, queue, observe
        self._last: tuple[Hashable, int] = None, 0  # key and rows of the last batch
        self._groups: dict[Hashable, _Group] = {}  # the one whose turn is next first
        self._changed, self._waiting, self._closed = threading.Condition(), 0, False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._waiting

    def submit(self, key: Hashable, function: Callable[..., Any], inputs: Arrays) -> "Future[dict[str, np.ndarray]]":
        """Call `function` with these inputs and those of other requests with this key. Raises Overloaded."""
        return self._add(key, function, _Request(inputs, len(next(iter(inputs.values())))), True)

    def run(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Call `function(*args)` when it is its turn. Raises Overloaded."""
        return self._add(object(), lambda: function(*args), _Request({}, 0), False)

    def close(self) -> None:
        """Answer what has been submitted, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _add(self, key: Hashable, function: Callable[..., Any], request: _Request, batched: bool) -> "Future[Any]":
        with self._changed:
            if self._waiting >= self.queue or self._closed:
                raise Overloaded
            self._groups.setdefault(key, _Group(key, function, batched)).requests.append(request)
            self._waiting += 1
            self._changed.notify()
        return request.future

    def _work(self) -> None:
        while taken := self._take():
            group, requests = taken
            requests = [each for each in requests if each.future.set_running_or_notify_cancel()]
            if not requests:
                continue
            if group.batched:
                self.observe(group.key, sum(each.rows for each in requests), time.monotonic() - requests[0].since)
                self._answer(group.function, requests)
            else:
                _settle(requests[0], group.function)

    def _take(self) -> tuple[_Group, list[_Request]] | None:
        """Return the requests for the next call; None at the end. The other ones of their group wait for another turn."""
        with self._changed:
            while not self._groups:
                if self._closed:
                    return None
                self._changed.wait()
            self._await_others(next(iter(self._groups.values())))
            group, taken, rows = self._groups.pop(next(iter(self._groups))), list[_Request](), 0
            while group.requests and (not taken or rows + group.requests[0].rows <= self.size):
                taken.append(group.requests.popleft())
                rows += taken[-1].rows
            if group.requests:
                self._groups[group.key] = group
            self._waiting -= len(taken)
            self._last = group.key, rows
        return group, taken

    def _await_others(self, group: _Group) -> None:
        """Wait until the group has as many rows as the last batch, if it was one of this group, and nobody else waits."""
        key, rows = self._last
        end = group.requests[0].since + self.wait
        while (group.key == key and len(self._groups) == 1 and sum(each.rows for each in group.requests) < rows
               and not self._closed and (left := end - time.monotonic()) > 0):  # fmt: skip
            self._changed.wait(left)

    def _answer(self, function: Callable[..., Any], requests: list[_Request]) -> None:
        """Answer requests with one call, or if it fails with one for each, so that a bad one only fails itself."""
        try:
            outputs = self._call(function, requests)
        except Exception as error:
            if len(requests) == 1:
                requests[0].future.set_exception(error)
                return
            for request in requests:
                self._answer(function, [request])
            return
        for request, output in zip(requests, outputs, strict=True):
            request.future.set_result(output)

    def _call(self, function: Callable[..., Any], requests: list[_Request]) -> list[dict[str, np.ndarray]]:
        """Return the outputs for each request; one with more rows than `size` is divided among several calls."""
        inputs = {name: np.concatenate([each.inputs[name] for each in requests]) if len(requests) > 1 else value
                  for name, value in requests[0].inputs.items()}  # fmt: skip
        total = sum(each.rows for each in requests)
        starts = range(0, max(total, 1), self.size)
        parts = [function({name: value[start : start + self.size] for name, value in inputs.items()}) for start in starts]
        (outputs, by_row), *others = parts
        if others:
            outputs = {name: np.concatenate([part[name] for part, _ in parts]) if name in by_row else value
                       for name, value in outputs.items()}  # fmt: skip
        ends = np.cumsum([each.rows for each in requests])
        return [{name: value[end - each.rows : end] if name in by_row else value for name, value in outputs.items()}
                for each, end in zip(requests, ends, strict=True)]  # fmt: skip


def _settle(request: _Request, function: Callable[[], Any]) -> None:
    try:
        request.future.set_result(function())
    except Exception as error:
        request.future.set_exception(error)
