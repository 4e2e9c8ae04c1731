"""Clips packed into files of about a gigabyte: written by one process at a time, read by offset by any number of threads.

A shard of kind `npy` is a NumPy array (frames, size, size, 3) of uint8 that `numpy.load` reads; one of kind `tfrecord` holds a
TFRecord for each clip. Clips are appended in the order in which they are added, so equal work gives equal bytes.
"""

import itertools
import json
import os
import sqlite3
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from tfdetect.data.prepare import clip_index
from tfdetect.data.prepare.clip_index import Clip
from tfdetect.stages import stage

SHARD_BYTES = 2**30  # a shard that has reached this size is closed
HEADER = 128  # bytes before the first frame of a shard of kind npy
SAVE_EVERY = 5.0  # seconds of work that a killed process may lose


def shard_path(folder: Path, kind: str, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{number:05d}.{kind}"


def is_complete(folder: Path, kind: str, clip: Clip) -> bool:
    """Return whether the shard of a clip exists and is long enough; somebody may have deleted or truncated it."""
    with suppress(FileNotFoundError):
        return os.path.getsize(shard_path(folder, kind, clip.shard)) >= clip.start + clip.length
    return False


class ClipWriter:
    """Append clips to the last shard of a folder that no other process writes to. A context manager, which saves at the end."""

    def __init__(self, folder: Path, kind: str, size: int):
        """`kind` is npy or tfrecord, and `size` the side of a frame of the clips in pixels."""
        self.folder, self.kind, self.size, self.index = folder, kind, size, clip_index.ClipIndex(folder)
        self.clips: dict[str, tuple[Clip, str | None]] = {}  # not saved yet
        self.files: dict[str, Sequence[Any]] = {}
        self.faces: dict[str, str] = {}
        self.last_save = time.monotonic()
        self.shard: IO[bytes] | None = None
        self.number = self.position = 0
        self._stack = ExitStack()

    def __enter__(self) -> "ClipWriter":
        self.connection: sqlite3.Connection = self._stack.enter_context(self.index.open(write=True))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            self.save()
            self._close_shard()

    def add_clip(self, sha: str, payload: np.ndarray | bytes, clip: Mapping[str, Any], facts: str | None = None) -> None:
        """Append the frames of a file, or its TFRecord, unless the cache has them. Raises OSError if writing fails.

        `clip` has the fields of a `Clip` from frames on.
        """
        if sha in self.clips or self.find(sha):
            return
        start, length = self.append(payload)
        self.clips[sha] = (Clip(self.number, start, length, **clip), facts)

    def add_faces(self, sha: str, payload: np.ndarray | bytes, clip: Mapping[str, Any], facts: str | None, faces: str) -> None:
        """Append the clips of all faces of a file, those after the first under keys of their own."""
        parts = split_faces(payload, len(json.loads(faces)))
        for number, part in enumerate(parts):
            self.add_clip(clip_index.clip_of_face(sha, number), part, clip, None if number else facts)
        self.faces[sha] = faces

    def add_file(self, path: str, result: Sequence[Any]) -> None:
        """Add the result of a file, as in `clip_index.save`."""
        self.files[path] = result
        if time.monotonic() > self.last_save + SAVE_EVERY:
            self.save()

    def find(self, sha: str) -> Clip | None:
        """Return a complete clip with this hash, None if there is none."""
        clip = self.clips[sha][0] if sha in self.clips else clip_index.find_clip(self.connection, sha)
        is_here = clip and self.shard and clip.shard == self.number
        return clip if clip and (is_here or is_complete(self.folder, self.kind, clip)) else None

    @stage("write")
    def append(self, payload: np.ndarray | bytes) -> tuple[int, int]:
        """Append bytes to the shard; return their start and length."""
        if self.shard is None or self.position >= SHARD_BYTES:
            self.save()
            self._close_shard()
            self._open_shard()
        assert self.shard is not None
        data: Any = np.frombuffer(payload, np.uint8) if isinstance(payload, bytes) else np.ascontiguousarray(payload).reshape(-1)
        written = 0
        while written < len(data):  # on a full disk, the first part may be written without an error
            written += os.pwrite(self.shard.fileno(), data[written:], self.position + written)
        start, self.position = self.position, self.position + len(data)
        return start, len(data)

    @stage("write")
    def save(self) -> None:
        """Save what was added: first the bytes of the shard, then the rows that describe them."""
        if self.shard:
            if self.kind == "npy":
                os.pwrite(self.shard.fileno(), npy_header(self.position, self.size), 0)
            getattr(os, "fdatasync", os.fsync)(self.shard.fileno())  # macOS has only the latter
        if self.clips or self.files:
            clip_index.save(self.connection, self.clips, self.files, self.faces)
        self.clips, self.files, self.faces, self.last_save = {}, {}, {}, time.monotonic()

    def _open_shard(self) -> None:
        """Open the last shard, or the first one after it that has room and that no other process writes to."""
        import fcntl

        ends, begin = clip_index.shard_ends(self.connection), HEADER if self.kind == "npy" else 0
        for number in itertools.count(max(ends, default=0)):
            path = shard_path(self.folder, self.kind, number)
            if number in ends and not path.exists():
                continue
            shard = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", 0)
            with suppress(BlockingIOError):  # another process writes to it
                fcntl.flock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end, length = clip_index.shard_ends(self.connection).get(number, begin), os.fstat(shard.fileno()).st_size
                if end < SHARD_BYTES and (length >= end or end == begin):  # a truncated one is not made to look complete
                    os.ftruncate(shard.fileno(), end)  # drops what a killed process has written without saving it
                    self.shard, self.number, self.position = shard, number, end
                    return
            shard.close()

    def _close_shard(self) -> None:
        if self.shard:
            self.shard.close()
            self.shard = None


def split_faces(payload: np.ndarray | bytes, count: int) -> list[Any]:
    """Return the clip of each of `count` faces, which have equally many frames, and their TFRecords as many bytes."""
    if not isinstance(payload, bytes):
        return np.split(payload, count)
    size = len(payload) // count
    return [payload[size * number : size * (number + 1)] for number in range(count)]


def npy_header(end: int, size: int) -> bytes:
    """Return the header of a shard of kind npy that ends at this offset (NumPy format 1.0), HEADER bytes."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({(end - HEADER) // (size * size * 3)}, {size}, {size}, 3), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def drop(folder: Path, kind: str, size: int, number: int, kept: Container[str]) -> None:
    """Delete a shard, after moving the clips of these hashes to another one. Nothing happens while it is written to."""
    import fcntl

    with ClipWriter(folder, kind, size) as writer, shard_path(folder, kind, number).open("rb") as shard:
        try:
            fcntl.flock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # also keeps the writer from choosing this shard
        except BlockingIOError:
            return
        places = {}
        for sha, start, length in clip_index.clips_in(writer.connection, number):
            if sha in kept:
                start, _ = writer.append(os.pread(shard.fileno(), length, start))
                places[sha] = writer.number, start
        writer.save()
        clip_index.move_clips(writer.connection, number, places)
        os.unlink(shard.name)
