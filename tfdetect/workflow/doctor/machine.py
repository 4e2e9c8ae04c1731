"""The machine: cores, memory, limits, worker processes, and the disks of the folders that tfdetect writes to."""

import contextlib
import errno
import io
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfdetect import machine
from tfdetect.workflow.doctor.finding import MEMORY_ADVICE, PROCESS_ADVICE, Finding

LITTLE_MEMORY = 2 * 10**9  # bytes; the page shows how much the tiny training took, which was 1.3 * 10**9
LITTLE_SPACE = 10**9  # bytes
FEW_FILES = 256  # open files; 1024 is the usual limit
BLOCK, BLOCKS = 2**20, 64  # bytes, and how many are written to measure a disk
DISK_SECONDS = 2.0  # longest time for writing them
SETTINGS = {"cache folder": "--data.cache_dir", "output folder": "--out", "temporary folder": "the variable TMPDIR"}
FIXES = {errno.ENOSPC: "Free some space", errno.EDQUOT: "Free some space", errno.EFBIG: "Raise the limit of ulimit -f"}
LIMITS = {  # and whether they count bytes
    "open files": (resource.RLIMIT_NOFILE, False),
    "processes": (resource.RLIMIT_NPROC, False),
    "address space": (resource.RLIMIT_AS, True),
    "file size": (resource.RLIMIT_FSIZE, True),
}


def check_resources() -> Iterator[Finding]:
    """Yield the cores and the memory that this process may use, and the limits of the shell."""
    cores = machine.available_cores()
    yield Finding("machine", "cores", detail=f"{cores} of {os.cpu_count()} CPU cores may be used")
    total, limit, free = machine.total_memory(), machine.memory_limit(), machine.free_memory()
    limited = f", of which this process may use {gigabytes(limit)}" if limit < total else ""
    detail = f"{gigabytes(total)} in the machine{limited}; {gigabytes(free)} free"
    if free < LITTLE_MEMORY:
        yield Finding("machine", "memory", "warning", f"{detail}; training needs {gigabytes(LITTLE_MEMORY)} or more",
                      MEMORY_ADVICE)  # fmt: skip
    else:
        yield Finding("machine", "memory", detail=detail)
    values = {name: resource.getrlimit(number)[0] for name, (number, _) in LIMITS.items()}
    set_limits = {name: value for name, value in values.items() if value != resource.RLIM_INFINITY}
    detail = ", ".join(f"{name} {gigabytes(value) if LIMITS[name][1] else value}" for name, value in set_limits.items())
    few = set_limits.get("open files", FEW_FILES) < FEW_FILES
    yield Finding("machine", "limits", "warning" if few else "ok", detail or "none", "Raise it: ulimit -n 1024" if few else "")


def gigabytes(number: float) -> str:
    """Return a number of bytes as text, such as "15.6 GB"."""
    return f"{number / 1e9:.1f} GB"


def check_processes(_: str) -> Iterator[Finding]:
    """Check that files can be decoded in worker processes."""
    from tfdetect.data.worker_pool import WorkerFailure, map_unordered

    with contextlib.redirect_stderr(io.StringIO()) as said:
        outcomes = [outcome for _, outcome in map_unordered(range(2), process_id, 2, 60.0)]
    failures = [outcome.reason for outcome in outcomes if isinstance(outcome, WorkerFailure)]
    if os.getpid() in outcomes:  # the pool says why it makes do without
        reason = said.getvalue().strip() or "files are decoded in the main process"
        yield Finding("processes", "workers", "problem", reason, process_advice(reason))
    elif failures:
        yield Finding("processes", "workers", "problem", f"they end at once: {failures[0]}", process_advice(failures[0]))
    else:
        yield Finding("processes", "workers", detail="they start and answer")


def process_id(_: int) -> int:
    """Return the number of this process."""
    return os.getpid()


def process_advice(reason: str) -> str:
    """Return how to let worker processes start."""
    if os.strerror(errno.ENOSPC) in reason:
        return "Free space in /dev/shm; in Docker: --shm-size 1g"
    if sys.platform == "linux" and not os.access("/dev/shm", os.W_OK | os.X_OK, effective_ids=True):
        return "Mount a writable /dev/shm; in Docker: --tmpfs /dev/shm or --shm-size 1g"
    return PROCESS_ADVICE


def check_disks(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Check that the folders, by name, can be written to; measure each disk once."""
    measured: dict[int, str] = {}
    for name, folder in {**folders, "temporary folder": Path(os.environ.get("TMPDIR") or "/tmp")}.items():
        start = time.monotonic()
        place = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
        try:
            device, usage = os.stat(place).st_dev, shutil.disk_usage(place)
            speed = f"same disk as the {measured[device]}" if device in measured else measure(place)
            if device in measured:
                tempfile.TemporaryFile(dir=place).close()
            measured.setdefault(device, name)
        except OSError as error:
            fix = FIXES.get(error.errno or 0, "Make it writable")
            yield Finding("disk", name, "problem", f"nothing can be written: {(error.strerror or str(error)).lower()}",
                          f"{fix}, or give another one with {SETTINGS[name]}.", round(time.monotonic() - start, 2))  # fmt: skip
            continue
        space = f"{gigabytes(usage.free)} of {gigabytes(usage.total)} free"
        little = usage.free < LITTLE_SPACE
        yield Finding("disk", name, "warning" if little else "ok", f"{space}; {speed}", "Free some space." if little else "",
                      round(time.monotonic() - start, 2))  # fmt: skip


def measure(folder: Path) -> str:
    """Write a file without a name, and read it back from the disk; return both speeds."""
    block = os.urandom(BLOCK)
    with tempfile.TemporaryFile(dir=folder) as file:
        start, count = time.monotonic(), 0
        while count < BLOCKS and time.monotonic() < start + DISK_SECONDS:
            file.write(block)
            count += 1
        file.flush()
        os.fsync(file.fileno())
        written = count * BLOCK / (time.monotonic() - start)
        if not hasattr(os, "posix_fadvise"):  # the file would be read from memory
            return f"writes {written / 1e6:.0f} MB/s"
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.monotonic()
        while file.read(BLOCK):
            pass
        read = count * BLOCK / (time.monotonic() - start)
    return f"writes {written / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s"
