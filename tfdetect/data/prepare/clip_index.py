"""What a cache holds: where each clip is in its shards, and what became of each file. An SQLite database, so memory stays flat.

A row is written after the bytes that it describes have reached the shard, so a process that is killed leaves at most bytes
without a row, which the next one overwrites.
"""

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from tfdetect.errors import UserError

INDEX_NAME = "index.sqlite"
SHA_LENGTH = 64  # hexadecimal digits of a file's hash
LOCK_SECONDS = 60.0  # how long to wait for another process that is writing
_SCHEMA = """
CREATE TABLE IF NOT EXISTS clips (sha BLOB PRIMARY KEY, shard INTEGER, start INTEGER, length INTEGER, frames INTEGER,
 width INTEGER, height INTEGER, note TEXT, decoded_frames INTEGER,
 total_frames INTEGER, facts TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, sha BLOB, error TEXT, settings TEXT)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faces (sha BLOB PRIMARY KEY, boxes TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS places ON clips (shard, start, length);
"""
_FIND_FILE = """
SELECT files.size, files.mtime, files.sha, files.error, files.settings, clips.shard, clips.start, clips.length, clips.frames,
 clips.width, clips.height, clips.note, clips.decoded_frames, clips.total_frames
 FROM files LEFT JOIN clips ON clips.sha = files.sha WHERE files.path = ?
"""


class Clip(NamedTuple):
    """A clip in a shard, and what was found out about its file."""

    shard: int
    start: int  # offset of its first byte
    length: int  # bytes
    frames: int
    width: int  # native, in pixels
    height: int
    note: str
    decoded_frames: int = 0  # of the file; the others were not checked for damage
    total_frames: int = 0


class FileResult(NamedTuple):
    """What became of a file."""

    state: list[int]  # size in bytes and modification time in nanoseconds when it was read
    sha: str
    error: str
    settings: str  # under which it failed, "" if it did not
    clip: Clip | None


class ClipIndex:
    """The index of a folder of shards. A folder without one is empty."""

    def __init__(self, folder: Path):
        self.path = folder / INDEX_NAME

    @contextmanager
    def open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection, which other threads may use; with `write`, the index is created if it is missing.

        Raises OSError if the disk is full or the index is in use for too long, and UserError if it is damaged.
        """
        try:
            with closing(self._connect(write)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def _connect(self, write: bool) -> sqlite3.Connection:
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            empty = sqlite3.connect(":memory:", check_same_thread=False)
            empty.executescript(_SCHEMA)
            return empty
        # Readers, too, need to write where a killed process has left a transaction that must be rolled back.
        mode = "rwc" if write else "rw" if os.access(self.path, os.W_OK) else "ro"
        address = f"file:{quote(os.fsencode(self.path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(address, LOCK_SECONDS, uri=True, check_same_thread=False)
        if write:
            connection.executescript(_SCHEMA)
        return connection

    def _explain(self, error: sqlite3.DatabaseError) -> Exception:
        """Return the error to raise instead of an error of SQLite."""
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if isinstance(error, sqlite3.OperationalError):
            return OSError(errno.EIO, f"{error} (SQLite)", str(self.path))
        return UserError(f"{self.path} is damaged ({error}): delete the folder {self.path.parent}, then the files are decoded "
                         "again; if they no longer exist, restore it from a copy.")  # fmt: skip


def find_file(connection: sqlite3.Connection, path: str) -> FileResult | None:
    """Return what became of a file, None if it is unknown."""
    row = connection.execute(_FIND_FILE, (key(path),)).fetchone()
    if row is None:
        return None
    return FileResult([row[0], row[1]], (row[2] or b"").hex(), row[3], row[4], None if row[5] is None else Clip(*row[5:]))


def find_clip(connection: sqlite3.Connection, sha: str) -> Clip | None:
    """Return the clip of the file with this SHA-256, None if there is none."""
    query = f"SELECT {', '.join(Clip._fields)} FROM clips WHERE sha = ?"
    row = connection.execute(query, (bytes.fromhex(sha),)).fetchone()
    return Clip(*row) if row else None


def locate(connection: sqlite3.Connection, shas: Iterable[str]) -> np.ndarray:
    """Return shard, start, length and frames of the clips with these hashes, (hashes, 4) int64.

    Raises KeyError if there is none.
    """
    query = "SELECT shard, start, length, frames FROM clips WHERE sha = ?"
    rows = [(connection.execute(query, (bytes.fromhex(sha),)).fetchone(), sha) for sha in shas]
    if missing := next((sha for row, sha in rows if row is None), None):
        raise KeyError(f"the cache has no clip of {missing}")
    return np.array([row for row, _ in rows], np.int64).reshape(-1, 4)


def find_facts(connection: sqlite3.Connection, sha: str) -> str | None:
    """Return the facts about the file with this hash, as text; None if there are none."""
    row = connection.execute("SELECT facts FROM clips WHERE sha = ?", (bytes.fromhex(sha),)).fetchone()
    return row[0] if row else None


def find_faces(connection: sqlite3.Connection, sha: str) -> str:
    """Return where the faces of the file with this hash are, as JSON; "" for an index of clips without faces."""
    row = connection.execute("SELECT boxes FROM faces WHERE sha = ?", (bytes.fromhex(sha),)).fetchone()
    return row[0] if row else ""


def clip_of_face(sha: str, number: int) -> str:
    """Return the key of the clip of a face of a file; the first face has that of the file, its hash."""
    return f"{sha}{number:02x}" if number else sha


def file_of(key: str) -> str:
    """Return the hash of the file of a clip."""
    return key[:SHA_LENGTH]


def shard_ends(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the number of each shard, with the offset at which its last clip ends."""
    return dict(connection.execute("SELECT shard, MAX(start + length) FROM clips GROUP BY shard").fetchall())


