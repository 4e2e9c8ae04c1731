"""POST /v1/score: verdicts of several models on several images and videos."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tfdetect.data.media.frames import Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.limits import Limits
from tfdetect.server import uploads
from tfdetect.server.answers import AS_JOB, REFUSALS, ScoreAnswer, form
from tfdetect.server.decoding import Decoders, Duration, Reader
from tfdetect.server.jobs import DECODING, SCORING, Job, Jobs
from tfdetect.server.judges import Judges, KnownModel, verdict_answer
from tfdetect.server.log_rows import rows_of
from tfdetect.server.models import Models, ServedModel
from tfdetect.server.uploads import Form, Upload
from tfdetect.serving.predictor import Verdict

LOOK_SECONDS = 0.5  # between two looks whether the client is still there
T = TypeVar("T")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start what the routes of this package need, and end it."""
    limits = app.state.settings.limits
    app.state.judges, app.state.decoders = Judges(limits), Decoders(limits)
    app.state.jobs = Jobs(limits.jobs, limits.results, limits.keep_seconds, max(1, app.state.decoders.count - 1))
    app.state.decoders.start()
    yield
    await app.state.jobs.close()
    app.state.decoders.close()


router = APIRouter(tags=["verdicts"], lifespan=lifespan)


@router.post("/v1/score", responses={**AS_JOB, **REFUSALS, 200: {"model": ScoreAnswer}}, openapi_extra=form(None))
async def score(request: Request, wait: bool = True) -> JSONResponse:
    """Judge images and videos; a bad file only fails itself. A long video, or `wait=false`, becomes a job."""
    received, models, inline = await receive(request, wait)
    work = partial(score_form, request.app.state, received, request.state.who, models)
    if not inline:
        return as_job(request, lambda job: work(job.report), received)
    try:
        return JSONResponse(await unless_gone(request, work(lambda *_: None)))
    finally:
        received.close()


async def receive(request: Request, wait: bool, files: int | None = None) -> tuple[Form, list[str], bool]:
    """Return the form of a request, with at most `files` files, the names of the models that it asks for, and whether the client
    waits for the answer. Raises what `uploads.receive` and `choose` raise; the files are deleted then."""
    state = request.app.state
    received = await uploads.receive(request, state.settings.limits, files)
    try:
        return received, choose(state.models, received.models), wait and not await is_long(state, received)
    except BaseException:
        received.close()
        raise


def choose(models: Models, names: Sequence[str]) -> list[str]:
    """Return the names of the models that are asked for, by default of all. Raises UnknownModel, and HTTPException 503 while one
    of them is being loaded."""
    found = list(names) or models.names()
    if set(found) & set(models.loading()):
        raise HTTPException(503, "Models are being loaded.", {"Retry-After": "5"})
    for name in found:
        models.get(name)
    return found


async def is_long(state: Any, received: Form) -> bool:
    """Return whether a form has a video that takes longer than a client should wait for an answer."""
    limits = state.settings.limits
    probe = Duration(limits.of_files(Limits()))
    videos = [each for each in received.files if each.kind == "video"]
    seconds = await asyncio.gather(*(state.decoders.run(probe, str(each.path)) for each in videos))
    return any(found > limits.inline_seconds for found in seconds if not isinstance(found, WorkerFailure))


def as_job(request: Request, work: Callable[[Job], Coroutine[Any, Any, dict[str, Any]]], received: Form) -> JSONResponse:
    """Start work as a job, which ends with deleting the files, and say how it is called."""
    job = request.app.state.jobs.start(work, request.state.who, received.close, received.frames, scores=True)
    return JSONResponse({"job": job.now.id}, 202)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return the result of some work. If the client leaves meanwhile, it is cancelled; raises ClientDisconnect."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def score_form(state: Any, received: Form, who: str, names: Sequence[str],
                     report: Callable[..., None]) -> dict[str, Any]:  # fmt: skip
    """Return the answer: each file with what each model finds about it."""
    served = [state.models.get(name) for name in names]
    total, done = len(received.files) * len(served), 0
    report(DECODING)

    def step() -> None:
        nonlocal done
        done += 1
        report(SCORING, done, total)

    found = await asyncio.gather(*(score_file(state, each, served, step) for each in received.files))
    record(state, found, served, "score", who)
    return {"files": found}


def record(state: Any, files: Iterable[Mapping[str, Any]], models: Sequence[ServedModel], request: str, who: str) -> None:
    """Keep the verdicts on files, as the answer has them, where there is a log."""
    if state.record:
        state.record.add(rows_of(files, models, request, who))


async def score_file(state: Any, upload: Upload, models: Sequence[ServedModel], step: Callable[[], None]) -> dict[str, Any]:
    """Return a file with what each model finds about it; with an error if it cannot be read, or no model can judge it."""
    facts = {"name": upload.name, "sha256": upload.sha256, "bytes": upload.bytes, "kind": upload.kind}
    if upload.kind is None:
        for _ in models:
            step()
        return {**facts, "error": uploads.without_paths(upload.error or "", upload), "findings": []}
    start, decoded, findings = time.monotonic(), list[tuple[ClipSpec, Media | WorkerFailure]](), []
    for served in models:
        known = await asyncio.to_thread(state.judges.of, served)
        media = await decode(state, known, upload, decoded)
        verdict = await judge(state, known, upload, media)
        sentences = await asyncio.to_thread(known.sentences, verdict, upload.sha256)
        findings.append(finding(known, verdict, upload, sentences, time.monotonic() - start))
        step()
    errors = list(dict.fromkeys(each["verdict"]["error"] for each in findings))
    failed = None not in errors
    return {**facts, "error": "; ".join(errors) if failed else None, "findings": [] if failed else findings}


async def decode(state: Any, known: KnownModel, upload: Upload,
                 decoded: "list[tuple[ClipSpec, Media | WorkerFailure]]",
                 in_turn: bool = False) -> Media | WorkerFailure:  # fmt: skip
    """Return the clip of a file that a model sees, once for all models that see the same; or why there is none. `in_turn` is that
    of `Decoders.run`."""
    spec = known.judge.predictor.spec
    for other, media in decoded:
        if other == spec:
            return media
    decoded.append((spec, await state.decoders.run(Reader(spec), str(upload.path), in_turn)))
    return decoded[-1][1]


async def judge(state: Any, known: KnownModel, upload: Upload, media: Media | WorkerFailure) -> Verdict:
    """Return the verdict of a model on a decoded file."""
    [verdict] = await state.models.run(known.judge.predictor.to_verdicts, [upload.name], [media])
    found: Verdict = verdict
    return found


def finding(known: KnownModel, verdict: Verdict, upload: Upload, sentences: Mapping[str, Sequence[str]],
            seconds: float) -> dict[str, Any]:  # fmt: skip
    """Return what a model found about a file, as the answer has it."""
    calibration = known.judge.predictor.calibration
    return {"model": known.served.name, "version": known.served.version, "threshold": calibration.threshold,
            "band": calibration.inconclusive, "seconds": seconds, "verdict": verdict_answer(verdict, upload),
            **{name: [uploads.without_paths(text, upload) for text in texts] for name, texts in sentences.items()}}  # fmt: skip
