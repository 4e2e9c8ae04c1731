"""CPU resources available to this process."""

import os
from pathlib import Path

CGROUP_ROOT, CGROUP_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # Linux control groups, version 2


def available_cores() -> int:
    """Return the number of CPU cores this process may use, at least 1.

    Respects both the CPU affinity of the process and the quota of its container.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_cgroup_quotas()]))


def _cgroup_quotas() -> list[int]:
    """Return the CPU quotas, in cores rounded up, of this process's control group and all its parents."""
    try:
        group = next(line[4:].strip() for line in CGROUP_FILE.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, StopIteration):
        group = ""
    quotas = []
    for folder in (CGROUP_ROOT / group, *(CGROUP_ROOT / group).parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()  # microseconds per period, or "max"
            quotas.append(-(-int(quota) // int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return quotas
