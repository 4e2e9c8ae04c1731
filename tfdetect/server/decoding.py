"""Decode what strangers send: in long-lived processes with limits on memory, time and files, one file at a time each."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import av

from tfdetect import machine
from tfdetect.data import worker_pool, worker_processes
from tfdetect.data.confinement import Beside, Confinement
from tfdetect.data.media import containers
from tfdetect.data.media.frames import Media
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.limits import Limits
from tfdetect.server.limits import ServeLimits

BASE_SECONDS = 60.0  # per file, besides the allowance for its length
R = TypeVar("R")


class Decoders:
    """The decoding processes of a server; also those that case reports and timelines use are limited from its start on."""

    def __init__(self, limits: ServeLimits):
        self.limits, self.count = limits, limits.workers or machine.available_cores()
        self._threads, self._turn = ThreadPoolExecutor(self.count, "decoder"), ThreadPoolExecutor(1, "turn")

    def start(self) -> None:
        """Start the processes, so that the first request need not wait for them, and one more for the job that has its turn."""
        worker_processes.keep_processes()
        worker_processes.confine(Confinement(self.limits.memory, 10 * self.limits.bytes, self.limits.decode_seconds))
        for threads in (*[self._threads] * self.count, self._turn):
            threads.submit(self._run, *WARM_UP, threading.Event())

    async def run(self, work: Callable[[str], R], path: str, in_turn: bool = False) -> R | WorkerFailure:
        """Return `work(path)`, computed by one of the processes, or why there is no result. `work` must be picklable; temporary
        files that it writes lie beside the path. If the caller is cancelled, the process ends. A job that has its turn waits for
        no others."""
        stop = threading.Event()
        loop, own = asyncio.get_running_loop(), Beside(work)
        try:
            return await loop.run_in_executor(self._turn if in_turn else self._threads, self._run, own, path, stop)
        finally:
            stop.set()

    def _run(self, work: Callable[[str], Any], path: str, stop: threading.Event) -> Any:
        # A pool of one process for each thread: a process that is killed while it writes would block what it shares with others.
        seconds = min(BASE_SECONDS, self.limits.decode_seconds)
        with closing(worker_pool.map_unordered([path], work, 1, seconds, stop)) as results:
            for _, result in results:
                return result
        return WorkerFailure("cancelled")

    def close(self) -> None:
        """End the processes, and lift the limits."""
        for threads in (self._threads, self._turn):
            threads.shutdown(cancel_futures=True)
        worker_processes.confine(None)


@dataclass(frozen=True)
class Reader:
    """Decode a file as a spec says, as a task for `Decoders.run`. Here, since a process that decodes imports its module."""

    spec: ClipSpec

    def __call__(self, path: str) -> Media | WorkerFailure:
        return self.spec.try_read((0, path))


@dataclass(frozen=True)
class Duration:
    """Return the seconds of a video as its header says, 0 if it does not, as a task for `Decoders.run`."""

    limits: Limits

    def __call__(self, path: str) -> float:
        with suppress(MediaError, OSError, av.FFmpegError, containers.NoDecoder, ArithmeticError, LookupError, TypeError):
            containers.silence_libraries()
            containers.inspect(path, self.limits)
            with containers.open_video(path, max_pixels=self.limits.pixels) as (container, stream, _):
                if stream.duration and stream.time_base:
                    return float(stream.duration * stream.time_base)
                return container.duration / av.time_base if container.duration else stream.frames / containers.frame_rate(stream)
        return 0.0


WARM_UP = Duration(Limits()), ""  # work that imports what decoding needs
