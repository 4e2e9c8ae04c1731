"""The rows of the log in a database, SQLite or PostgreSQL, through SQLAlchemy.

A thread writes them, so that no answer waits for a disk. While the database cannot be written, rows wait in memory, WAITING at
most; later ones are lost, which the server's log and /metrics tell. Each row carries a hash of itself and of the row before it,
so that a row which was changed, removed or put in between no longer fits (https://en.wikipedia.org/wiki/Hash_chain).
"""

import hashlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import islice
from typing import Any

import sqlalchemy as sql
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError

from tfdetect.answers import LogRow
from tfdetect.errors import UserError
from tfdetect.server.log_rows import COLUMNS

log = logging.getLogger("tfdetect.server")
WAITING = 10_000  # rows in memory
BATCH = 500  # rows in a transaction
PAUSES = (0.5, 30.0)  # seconds between two attempts to write: the first and the longest
CLOSE_SECONDS = 5.0  # in which what waits is written at the end
CHUNK = 2000  # rows that are read at a time
START = "0" * 64  # what the first row follows
LOCK = 0x7FDE7EC7  # PostgreSQL's name of the lock for which several servers of one log wait
TABLE = sql.Table(
    "tfdetect_log", sql.MetaData(),
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("time", sql.String(27), nullable=False, index=True),
    sql.Column("sha256", sql.String(64), nullable=False, index=True),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("model_hash", sql.String(64), nullable=False),
    sql.Column("verdict", sql.String(16), nullable=False),
    sql.Column("probability", sql.Double),
    sql.Column("seconds", sql.Double, nullable=False),
    sql.Column("request", sql.String(16), nullable=False),
    sql.Column("who", sql.Text, nullable=False),
    sql.Column("chain", sql.String(64), nullable=False),
)  # fmt: skip
TEXTS = ("sha256", "model", "model_hash", "verdict", "request", "who")  # columns that are searched for a text


class Record:
    """A log, and the thread that writes it. All methods may be called from any thread."""

    def __init__(self, url: str, registry: CollectorRegistry | None = None):
        """Open the database, which may be a path of an SQLite file, and create the table if there is none.

        Raises UserError, which shows no password, if that is not possible.
        """
        self.engine = _open(url)
        own: Any = {"registry": registry or CollectorRegistry(), "namespace": "tfdetect"}
        self._results = Counter("log_rows", "Rows of the log that were written, or lost.", ["result"], **own)
        Gauge("log_rows_waiting", "Rows of the log that wait to be written.", **own).set_function(lambda: len(self._rows))
        self._rows, self._changed = deque[LogRow](), threading.Condition()
        self._closed, self.lost, self.checking = threading.Event(), 0, threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[LogRow]) -> None:
        """Have rows written soon; what does not fit into memory is lost."""
        with self._changed:
            room = WAITING - len(self._rows)
            self._rows.extend(rows[:room])
            self._changed.notify_all()
            self._lose(len(rows) - room, f"since {len(self._rows)} wait already")

    def settle(self, seconds: float) -> bool:
        """Wait until all rows are written, but no longer than this; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._rows, seconds)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self.settle(CLOSE_SECONDS)
        with self._changed:
            self._closed.set()
            self._lose(len(self._rows), "since the server stops")
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        self.engine.dispose()

    def count(self, **wanted: Any) -> int:
        """Return how many rows there are; the keywords are those of `find`."""
        with self.engine.connect() as connection:
            return int(connection.execute(_where(sql.select(sql.func.count()).select_from(TABLE), **wanted)).scalar_one())

    def find(self, limit: int, offset: int = 0, **wanted: Any) -> list[dict[str, Any]]:
        """Return rows, the newest first: with this `sha256`, with this `text` in a column, `since` this time, of this `who`."""
        query = _where(sql.select(TABLE), **wanted).order_by(TABLE.c.id.desc()).limit(limit).offset(offset)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def rows(self, ascending: bool = False, **wanted: Any) -> Iterator[dict[str, Any]]:
        """Yield such rows in turn, however many there are."""
        query, key, last = _where(sql.select(TABLE), **wanted).limit(CHUNK), TABLE.c.id, None
        query = query.order_by(key if ascending else key.desc())
        while True:
            part = query if last is None else query.where(key > last if ascending else key < last)
            with self.engine.connect() as connection:
                found = [dict(row) for row in connection.execute(part).mappings()]
            yield from found
            if len(found) < CHUNK:
                return
            last = found[-1]["id"]

    def check(self, known: str = "") -> dict[str, Any]:
        """Return the number of rows, the id of the first one that does not follow from those before it, the last hash of the
        chain, and whether a row has the hash `known`, None without one."""
        rows, first, chain, seen = 0, None, START, False
        for row in self.rows(ascending=True):
            rows += 1
            if first is None and row["chain"] != _chained(chain, [row[name] for name in COLUMNS]):
                first = row["id"]
            chain = row["chain"]
            seen = seen or chain == known
        return {"rows": rows, "first_changed": first, "chain": chain, "known": seen if known else None}

    def _lose(self, rows: int, why: str) -> None:
        if rows <= 0:
            return
        if not self.lost:
            log.error("rows of the log are lost, %s", why)
        self.lost += rows
        self._results.labels("lost").inc(rows)

    def _write_all(self) -> None:
        pause, problem = PAUSES[0], ""
        while batch := self._next_batch():
            try:
                self._write(batch)
            except (OperationalError, InterfaceError, OSError) as error:
                if not problem:
                    problem = _reason(error)
                    log.error("the log cannot be written (%s): answers go on, and up to %d rows wait", problem, WAITING)
                self._closed.wait(pause)
                pause = min(PAUSES[1], 2 * pause)
                continue
            except SQLAlchemyError as error:  # of these rows: the next ones may be written
                log.error("%d rows of the log cannot be written (%s)", len(batch), _reason(error))
                self._results.labels("lost").inc(len(batch))
            else:
                self._results.labels("written").inc(len(batch))
            if problem:
                log.warning("the log is written again; %d rows were lost", self.lost)
            pause, problem, self.lost = PAUSES[0], "", 0
            with self._changed:
                for _ in batch:
                    self._rows.popleft()
                self._changed.notify_all()

    def _next_batch(self) -> list[LogRow]:
        """Wait for rows, and return them; none once the log is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._closed.is_set())
            return [] if self._closed.is_set() else list(islice(self._rows, BATCH))

    def _write(self, batch: Sequence[LogRow]) -> None:
        with self.engine.begin() as connection:
            _lock(connection)
            last = connection.execute(sql.select(TABLE.c.chain).order_by(TABLE.c.id.desc()).limit(1)).scalar()
            chain, rows = last or START, []
            for row in batch:
                chain = _chained(chain, astuple(row))
                rows.append({**dict(zip(COLUMNS, astuple(row), strict=True)), "chain": chain})
            connection.execute(sql.insert(TABLE), rows)


