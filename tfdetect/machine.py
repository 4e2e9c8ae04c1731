"""CPU cores and memory available to this process."""

import functools
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

CGROUP_ROOT, CGROUP_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # Linux control groups
MEMORY_FILE = Path("/proc/meminfo")
stderr_lock = threading.RLock()  # held while stderr is redirected, so that no line of another thread is lost
MANY_NUMBERS = 10**7  # from which on threads save more than they cost


def threads_for(numbers: int, many: int = MANY_NUMBERS) -> AbstractContextManager:
    """Return a context in which NumPy, SciPy and scikit-learn use one thread, unless there are `many` `numbers` or more.

    Threads that wait for each other keep the cores busy: a logistic regression on 980 x 512 numbers took 0.06 CPU seconds on one
    thread, and 2 to 5 on two busy cores.
    """
    limits: AbstractContextManager = _thread_pools(len(sys.modules)).limit(limits=1 if numbers < many else None)
    return limits


@functools.lru_cache(maxsize=1)
def _thread_pools(modules: int) -> Any:
    """Return the `ThreadpoolController` of the libraries of so many loaded modules; looking for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def available_cores() -> int:
    """Return the number of CPU cores this process may use, at least 1.

    Respects both the CPU affinity of the process and the quota of its container.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_cgroup_quotas()]))


def total_memory() -> int:
    """Return the memory of the machine in bytes; 0 if it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def memory_limit() -> int:
    """Return how many bytes this process may use: the machine's memory, or less by its container or shell (ulimit -v)."""
    shell = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min([total_memory(), *([] if shell == resource.RLIM_INFINITY else [shell]), *(limit for limit, _ in _memory_groups())])


def free_memory() -> int:
    """Return how many bytes this process can use now without swapping; where that is unknown, `memory_limit()`."""
    free = [limit - used for limit, used in _memory_groups()]
    try:
        fields = dict(line.split(":") for line in MEMORY_FILE.read_text().splitlines())
        free.append(1024 * int(fields["MemAvailable"].split()[0]))
    except (OSError, ValueError, KeyError):
        pass
    return max(0, min([memory_limit(), *free]))


def resident_memory() -> int:
    """Return the memory in bytes that this process holds; the most that it ever held where that is all that is known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _memory_groups() -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes in use) of each control group with a limit; file cache that can be dropped is not in use."""
    names = [("", "memory.max", "memory.current", "inactive_file"),
             ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")]  # fmt: skip  # v2 and v1
    for controller, limit_name, used_name, cache_name in names:
        for folder in _cgroup_folders(controller):
            try:
                limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))  # fails for "max"
                fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if limit < 2**60:  # version 1 writes a huge number for none
                yield limit, used - int(fields.get(cache_name, 0))


def _cgroup_quotas() -> Iterator[int]:
    """Yield the CPU quotas, in cores rounded up, of this process's control group and all its parents."""
    for folder in _cgroup_folders():
        try:
            quota, period = (folder / "cpu.max").read_text().split()  # microseconds per period, or "max"
            yield -(-int(quota) // int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _cgroup_folders(controller: str = "") -> list[Path]:
    """Return the folders of this process's control group and its parents: of version 2, or of a `controller` of version 1."""
    try:
        lines = [line.split(":", 2) for line in CGROUP_FILE.read_text().splitlines()]
        group = next(path for _, controllers, path in lines if controller in controllers.split(",")).strip("/\n ")
    except (OSError, StopIteration, ValueError):
        group = ""
    root = CGROUP_ROOT / controller
    return [root / group, *(folder for folder in (root / group).parents if folder.is_relative_to(root))]
