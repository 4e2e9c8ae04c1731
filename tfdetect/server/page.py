"""The page where a person asks "is this real?", and what it has to know about the server.

Its files are in `page/`. They load nothing from elsewhere and hold no inline script or style, so they work under the policy
`default-src 'self'; img-src 'self' data: blob:; media-src blob:`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from tfdetect import __version__, files
from tfdetect.server.log_rows import COLUMNS

if TYPE_CHECKING:
    from tfdetect.server.models import Models, ServedModel
    from tfdetect.server.settings import ServeSettings

FOLDER = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json",
         ".svg": "image/svg+xml"}  # fmt: skip
# Browsers ask each time whether a file has changed, and get 304: after an upgrade no page mixes old files with new ones.
CACHING = "no-cache"

router = APIRouter(tags=["page"])
_static = StaticFiles(directory=FOLDER)


class ServerModel(BaseModel):
    """A detector, and what its model card says about it."""

    name: str
    version: int
    detector: str
    """Its name in the registry, such as cnn_lstm."""
    input: Literal["image", "clip"]
    faces: Literal["none", "yunet", "all"]
    """Whether it looks at the whole picture, at the largest face (yunet), or at all faces."""
    threshold: float
    """The probability from which on a file is called fake, 0..1."""
    band: tuple[float, float] | None
    """Probabilities between which a verdict is inconclusive."""
    explains: bool
    """Whether /v1/explain answers for it."""
    headline: str
    """How good it is, and on which files that was measured."""
    not_for: list[str]
    """What it is not fit for, each to be read after "Do not use it"."""
    caveats: list[str]
    """What makes all of its verdicts doubtful, such as a test that does not show it to be better than chance."""
    date: str
    """When its files were written, ISO 8601."""


class Server(BaseModel):
    """What the page has to know."""

    version: str
    languages: dict[str, str]
    """Languages of the page, by their codes."""
    models: list[ServerModel]
    """Those that are loaded."""
    loading: list[str]
    """Names of the others."""
    limits: dict[str, float | None]
    """Of an upload: bytes, pixels, frames, seconds, files."""
    keeps: list[str] | None
    """Columns of the log, null without one."""
    needs_token: bool


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    """The page."""
    return await page_file("index.html", request)


@router.get("/page/{file}", include_in_schema=False)
async def page_file(file: str, request: Request) -> Response:
    """A file that belongs to the page."""
    if (kind := TYPES.get(Path(file).suffix)) is None:
        raise HTTPException(404, "Not Found")
    response = await _static.get_response(file, request.scope)
    response.headers["Cache-Control"] = CACHING
    if response.status_code == 200:  # what the system holds for the type of a file differs from system to system
        response.headers["Content-Type"] = f"{kind}; charset=utf-8"
    return response


@router.get("/v1/server")
def server(request: Request) -> Server:
    """What the server offers: its detectors and how good they are, its limits, and what it keeps."""
    return describe(request.app.state.models, request.app.state.settings)


def describe(models: Models, settings: ServeSettings) -> Server:
    """Return what is to be known about a server; models that are still being loaded are left out."""
    found = []
    for name in models.names():
        try:
            found.append(describe_model(models.get(name)))
        except LookupError:
            continue
    limits = {name: getattr(settings.limits, name) for name in ("bytes", "pixels", "frames", "seconds", "files")}
    keeps = list(COLUMNS) if settings.log else None
    return Server(version=__version__, languages=languages(), models=found, loading=models.loading(), limits=limits, keeps=keeps,
                  needs_token=settings.access.tokens is not None)  # fmt: skip


def describe_model(model: ServedModel) -> ServerModel:
    """Return what is to be known about a detector."""
    from tfdetect.workflow import case_model

    predictor, run = model.predictor, model.detector.run
    headline, not_for, _ = case_model.judge_run(model.detector.artifact)
    caveats = [*([case_model.SAMPLE] if run.data.path is None else []), *case_model.doubts(model.detector.artifact),
               *predictor.warnings, *run.detector.warnings()]  # fmt: skip
    written = datetime.fromtimestamp(model.detector.artifact.config.stat().st_mtime, UTC)
    return ServerModel(
        name=model.name,
        version=model.version,
        detector=run.detector.name,
        input="image" if predictor.is_frame_detector else "clip",
        faces=run.data.faces,
        threshold=predictor.threshold,
        band=predictor.calibration.inconclusive,
        explains=True,  # hiding parts of a picture explains any detector
        headline=headline,
        not_for=not_for,
        caveats=caveats,
        date=written.isoformat(timespec="seconds"),
    )


@cache
def languages() -> dict[str, str]:
    """Return the languages of the page, by their codes: one for each file texts.CODE.json."""
    texts = {path.name.split(".")[1]: files.read_json(path, ["language"], "") for path in sorted(FOLDER.glob("texts.*.json"))}
    return {code: found["language"] for code, found in texts.items()}
