"""The application: its parts, and what it answers to errors."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfdetect import __version__
from tfdetect.server import case, explain, health, jobs, page, record, score, tf_serving
from tfdetect.server.batcher import Overloaded
from tfdetect.server.guard import add_guard
from tfdetect.server.health import FAILED, refusal
from tfdetect.server.models import Models, UnknownLabel, UnknownModel
from tfdetect.server.settings import ServeSettings

if TYPE_CHECKING:
    from tfdetect.server.record_store import Record

log = logging.getLogger("tfdetect.server")
RETRY_AFTER = {"Retry-After": "1"}  # seconds


def create_app(models: Models, settings: ServeSettings) -> FastAPI:
    """Return the application that serves these models; those that are not loaded yet are, once it has started."""
    app = FastAPI(title="tfdetect", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan)  # pages from a CDN
    app.state.models, app.state.settings = models, settings
    app.state.record = open_record(models, settings)
    for each in (health, tf_serving, score, explain, case, jobs, record, page):
        app.include_router(each.router)
    add_errors(app)
    add_guard(app, settings)
    app.add_middleware(CountRequests, models=models)  # around the guard, whose refusals count
    app.add_middleware(AnswerHead)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.models.watch()
    yield
    app.state.models.stop_watching()
    if app.state.record:
        app.state.record.close()


def open_record(models: Models, settings: ServeSettings) -> "Record | None":
    """Return the log that the settings ask for. Raises UserError if it cannot be opened."""
    if settings.log is None:
        return None
    from tfdetect.server.record_store import Record

    return Record(settings.log, models.metrics.registry)


class AnswerHead:
    """Answers HEAD as GET, without the body, at every path: FastAPI's routes for GET refuse it, unlike Starlette's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if not ended:
                ended = message["type"] == "http.response.body"
                await send({"type": message["type"], "body": b""} if ended else message)

        await self.app({**scope, "method": "GET"}, receive, send_head)  # a stream ends, as its client is told to have left


class CountRequests:
    """Counts the answers by path, model and status for /metrics; written for ASGI, since it is on the way of every request."""

    def __init__(self, app: ASGIApp, models: Models) -> None:
        self.app, self.models = app, models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            name = scope.get("path_params", {}).get("name", "")
            labels = (getattr(scope.get("route"), "path", "other"), name if name in self.models.names() else "")
            self.models.metrics.requests.labels(*labels, str(status)).inc()
            self.models.metrics.seconds.labels(*labels).observe(time.perf_counter() - start)


def add_errors(app: FastAPI) -> None:
    """Answer every error with its status and {"error": "one sentence"}, without a server's path or a traceback."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(UnknownModel)
    async def unknown(request: Request, error: UnknownModel) -> JSONResponse:
        return refusal(400 if isinstance(error, UnknownLabel) else 404, str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> JSONResponse:
        return refusal(503, "Too many requests are waiting; try again in a moment.", RETRY_AFTER)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return refusal(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return refusal(500, FAILED)  # uvicorn writes the traceback
