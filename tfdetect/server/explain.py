"""POST /v1/explain: what drives the score of a file."""

import asyncio
import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tfdetect.data.media.frames import Media
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import suppress_out_of_memory
from tfdetect.evaluation.timeline import Timeline
from tfdetect.pages import explanation
from tfdetect.server.answers import AS_JOB, REFUSALS, ExplainAnswer, form
from tfdetect.server.jobs import DECODING, FOLLOWING, SCORING, Job
from tfdetect.server.judges import KnownModel
from tfdetect.server.score import decode, finding, judge, receive, record, unless_gone
from tfdetect.server.uploads import Form, Upload, without_paths
from tfdetect.serving.predictor import Verdict
from tfdetect.workflow import case, explaining

router = APIRouter(tags=["verdicts"])
STRENGTH = 0.7  # opacity of a heat-map where it is strongest
Work = Callable[[Any, Form, Sequence[str], Job], Any]


@router.post("/v1/explain", responses={**AS_JOB, **REFUSALS, 200: {"model": ExplainAnswer}}, openapi_extra=form(1))
async def explain_upload(request: Request, wait: bool = True) -> JSONResponse:
    """Show what drives the score of one file with one model, by default the first; of a video also its scores over time."""
    return JSONResponse(*await in_turn(request, wait, explain_form, 1))


async def in_turn(request: Request, wait: bool, work: Work, models: int | None) -> tuple[dict[str, Any], int]:
    """Return the result of `work(state, form, names, job)` on one file with at most so many models, and 200; or what says that
    it became a job, and 202. Raises HTTPException."""
    state = request.app.state
    received, names, inline = await receive(request, wait, 1)
    work_of = lambda job: work(state, received, names[:models], job)  # noqa: E731
    job = state.jobs.start(work_of, request.state.who, received.close, received.frames)
    if not inline:
        return {"job": job.now.id}, 202
    try:
        result = await unless_gone(request, asyncio.shield(job.task))
    finally:
        await state.jobs.cancel(job)
        state.jobs.forget(job)
    if isinstance(result, BaseException):
        raise result
    return result, 200


async def explain_form(state: Any, received: Form, names: Sequence[str], job: Job) -> dict[str, Any]:
    """Return the answer of /v1/explain. Raises HTTPException 400 for a file that cannot be read."""
    [upload], [name], start = received.files, names, time.monotonic()
    served = state.models.get(name)
    job.report(DECODING)
    known: KnownModel = await asyncio.to_thread(state.judges.of, served)
    media = await decode(state, known, upload, [], in_turn=True)
    job.report(SCORING)
    verdict = await judge(state, known, upload, media)
    found = finding(known, verdict, upload, {}, time.monotonic() - start)
    record(state, [{"sha256": upload.sha256, "bytes": upload.bytes, "findings": [found]}], [served], "explain", job.who)
    answer = {"name": upload.name, "sha256": upload.sha256, "kind": upload.kind, "model": name, "version": served.version,
              "verdict": found["verdict"], "faces": answer_faces(verdict),
              "face_note": face_note(known, verdict, media)}  # fmt: skip
    if isinstance(media, WorkerFailure):
        if not answer["face_note"]:
            raise HTTPException(400, f"{upload.name}: {answer['verdict']['error']}")
        return answer | {"picture": None, "heat_map": None, "timeline": None}
    job.report("Drawing the heat-map")
    answer |= await asyncio.to_thread(heat_map, known, verdict, media)
    job.report(FOLLOWING)
    line = await asyncio.to_thread(case.follow, known.judge, str(upload.path), media, {})
    return answer | {"timeline": line and timeline_answer(line, upload)}


def answer_faces(verdict: Verdict) -> list[dict[str, Any]] | None:
    """Return the faces of a file, for a run that judges all of them."""
    return list(verdict.faces) if verdict.faces else None


def face_note(known: KnownModel, verdict: Verdict, media: Media | WorkerFailure) -> str | None:
    """Return whether a run on faces found one; None for other runs, and for files that cannot be read."""
    if known.judge.run.data.faces == "none":
        return None
    if isinstance(media, WorkerFailure):
        return "no face found" if media.reason.startswith("no face found") else None
    return f"{len(verdict.faces)} faces found" if verdict.faces and len(verdict.faces) > 1 else "one face judged"


def heat_map(known: KnownModel, verdict: Verdict, media: Media) -> dict[str, Any]:
    """Return the picture that is explained, as the model saw it, and its heat-map with its check; None for the map if there is
    not enough memory for one."""
    clip, which = explaining.most_fake_face(known.judge.predictor, verdict, media)
    found = None
    with suppress_out_of_memory():
        found = explaining.explain(known.judge.maps, clip, 1, areas=False)
    if found is None:
        return {"picture": png(clip[len(clip) // 2]), "heat_map": None}
    method = found.maps.method
    shown = {"image": png(overlay(found.frames, found.heat, method)), "method": method, "note": found.note, "check": found.check,
             "result": found.result_for(which), "passed": found.passed}  # fmt: skip
    return {"picture": png(found.frames[0]), "heat_map": shown}


def overlay(frames: np.ndarray, heat: np.ndarray, method: str) -> np.ndarray:
    """Return the colours of a heat-map (1, height, width), the more opaque the stronger it is, as uint8 RGBA."""
    largest = float(np.abs(heat).max()) or 1.0
    shade = explanation.overlay(frames, heat, method, largest)[1][0]
    alpha = STRENGTH * np.clip(np.abs(heat[0]) / largest, 0, 1)[..., None]
    return np.round(255 * np.concatenate([shade, alpha], axis=-1)).astype(np.uint8)


def png(picture: np.ndarray) -> str:
    """Return a picture (height, width, 3 or 4) uint8 as a data URI."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(picture).save(target, "png")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def timeline_answer(line: Timeline, upload: Upload) -> dict[str, Any]:
    """Return a timeline as the answer has it."""
    times, probabilities = line.centres.tolist(), line.probabilities.tolist()
    peaks = [{"time": times[at], "probability": probabilities[at], "image": png(line.pictures[at])} for at in line.peaks]
    return {"times": times, "probabilities": probabilities, "scores": line.scores.tolist(),
            "threshold": line.threshold, "peaks": peaks, "note": without_paths(line.note, upload),
            "description": line.describe()}  # fmt: skip