def clips_in(connection: sqlite3.Connection, shard: int) -> Iterator[tuple[str, int, int]]:
    """Yield (hash, start, length) of the clips in a shard, in their order."""
    rows = connection.execute("SELECT sha, start, length FROM clips WHERE shard = ? ORDER BY start", (shard,)).fetchall()
    return ((sha.hex(), start, length) for sha, start, length in rows)


def save(connection: sqlite3.Connection, clips: Mapping[str, tuple[Clip, str | None]], files: Mapping[str, Sequence[Any]],
         faces: Mapping[str, str]) -> None:  # fmt: skip
    """Save clips, by hash, each with its facts, results of files, by path, and faces of files, by hash, in one transaction.

    A result is (size, modification time, hash or "", error, settings). A clip replaces one with the same hash.
    """
    with connection:  # only now, so that other processes wait as shortly as possible
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("REPLACE INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                               ((bytes.fromhex(sha), *clip, facts) for sha, (clip, facts) in clips.items()))  # fmt: skip
        connection.executemany("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                               ((key(path), size, mtime, bytes.fromhex(sha), error, settings)
                                for path, (size, mtime, sha, error, settings) in files.items()))  # fmt: skip
        connection.executemany("REPLACE INTO faces VALUES (?, ?)", ((bytes.fromhex(sha), text) for sha, text in faces.items()))


def move_clips(connection: sqlite3.Connection, shard: int, places: Mapping[str, tuple[int, int]]) -> None:
    """Save that the clips with these hashes are now at (shard, start), and that the others of `shard` are gone."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE clips SET shard = ?, start = ? WHERE sha = ?",
                               ((*place, bytes.fromhex(sha)) for sha, place in places.items()))  # fmt: skip
        connection.execute("DELETE FROM clips WHERE shard = ?", (shard,))


def key(path: str) -> bytes:
    """Return what a file is found by: its absolute path, which need not be UTF-8."""
    return os.fsencode(os.path.abspath(path))
