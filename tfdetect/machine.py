"""What of the machine this process may use."""

import os
from pathlib import Path

CGROUP_ROOT, CGROUP_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # of Linux, version 2


def available_cores() -> int:
    """How many processes can run at once: the cores that this process may run on, or a container's share of them if less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_cgroup_cores()]))


def _cgroup_cores() -> list[int]:
    """The cores that this process's control group and those above it grant, rounded up."""
    try:
        own = next(line[4:].strip() for line in CGROUP_FILE.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, StopIteration):
        own = ""
    found = []
    for group in (CGROUP_ROOT / own, *(CGROUP_ROOT / own).parents):
        try:
            quota, period = (group / "cpu.max").read_text().split()  # microseconds of each period, or "max"
            found.append(-(-int(quota) // int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return found
