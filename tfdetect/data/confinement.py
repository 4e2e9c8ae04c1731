"""What a process that decodes files of strangers may use of the machine."""

import os
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tfdetect.data import deadline, headway

R = TypeVar("R", covariant=True)


@dataclass(frozen=True)
class Confinement:
    """What a worker process may use, for files of strangers. The kernel enforces it, on macOS not that of memory."""

    memory: int
    """Bytes that it may write to: heap, stacks, private maps. A file that needs more fails, or crashes its process."""
    file_bytes: int
    """Size of any file that it writes."""
    seconds: float
    """Time that any file may take, however long it is."""
    open_files: int = 256

    def apply(self) -> None:
        """Limit this process, which also leaves no core dump, since that would keep the file. Time is that of `deadline`:
        RLIMIT_CPU would count that of all earlier files, too."""
        deadline.cap(self.seconds)
        headway.keep()
        for kind, limit in ((resource.RLIMIT_DATA, self.memory), (resource.RLIMIT_FSIZE, self.file_bytes),
                            (resource.RLIMIT_NOFILE, self.open_files), (resource.RLIMIT_CORE, 0)):  # fmt: skip
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (limit, limit))


@dataclass(frozen=True)
class Beside(Generic[R]):
    """Call `work` on a path while temporary files are written beside it: they go with its folder, even if the process dies."""

    work: Callable[[str], R]

    def __call__(self, path: str) -> R:
        before, tempfile.tempdir = tempfile.tempdir, os.path.dirname(path)
        try:
            return self.work(path)
        finally:
            tempfile.tempdir = before
