"""Decode files in worker processes while this one loads the network or is busy with it."""

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any, Generic, TypeVar

from tfdetect.data.media.frames import Media
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.stages import stage

T = TypeVar("T")


class DecodeAhead(Generic[T]):
    """The results of `map_unordered`, computed ahead by a thread of its own from the start on. Close it to end the processes.

    At most `ahead` results wait here, besides the few that the pool holds, so memory stays flat.
    """

    def __init__(self, items: Iterable[T], read: Callable[[T], Media | WorkerFailure], workers: int | None,
                 seconds: float | None, ahead: int):  # fmt: skip
        self._results: queue.Queue[tuple[T, Any] | BaseException | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._decode, args=(items, read, workers, seconds), daemon=True)
        self._thread.start()

    def _decode(self, items: Iterable[T], read: Callable[[T], Any], workers: int | None, seconds: float | None) -> None:
        end: BaseException | None = None
        try:
            with closing(map_unordered(items, read, workers, seconds, self._stop)) as results:
                for result in results:
                    self._results.put(result)
                    if self._stop.is_set():
                        return
        except BaseException as error:
            end = error
        self._results.put(end)

    @stage("wait")
    def get(self, timeout: float | None = None) -> tuple[T, Media | WorkerFailure] | None:
        """Return the next (item, result) in order of completion, None at the end. Raises what ended the thread, and TimeoutError
        if there is no result within `timeout` seconds."""
        try:
            result = self._results.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """End the worker processes, whatever they do; results that nobody took are dropped."""
        self._stop.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._results.get(timeout=0.05)
