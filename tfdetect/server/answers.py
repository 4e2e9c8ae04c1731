"""The shapes of answers about uploads, which the OpenAPI document describes."""

from typing import Any, Literal

from pydantic import BaseModel

from tfdetect.server.health import Error
from tfdetect.server.jobs import Started

Kind = Literal["image", "video"]


class VerdictAnswer(BaseModel):
    """The verdict of a model on a file."""

    probability: float | None
    """Of being fake, 0..1, calibrated; null if the file could not be scored."""
    label: str | None
    """"fake" if the probability reaches the threshold, else "real"."""
    score: float | None
    """Raw output of the detector; higher is more likely fake."""
    frames: int
    note: str
    error: str | None
    source: str | None
    source_probability: float | None
    text: str | None
    verdict: str | None
    """"real", "fake" or "inconclusive"."""
    familiarity: float | None
    unfamiliar: bool | None
    unfamiliar_reason: str | None
    faces: list[dict[str, Any]] | None


class FindingAnswer(BaseModel):
    """What a model found about a file."""

    model: str
    version: int
    threshold: float
    band: tuple[float, float] | None
    """Probabilities between which the verdict is inconclusive."""
    seconds: float
    """From the file's arrival to its verdict."""
    verdict: VerdictAnswer
    meaning: list[str]
    """What the probability means, in sentences."""
    caveats: list[str]
    """What to be careful about in this verdict, such as that the detector was trained on the file."""


class FileAnswer(BaseModel):
    """A file, and what each model found about it."""

    name: str
    sha256: str
    bytes: int
    kind: Kind | None
    error: str | None
    """Why no model could judge it."""
    findings: list[FindingAnswer]


class ScoreAnswer(BaseModel):
    """The answer of /v1/score."""

    files: list[FileAnswer]


class HeatMapAnswer(BaseModel):
    """Which regions drive a score."""

    image: str
    """RGBA overlay of the size of the picture, a data URI."""
    method: str
    note: str
    check: dict[str, float]
    result: str
    passed: bool
    """Whether hiding its hottest tenth lowers the score by more than hiding the same shape elsewhere."""


class PeakAnswer(BaseModel):
    """A peak of a timeline."""

    time: float
    probability: float
    image: str


class TimelineAnswer(BaseModel):
    """The scores of a video over time."""

    times: list[float]
    """Seconds."""
    probabilities: list[float]
    scores: list[float]
    threshold: float
    peaks: list[PeakAnswer]
    note: str
    description: str


class ExplainAnswer(BaseModel):
    """The answer of /v1/explain."""

    name: str
    sha256: str
    kind: Kind
    model: str
    version: int
    verdict: VerdictAnswer
    picture: str | None
    heat_map: HeatMapAnswer | None
    faces: list[dict[str, Any]] | None
    face_note: str | None
    timeline: TimelineAnswer | None


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in ((400, "The form or the file cannot be read."), (401, "A token is needed."), (403, "Of another origin."),
                         (404, "No such model."), (408, "The request did not arrive in time."), (413, "Too large."),
                         (415, "Not an image or video, or not a form."), (429, "Too many requests of this client."),
                         (503, "Too many requests, or models are being loaded."))
}  # fmt: skip
AS_JOB: dict[int | str, dict[str, Any]] = {202: {"model": Started, "description": "It became a job; see /v1/jobs/{id}."}}


def form(files: int | None) -> dict[str, Any]:
    """Return what the OpenAPI document says of a form with a file, or several, and models."""
    file = {"type": "string", "format": "binary", "description": "An image or a video."}
    several = {"type": "array", "items": file, "minItems": 1, **({"maxItems": files} if files else {})}
    models = {"type": "array", "items": {"type": "string"}, "description": "Names of models; by default all."}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file if files == 1 else several, "model": models}}
    encoding = {"file": {"contentType": "application/octet-stream"}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}}
