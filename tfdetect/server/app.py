"""The application: its parts, and the one shape of all errors."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tfdetect import __version__
from tfdetect.server import case, explain, health, jobs, score, tf_serving
from tfdetect.server.batcher import Overloaded
from tfdetect.server.guard import add_guard
from tfdetect.server.models import Models, UnknownModel
from tfdetect.server.settings import ServeSettings

log = logging.getLogger("tfdetect.server")
RETRY_AFTER = {"Retry-After": "1"}  # seconds


def create_app(models: Models, settings: ServeSettings) -> FastAPI:
    """Return the application that serves these models, which may still have to be loaded."""
    app = FastAPI(title="tfdetect", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan)  # pages from a CDN
    app.state.models, app.state.settings, app.state.metrics = models, settings, health.Metrics()
    app.state.record = app.state.jobs = None
    for router in (tf_serving.router, health.router, score.router, explain.router, case.router, jobs.router):
        app.include_router(router)
    add_errors(app)
    add_guard(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


def add_errors(app: FastAPI) -> None:
    """Answer every error with its status and {"error": "one sentence"}, without a server's path or a traceback."""

    def answer(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(UnknownModel)
    async def unknown(request: Request, error: UnknownModel) -> JSONResponse:
        return answer(404, str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> JSONResponse:
        return answer(503, "Too many requests are waiting; try again in a moment.", RETRY_AFTER)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(500, "The server failed to answer; its log says why.")
