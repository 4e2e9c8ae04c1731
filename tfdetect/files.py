"""Whole files or none: what is written appears under its name only when it is complete."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """JSON with sorted keys is byte-identical for equal content; NaN is refused (ValueError), it is no JSON."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())
