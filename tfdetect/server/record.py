"""The routes that search the log of verdicts (docs/log.md)."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from tfdetect.answers import LogCheck
from tfdetect.files import printable
from tfdetect.server import page
from tfdetect.server.health import Error
from tfdetect.server.log_rows import text_of
from tfdetect.workflow.table_formats import RISKY

if TYPE_CHECKING:
    from tfdetect.server.record_store import Record

SETTLE_SECONDS = 1.0  # that a reader waits for what was just judged
NO_LOG = "This server keeps no log; start it with --log."


class LogEntry(BaseModel):
    """A row of the log: a verdict of a model on a file."""

    id: int
    time: str
    """UTC, ISO 8601."""
    sha256: str
    bytes: int
    model: str
    version: int
    model_hash: str
    """SHA-256 of the run's SHA256SUMS, which stands for all files that decide a verdict."""
    verdict: str
    """"real", "fake" or "inconclusive"; "failed" for a file that could not be judged."""
    probability: float | None
    seconds: float
    request: str
    """"score", "explain" or "case"; of TensorFlow Serving's contract "predict", "predict pixels" or "predict features"."""
    who: str
    """The name of the token that asked."""
    chain: str
    """SHA-256 of this row and the chain of the row before it."""


class LogPage(BaseModel):
    """Rows of the log, the newest first."""

    rows: list[LogEntry]
    total: int
    """How many there are in all."""


class LogRows(BaseModel):
    """All rows about a file, the newest first."""

    rows: list[LogEntry]


router = APIRouter(tags=["log"], responses={404: {"model": Error, "description": NO_LOG},
                                            503: {"model": Error, "description": "The database cannot be read."}})  # fmt: skip


def opened(request: Request) -> "Record":
    """Return the log of the server, with what was just judged. Raises HTTPException 404 without one."""
    record: Record | None = request.app.state.record
    if record is None:
        raise HTTPException(404, NO_LOG)
    record.settle(SETTLE_SECONDS)
    return record


def wanted(request: Request,
           sha256: Annotated[str, Query(max_length=64, description="SHA-256 of a file.")] = "",
           text: Annotated[str, Query(max_length=200, description="Text in any column.")] = "",
           since: Annotated[datetime | None, Query(description="Date or time, ISO 8601, from which on.")] = None,
           ) -> dict[str, Any]:  # fmt: skip
    """Return which rows are asked for; a client that may not read those of others gets its own."""
    if since is not None:
        try:
            since = since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)
        except OverflowError as error:
            raise HTTPException(400, "since is out of range.") from error
    return {"sha256": sha256.lower().replace("\0", ""), "text": text.replace("\0", "\ufffd"),  # which PostgreSQL does not have
            "since": text_of(since) if since else "", "who": whose(request)}  # fmt: skip


def whose(request: Request) -> str | None:
    """Return the name of the token whose rows this client may read, None for all: with tokens, those of --log_readers."""
    settings, who = request.app.state.settings, getattr(request.state, "who", "")
    return None if not who or who in settings.log_readers else printable(who)


Log = Annotated["Record", Depends(opened)]
Wanted = Annotated[dict[str, Any], Depends(wanted)]


@contextmanager
def readable() -> Iterator[None]:
    """Turn a database that cannot be read into HTTPException 503."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        raise HTTPException(503, "The database of the log cannot be read.", {"Retry-After": "10"}) from error


@router.get("/log", include_in_schema=False)
async def log_page(request: Request) -> Response:
    """The page of the log. Whether there is one, it asks itself, with a token if need be."""
    return await page.page_file("log.html", request)


@router.get("/v1/log")
def search(log: Log, asked: Wanted, limit: Annotated[int, Query(ge=1, le=1000)] = 100,
           offset: Annotated[int, Query(ge=0, le=2**31)] = 0) -> LogPage:  # fmt: skip
    """Search the log."""
    with readable():
        rows = [LogEntry(**each) for each in log.find(limit, offset, **asked)]
        return LogPage(rows=rows, total=log.count(**asked))


@router.get("/v1/log.csv", response_class=StreamingResponse,
            responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})  # fmt: skip
def as_csv(log: Log, asked: Wanted) -> StreamingResponse:
    """The same rows, all of them, as a table."""
    with readable():
        log.find(1)  # what fails later can only end the answer
    headers = {"Content-Disposition": 'attachment; filename="log.csv"'}
    return StreamingResponse(write_csv(log.rows(**asked)), media_type="text/csv; charset=utf-8", headers=headers)


def write_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table; a text that a spreadsheet might run gets an apostrophe in front, as in tables of verdicts."""
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow(LogEntry.model_fields)
    for each in rows:
        cells = (each[name] for name in LogEntry.model_fields)
        writer.writerow(f"'{cell}" if isinstance(cell, str) and RISKY.match(cell) else cell for cell in cells)
        yield target.getvalue()
        target.seek(0)
        target.truncate()
    yield target.getvalue()


@router.get("/v1/log/check")
def check(log: Log, chain: Annotated[str, Query(max_length=64)] = "") -> LogCheck:
    """Whether each row follows from those before it, and whether the row with this chain is still there. One at a time."""
    if not log.checking.acquire(blocking=False):  # it reads the whole log
        raise HTTPException(503, "The log is being checked already; try again in a moment.", {"Retry-After": "2"})
    try:
        with readable():
            return LogCheck(**log.check(chain.lower()))
    finally:
        log.checking.release()


@router.get("/v1/log/{sha256}")
def of_file(request: Request, log: Log, sha256: Annotated[str, Path(pattern="^[0-9a-fA-F]{64}$")]) -> LogRows:
    """All verdicts on the file with this SHA-256."""
    with readable():
        return LogRows(rows=[LogEntry(**each) for each in log.rows(sha256=sha256.lower(), who=whose(request))])
