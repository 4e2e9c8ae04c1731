"""The table that `predict --out` writes: a row per file, as Parquet, CSV, JSON Lines or .xlsx, for one file or millions.

While files are scored, their rows are in a SQLite database beside the table, `TABLE.part`, which is committed every second: a
killed command loses no more, and the same command goes on. At the end the rows are written in the order of the files, a few
at a time, and the database is deleted. The command may be repeated: only new and changed files are then scored.

A row is valid for the settings (model, calibration, how files are read), size and modification time of the file that are in it.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect.errors import UserError
from tfdetect.files import atomic_write, size_and_mtime
from tfdetect.workflow import table_formats

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Verdict

SAVE_EVERY = 1.0  # seconds
TABLES = """
CREATE TABLE IF NOT EXISTS settings (value TEXT);
CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, path BLOB UNIQUE, failed INTEGER, row TEXT);
CREATE TABLE IF NOT EXISTS places (place INTEGER PRIMARY KEY, path BLOB);
"""
OTHERS = "SELECT row FROM rows WHERE path NOT IN (SELECT path FROM places) ORDER BY number"
REASONS = ("SELECT json_extract(row, '$.unfamiliar_reason') AS reason, count(*) FROM places JOIN rows USING (path) "
           "WHERE reason IS NOT NULL GROUP BY reason")  # fmt: skip
GIVEN = "SELECT row FROM places JOIN rows USING (path) ORDER BY place"


@dataclass(frozen=True)
class WrittenVerdicts:
    """What `predict --out` wrote: the table, the number of files, how many of them failed, and how many are unlike the training
    data, for each reason."""

    path: Path
    files: int
    failed: int
    unfamiliar: Mapping[str, int] = field(default_factory=dict)


class VerdictTable:
    """A table of verdicts that is being written; see the module."""

    def __init__(self, path: Path, database: sqlite3.Connection, facts: Mapping[str, Any], settings: str):
        self.path, self.format = path, table_formats.by_suffix(path)
        self._database, self._facts, self._settings = database, dict(facts), settings
        self._lock = threading.RLock()  # files are looked up in the thread that decodes
        self._states: dict[str, dict[str, Any]] = {}  # of files that are being scored
        self._saved = time.monotonic()

    def missing(self, paths: Iterable[str | Path], known: Callable[[dict[str, Any]], object]) -> Iterator[str]:
        """Note the order of the files, and yield those to be scored; call `known` with the row of each other file."""
        for place, path in enumerate(map(str, paths)):
            state = _state(path)
            with self._lock:
                key = self._key(path)
                self._database.execute("INSERT INTO places VALUES (?, ?)", (place, key))
                row = self._find(key)
                is_known = row is not None and {**row, **state} == row
                is_given_twice = path in self._states
                if not (is_known or is_given_twice):
                    self._states[path] = state
            if is_known and row:
                known(row)
            elif is_given_twice:
                known({})
            else:
                yield path

    def add(self, verdict: "Verdict") -> None:
        """Add the verdict on a file that `missing` yielded."""
        with self._lock:
            faces = verdict.faces and json.dumps(verdict.faces)  # as text, which every format has
            row = {**asdict(verdict), "faces": faces, **self._facts, **self._states.pop(verdict.path), "settings": self._settings}
            self._store({**row, "path": self.format.path_text(verdict.path)})
            if time.monotonic() > self._saved + SAVE_EVERY:
                self.save()

    def save(self) -> None:
        """Commit the rows so far."""
        with self._lock:
            self._database.execute("COMMIT")
            self._database.execute("BEGIN")
            self._saved = time.monotonic()

    def write(self) -> WrittenVerdicts:
        """Write the table: the rows of the given files in their order, then rows that it held of other files."""
        with self._lock:
            files, failed = self._database.execute("SELECT count(*), sum(failed) FROM places JOIN rows USING (path)").fetchone()
            total = files + self._database.execute(f"SELECT count(*) FROM ({OTHERS})").fetchone()[0]
            table_formats.require_room(self.path, total)
            with atomic_write(self.path) as temporary:
                self.format.write(temporary, (json.loads(row) for query in (GIVEN, OTHERS)
                                              for (row,) in self._database.execute(query)))  # fmt: skip
            unfamiliar = dict(self._database.execute(REASONS).fetchall())
        return WrittenVerdicts(self.path, files, failed or 0, unfamiliar)

    def load_rows(self) -> None:
        """Read the rows of an earlier table. Raises UserError if it holds anything else, or verdicts under other settings."""
        try:
            for row in self.format.read(self.path):
                if row["settings"] != self._settings:
                    raise UserError(self.other_settings())
                self._store(row)
        except UserError:
            raise
        except Exception as error:  # readers raise many types
            raise UserError(f"{self.path} exists, and predict did not write it: give another --out.") from error

    def other_settings(self) -> str:
        """Return the message for verdicts of another model."""
        return (f"{self.path} holds verdicts of another model, or with another threshold, timeout or limit: give another --out, "
                "or delete it.")  # fmt: skip

    def _key(self, path: str) -> bytes:
        return self.format.path_text(path).encode("utf-8", "surrogatepass")

    def _find(self, key: bytes) -> dict[str, Any] | None:
        found = self._database.execute("SELECT row FROM rows WHERE path = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else None

    def _store(self, row: Mapping[str, Any]) -> None:
        key = row["path"].encode("utf-8", "surrogatepass")
        values = (key, row["error"] is not None, json.dumps(row))
        self._database.execute("INSERT INTO rows (path, failed, row) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
                               "failed = excluded.failed, row = excluded.row", values)  # fmt: skip


@contextmanager
def open_table(path: Path, facts: Mapping[str, Any], settings: str) -> Iterator[VerdictTable]:
    """Yield the table at `path`, to be filled, with the rows that are there already; delete its database if that succeeds.

    `facts` are the columns that all rows of this command share, and `settings` says under which a row is valid. Raises UserError
    if the table or its database holds something else or cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    is_new = not part.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = sqlite3.connect(part, timeout=0.1, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN EXCLUSIVE")
            table = VerdictTable(path, database, facts, settings)
            try:
                _prepare(table, database, settings)
            except UserError:
                if is_new:
                    part.unlink()
                raise
            try:
                yield table
            finally:
                table.save()
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        reason = "another process is writing it" if "locked" in str(error) else str(error)
        raise UserError(f"{path} cannot be written: {reason}.") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"{part} is damaged ({error}): delete it, and repeat the command.") from error
    part.unlink()


def _prepare(table: VerdictTable, database: sqlite3.Connection, settings: str) -> None:
    """Fill a new database with the rows of the table; raise UserError if an old one holds verdicts under other settings."""
    for statement in TABLES.split(";"):
        database.execute(statement)
    database.execute("DELETE FROM places")
    found = database.execute("SELECT value FROM settings").fetchone()
    if found and found[0] != settings:
        raise UserError(table.other_settings().replace(f"{table.path}", f"{table.path}.part", 1))
    if not found:
        if table.path.exists():
            table.load_rows()
        database.execute("INSERT INTO settings VALUES (?)", (settings,))


def _state(path: str) -> dict[str, Any]:
    """Return the size and modification time of a file as they are in its row; None for a file that cannot be read, which is
    tried again as soon as it can."""
    size, modified = size_and_mtime(path) if os.access(path, os.R_OK) else (None, None)
    if modified is None or size is None:
        return {"bytes": None, "modified": None}
    seconds, nanoseconds = divmod(modified, 10**9)
    return {"bytes": size, "modified": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"}
