"""Whole files or none: what is written appears under its name only when it is complete."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the name at the end, or vanishes on an error.

    The suffix stays, since some writers go by it. A reader never meets half a file, even after SIGKILL or on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix="-" + path.name)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would lock other users out of a shared cache
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # "the disk is full" alone is no help: which disk?
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, *arrays: np.ndarray) -> None:
    """One array as .npy, several as .npz, by way of memory: NumPy's and h5py's own writers meet a full disk badly, with
    an error that does not say so, or a crash."""
    memory = io.BytesIO()
    if path.suffix == ".npy":
        np.save(memory, arrays[0], allow_pickle=False)
    else:
        np.savez(memory, *arrays, allow_pickle=False)
    write_bytes(path, memory.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """JSON with sorted keys is byte-identical for equal content; NaN is refused (ValueError), it is no JSON."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def state(path: str | Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds, by which a file is known again; zeros for what is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0]
    return [found.st_size, found.st_mtime_ns]
