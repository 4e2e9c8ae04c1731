"""How far the decoding of a video is, for whoever waits for it: in a file beside the video, which goes with its folder.

Only processes that read files of strangers keep it (`confinement.py`), whose folders are the server's own.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".frames"
SECONDS = 0.25  # between two notes
_is_kept, _file, _due = False, "", 0.0


def keep() -> None:
    """Keep it in this process from now on."""
    global _is_kept
    _is_kept = True


@contextmanager
def beside(path: str | Path) -> Iterator[None]:
    """Let `note` write to a file beside this one."""
    global _file
    before, _file = _file, f"{path}{SUFFIX}" if _is_kept else ""
    try:
        yield
    finally:
        if _file:
            with suppress(OSError):
                os.unlink(_file)
        _file = before


def note(done: int, total: int) -> None:
    """Say how many frames of how many have been decoded; often at no cost."""
    global _due
    if _file and (now := time.monotonic()) >= _due:
        _due = now + SECONDS
        with suppress(OSError), open(_file, "w", encoding="ascii") as file:
            file.write(f"{done} {total}")


def read(folder: Path) -> tuple[int, int] | None:
    """Return the frames decoded and their total of all videos in a folder that are being decoded; None if there is none."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValueError):  # it is gone, or being written
            done, total = map(int, path.read_text(encoding="ascii").split())
            found.append((done, total))
    return (sum(done for done, _ in found), sum(total for _, total in found)) if found else None
