"""Whole files or none: what is written appears under its name only when it is complete."""

import io
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect.errors import UserError


def printable(path: str) -> str:
    """A path as one line that any terminal, page or log can show: line breaks and bytes that are no text are escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in path)


def plural(number: int, what: str) -> str:
    """1 file, 2,400 files."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shell_quote(word: str | Path) -> str:
    """A word of a command as bash and zsh read it back, whatever bytes it has."""
    word = str(word)
    if word.isprintable():
        return shlex.quote(word)
    letters = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(letters)}'"


@contextmanager
def tensorflow_path(folder: Path) -> Iterator[str]:
    """The path of a folder; where TensorFlow would take it for a pattern, or it is no UTF-8, a link to it for the time being. The
    folder is made if need be."""
    if not re.search(r"[][*?{}\\\udc80-\udcff]", str(folder.absolute())):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory(prefix="tfdetect-") as temporary:
        link = Path(temporary, folder.name if folder.name.isascii() and folder.name.isalnum() else "link")
        folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder.absolute())
        yield str(link)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
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
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """JSON with sorted keys is byte-identical for equal content; NaN is refused (ValueError), it is no JSON."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, keys: Iterable[str], mend: str) -> dict[str, Any]:
    """The JSON object in a file, which has these keys; UserError that says how to `mend` it where it is damaged."""
    try:
        found = json.loads(path.read_bytes())
        missing = [name for name in keys if name not in found] if isinstance(found, dict) else ["an object"]
    except ValueError as error:
        raise UserError(f"{path} is damaged, it is no JSON ({error}): {mend}") from error
    if missing:
        raise UserError(f"{path} is damaged, it lacks {', '.join(missing)}: {mend}")
    return dict(found)


def size_and_mtime(path: str | Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds, by which a file is known again; zeros for what is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0]
    return [found.st_size, found.st_mtime_ns]