def _chained(before: str, values: Sequence[Any]) -> str:
    """Return the hash of a row that follows one with the hash `before`."""
    return hashlib.sha256(f"{before}\n{json.dumps(list(values))}".encode()).hexdigest()


def _lock(connection: Connection) -> None:
    """Have other servers wait until this transaction has ended: each row follows the one before it."""
    if connection.dialect.name == "sqlite":
        connection.execute(sql.delete(TABLE).where(sql.false()))  # takes the lock, whichever way the driver begins transactions
    else:
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(LOCK)))


def _where(query: Any, sha256: str = "", text: str = "", since: str = "", who: str | None = None) -> Any:
    """Return the query for rows as `Record.find` describes them; None as `who` is anyone."""
    columns = TABLE.c
    query = query.where(columns.sha256 == sha256) if sha256 else query
    query = query.where(columns.time >= since) if since else query
    query = query.where(columns.who == who) if who is not None else query
    return query.where(sql.or_(*(columns[name].icontains(text, autoescape=True) for name in TEXTS))) if text else query


def _open(url: str) -> Engine:
    """Return the engine of a database that has the table."""
    parsed = _parse(url)
    is_file = parsed.get_backend_name() == "sqlite"
    of_server = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "client_encoding": "utf8"}
    options: dict[str, Any] = {"timeout": 10} if is_file else of_server
    try:
        if is_file and parsed.database and not os.path.exists(parsed.database):
            os.close(os.open(parsed.database, os.O_CREAT | os.O_WRONLY, 0o600))  # who asked what is nobody else's business
        engine = sql.create_engine(parsed, connect_args=options, pool_pre_ping=True, hide_parameters=True)
        if is_file:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # it is read while it is written
        TABLE.metadata.create_all(engine)
        with engine.connect() as connection:
            connection.execute(sql.select(TABLE).limit(1))
    except ModuleNotFoundError as error:
        raise UserError(f"--log {_shown(parsed)} needs the package {error.name}: pip install 'tfdetect[postgres]'.") from error
    except (SQLAlchemyError, OSError) as error:
        raise UserError(f"The log {_shown(parsed)} cannot be opened: {_reason(error)}.") from error
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = sql.make_url(url if "://" in url else f"sqlite:///{url}")
    except ArgumentError as error:
        raise UserError("--log takes the path of an SQLite file, or an address such as postgresql://USER@HOST/DB.") from error
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"--log {_shown(parsed)}: the log is kept in SQLite or PostgreSQL.")
    return parsed


def _shown(url: URL) -> str:
    """Return an address without its password."""
    return url.database or "" if url.drivername == "sqlite" else url.render_as_string(hide_password=True)


def _reason(error: BaseException) -> str:
    """Return what a database says, on one line, without the statement."""
    said = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error)
    return " ".join(said.split())[:300].rstrip(".?")
