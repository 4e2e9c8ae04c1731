"""Write files atomically, read JSON, hash files, measure sizes on disk, and format file names, counts and sizes for messages."""

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect.errors import UserError

if TYPE_CHECKING:
    import numpy as np

BLOCK = 4096  # bytes; the unit in which common file systems allocate disk space


def printable(path: str) -> str:
    """Escape line breaks and all other unprintable characters, so that a path fits on one line of any terminal or page."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def without_folders(text: str, end: str = r"\s/'\"(),;") -> str:
    """Return the text with each absolute path cut to its last part: the folders of a machine are nobody's business. Addresses of
    the web stay. `end` are the characters that no name of a folder holds."""
    return re.sub(rf"(?<![\w./~])(?:~|\b[A-Za-z]:)?[\\/](?![\\/])(?:[^{end}]+[\\/])+", "", text)


def plural(number: int, noun: str) -> str:
    """Return the number and its noun: "1 file", "2,400 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(number: float) -> str:
    """Return a size in decimal units, as disks are sold: "812 B", "4.1 kB", "23 MB", "1.2 TB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if number >= 9.95 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def shell_quote(word: str | Path) -> str:
    """Quote a word for bash and zsh, including bytes that are not valid UTF-8."""
    word = str(word)
    if word.isprintable():
        return shlex.quote(word)
    chars = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(chars)}'"


@contextmanager
def tensorflow_path(folder: Path) -> Iterator[str]:
    """Yield a path to `folder` that TensorFlow takes literally.

    TensorFlow expands glob characters in paths and rejects paths that are not UTF-8; for those the path of a temporary
    symbolic link is yielded, and the folder is created if it does not exist.
    """
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
    """Yield a temporary path beside `path` to write to; it is renamed to `path` on success and deleted on an error.

    Readers never see a partial file, even after SIGKILL or on a full disk. The suffix of `path` is kept, since some
    writers choose the format by it.
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
        error.filename = error.filename or str(path)  # tells the user which disk is full
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, *arrays: "np.ndarray") -> None:
    """Write one array as .npy, several as .npz.

    Serialises in memory first: on a full disk, NumPy's own writers raise an error that does not say so, or crash.
    """
    import numpy as np

    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, arrays[0], allow_pickle=False)
    else:
        np.savez(buffer, *arrays, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, byte-identical for equal content. Raises ValueError for NaN, which JSON does not have."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, keys: Iterable[str], hint: str) -> dict[str, Any]:
    """Read a JSON object that must have these keys.

    Raises UserError if the file is damaged; its message ends with `hint`, which says how to fix it.
    """
    try:
        content = json.loads(path.read_bytes())
        missing = [key for key in keys if key not in content] if isinstance(content, dict) else ["a JSON object"]
    except ValueError as error:
        raise UserError(f"{path} is damaged, it is not valid JSON ({error}): {hint}") from error
    if missing:
        raise UserError(f"{path} is damaged, it lacks {', '.join(missing)}: {hint}")
    return dict(content)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_and_mtime(path: str | Path) -> list[int]:
    """Return size in bytes and modification time in nanoseconds, to detect changed files; zeros if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def walk(folder: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of each file at any depth, folder by folder, without following links.

    What cannot be read, or is deleted meanwhile, is left out.
    """
    folders = [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield entry.path, entry.stat(follow_symlinks=False)


def disk_size(length: int) -> int:
    """Return the bytes that a file of this length takes on disk, in whole blocks."""
    return -(-length // BLOCK) * BLOCK


def free_space(path: Path) -> int:
    """Return the free bytes on the disk of a path, which need not exist yet."""
    return shutil.disk_usage(next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())).free
