"""Whether the server is alive, whether it is ready, and its figures for Prometheus; and the one shape of all errors."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

router = APIRouter(tags=["health"])
FAILED = "The server failed to answer; its log says why."


class Error(BaseModel):
    """What every error answers: TensorFlow Serving's shape."""

    error: str
    """One sentence."""


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer {"error": message} with a status of HTTP."""
    return JSONResponse(Error(error=message).model_dump(), status, headers)


class Health(BaseModel):
    """The answer of /healthz and /readyz."""

    status: str


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the server is alive."""
    return Health(status="alive")


@router.get("/readyz", responses={503: {"model": Error, "description": "Models are being loaded."}})
async def readyz(request: Request, response: Response) -> Health | Error:
    """Whether all models are loaded."""
    if request.app.state.models.ready:
        return Health(status="ready")
    response.status_code = 503
    return Error(error="Models are being loaded.")


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(request.app.state.models.metrics.registry), media_type=CONTENT_TYPE_LATEST)
