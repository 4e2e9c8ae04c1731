"""Apply a function to many items on the workers of a Dask cluster; a crash, a hang or a lost machine fails one item at most.

A worker handles a group of items at a time. Where it decodes, it does so in a process of its own, as on one machine: a file that
crashes its decoder or takes too long fails there. Dask gives the groups of a worker that dies to others. Memory stays flat,
because only a few groups per worker are on their way or wait for their turn.
"""

import logging
import multiprocessing
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from typing import Any, TypeVar
from uuid import uuid4

from tfdetect import __version__, machine
from tfdetect.data import worker_processes
from tfdetect.data.media.read import READER_VERSION
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import UserError

CONNECT_SECONDS = 20
GROUPS_PER_THREAD = 3  # that a worker's thread has been given or has done, so that it need not wait for the next
PACKAGES = ("av", "decord", "keras", "numpy", "opencv-python-headless", "pi-heif", "pillow", "tensorflow")
LOST = "each of the {} Dask workers that were given it died"
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class DaskCluster:
    """A scheduler, and the workers that it has at any time."""

    client: Any
    name: str

    def map_ordered(self, items: Iterable[T], work: Callable[[Sequence[T]], Sequence[R]],
                    size: int) -> Iterator[tuple[T, R | WorkerFailure]]:  # fmt: skip
        """Yield (item, result) in the order of `items`. `work` is called with at most `size` items and returns their results.

        Results stay on the workers until they are next. A group whose workers die again and again is tried item by item; an item
        that still ends them gets a WorkerFailure. Raises UserError if the scheduler is lost or a worker cannot run `work`, and
        what `work` raises.
        """
        from distributed import KilledWorker

        remaining, waiting = iter(items), deque[tuple[list[T], Any]]()
        task = _Task(work, installed_versions())
        while True:
            limit = GROUPS_PER_THREAD * max(1, self._threads())  # workers may come and go
            while len(waiting) < limit and (group := list(islice(remaining, size))):
                waiting.append((group, self._submit(task, group)))
            if not waiting:
                return
            group, future = waiting.popleft()
            try:
                results: Sequence[Any] = self._result(future)
            except KilledWorker:
                results = [self._run_alone(task, item) for item in group]
            del future  # so that the workers may forget the result
            yield from zip(group, results, strict=True)

    def _threads(self) -> int:
        with self._explained():
            return sum(self.client.nthreads().values())

    def _submit(self, task: "_Task", group: list[Any]) -> Any:
        with self._explained():
            return self.client.submit(task, group, pure=False, key=f"tfdetect-{uuid4()}")

    def _result(self, future: Any) -> Any:
        with self._explained():
            result = future.result()
        if isinstance(result, Exception):
            raise result
        return result

    def _run_alone(self, task: "_Task", item: Any) -> Any:
        """Return the result of an item while no other one of its group is on a worker."""
        from distributed import KilledWorker

        try:
            return self._result(self._submit(task, [item]))[0]
        except KilledWorker as error:
            return WorkerFailure(LOST.format(error.allowed_failures + 1))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise UserError for what Dask raises, except for a worker that has died too often."""
        from distributed import KilledWorker

        try:
            yield
        except (KilledWorker, UserError):
            raise
        except ImportError as error:
            raise UserError(f"a worker or the scheduler of {self.name} cannot run tfdetect ({error}): install the same version "
                            "there.") from error  # fmt: skip
        except Exception as error:
            if "deserializ" in str(error):
                raise UserError(f"{self.name} cannot read what it is sent ({error.__cause__ or error}): install the same "
                                "versions of tfdetect and its requirements on the scheduler and workers.") from error  # fmt: skip
            if type(error).__name__ in ("FutureCancelledError", "CancelledError", "CommClosedError", "ClosedClientError",
                                        "TimeoutError", "RuntimeError", "OSError"):  # fmt: skip
                reason = str(error).splitlines()[0].rpartition(": ")[2] if str(error) else type(error).__name__
                raise UserError(f"the connection to {self.name} was lost ({reason}); the same command goes on once it is "
                                "back.") from error  # fmt: skip
            raise


@dataclass(frozen=True)
class _Task:
    """What a worker runs. It returns an exception instead of raising it, because Dask would log its traceback."""

    work: Callable[[Sequence[Any]], Sequence[Any]]
    versions: dict[str, str]

    def __call__(self, items: Sequence[Any]) -> list[Any] | Exception:
        multiprocessing.current_process().daemon = False  # Dask's nanny sets it, and then there must be no child processes
        worker_processes.keep_processes()
        try:
            require_same_versions(self.versions)
            return list(self.work(items))
        except Exception as error:
            return error


def installed_versions() -> dict[str, str]:
    """Return the versions of what results depend on: Python, this package with its reader, and the libraries."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {"Python": python, "tfdetect": __version__, "reader": str(READER_VERSION)}
    for name in PACKAGES:
        found[name] = "missing"
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def require_same_versions(expected: dict[str, str]) -> None:
    """Raise UserError if this process has other versions of what results depend on."""
    here = installed_versions()
    other = [f"{name} {here.get(name)} instead of {version}" for name, version in expected.items() if here.get(name) != version]
    if other:
        import socket

        raise UserError(f"the worker on {socket.gethostname()} has {', '.join(other)}: install the same versions on all "
                        "machines.")  # fmt: skip


@contextmanager
def connect(address: str | None, workers: int | None = None) -> Iterator[DaskCluster]:
    """Yield the cluster of the scheduler at `address`, such as tcp://host:8786, or else one of `workers` processes here.

    By default, one process per core. Raises UserError if Dask is missing or too old, or if the scheduler does not answer.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UserError("dask.distributed is not installed: pip install 'tfdetect[dask]'.") from error
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or returned
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(worker_processes.hidden_main())
            # No memory limit, as there is none for local processes.
            cluster = LocalCluster(workers or machine.available_cores(), 1, dashboard_address="127.0.0.1:0", memory_limit=0,
                                   silence_logs=logging.CRITICAL)  # fmt: skip
            target: Any = stack.enter_context(cluster)
        else:
            target = address
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning, module="distributed")  # about versions: see _Task
                client = stack.enter_context(Client(target, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, TimeoutError, ValueError, ImportError) as error:
            raise UserError(f"no Dask scheduler answers at {address} ({str(error).splitlines()[0]}): start one with `dask "
                            "scheduler`, and give its address as --dask.address tcp://HOST:8786.") from error  # fmt: skip
        found = DaskCluster(client, "the Dask cluster" + (f" at {address}" if address else " on this machine"))
        if not client.nthreads():
            with machine.stderr_lock:
                print(f"{found.name} has no workers yet: waiting for them.", file=sys.stderr)
        try:
            yield found
        finally:
            with suppress(Exception):  # workers that others use keep no processes of ours
                client.run(worker_processes.end_idle_processes, on_error="ignore")
