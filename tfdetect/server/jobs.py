"""Work that takes longer than a client waits for an answer: its queue, its progress, and its result for a while."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tfdetect.server.health import FAILED, Error

log = logging.getLogger("tfdetect.server")
router = APIRouter(tags=["jobs"])
EVENT_SECONDS = 0.2  # between two events at least
State = Literal["queued", "running", "done", "failed"]


class JobState(BaseModel):
    """How far a job is."""

    id: str
    state: State
    done: float = 0
    """Steps of `total`."""
    total: float | None = None
    stage: str = ""
    """What is being done, in words."""
    result: dict[str, Any] | None = None
    """What the request would have been answered with."""
    error: str | None = None
    """Why it failed, in a sentence."""


class Started(BaseModel):
    """The answer to a request that became a job."""

    job: str


class Job:
    """One piece of work. Its methods are for the thread of the event loop, but for `report`."""

    def __init__(self, who: str):
        self.now, self.who = JobState(id=secrets.token_urlsafe(16), state="queued"), who
        self.task: asyncio.Task[Any] | None = None
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

    def report(self, stage: str, done: float = 0, total: float | None = None) -> None:
        """Say how far the work is; from any thread. Raises asyncio.CancelledError in other threads once it is cancelled."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self.change(stage=stage, done=done, total=total)
        elif self.is_over:
            raise asyncio.CancelledError
        else:
            self._loop.call_soon_threadsafe(partial(self.change, stage=stage, done=done, total=total))

    def change(self, **new: Any) -> None:
        """Change the state, unless it is final, and wake those who follow it."""
        if self.is_over:
            return
        self.now = self.now.model_copy(update=new)
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether it is done, has failed or was cancelled."""
        return self.now.state in ("done", "failed")

    async def follow(self) -> AsyncIterator[JobState]:
        """Yield the state whenever it changes, a few times a second at most; the last one is that at the end."""
        while True:
            state, changed = self.now, self._changed
            yield state
            if state.state in ("done", "failed"):
                return
            await changed.wait()
            await asyncio.sleep(0 if self.is_over else EVENT_SECONDS)


Work = Callable[[Job], Awaitable[dict[str, Any]]]


@dataclass
class Jobs:
    """The jobs of a server: one runs at a time, as the network would be shared anyway; others wait, up to `most` with it."""

    most: int = 8
    results: int = 32
    keep_seconds: float = 600.0

    def __post_init__(self) -> None:
        self._jobs: dict[str, Job] = {}  # the oldest first
        self._turn, self._tasks = asyncio.Lock(), set[asyncio.Task[Any]]()

    def start(self, work: Work, who: str = "", cleanup: Callable[[], None] = lambda: None) -> Job:
        """Queue `work(job)`, whose result becomes that of the job; `cleanup` is called at its end, however it comes, also if it
        never begins. Raises HTTPException 503 if too many wait."""
        if len(self._tasks) >= self.most:
            cleanup()
            raise HTTPException(503, "Too many jobs are waiting: try again later.", {"Retry-After": "10"})
        job = Job(who)
        self._jobs[job.now.id] = job
        job.task = asyncio.create_task(self._run(job, work))
        self._tasks.add(job.task)
        job.task.add_done_callback(self._tasks.discard)
        job.task.add_done_callback(lambda task: cleanup())
        return job

    def find(self, name: str, who: str = "") -> Job:
        """Return a job of this client. Raises HTTPException 404."""
        job = self._jobs.get(name)
        if job is None or job.who != who:
            raise HTTPException(404, f"No such job; results are kept for {self.keep_seconds:g} s.")
        return job

    def forget(self, job: Job) -> None:
        """Drop a job and its result."""
        self._jobs.pop(job.now.id, None)

    async def cancel(self, job: Job) -> None:
        """Stop a job, and wait until it has stopped."""
        if job.task and not job.is_over:
            job.change(state="failed", error="It was cancelled.", stage="")
            job.task.cancel()
            await asyncio.wait([job.task])

    async def close(self) -> None:
        """Stop all jobs."""
        for job in list(self._jobs.values()):
            await self.cancel(job)

    async def _run(self, job: Job, work: Work) -> Any:
        """Do the work once it is its turn; return its result, or the exception that it raised."""
        try:
            async with self._turn:
                job.change(state="running")
                result = await work(job)
            job.change(state="done", result=result, stage="")
            return result
        except asyncio.CancelledError as error:
            return error
        except HTTPException as error:
            job.change(state="failed", error=str(error.detail), stage="")
            return error
        except Exception as error:
            log.exception("a job failed")
            job.change(state="failed", error=FAILED, stage="")
            return error
        finally:
            asyncio.get_running_loop().call_later(self.keep_seconds, self.forget, job)
            over = [each for each in self._jobs.values() if each.is_over]
            for each in over[: max(0, len(over) - self.results)]:
                self.forget(each)


def requested(request: Request, id: str) -> Job:
    """Return the job that a path names."""
    found: Job = request.app.state.jobs.find(id, getattr(request.state, "who", ""))
    return found


Requested = Annotated[Job, Depends(requested)]
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Error, "description": "No such job, or no longer."}}

AS_JSON = {"application/json": {"schema": Error.model_json_schema()}}  # in a route whose answers are no JSON otherwise
UNKNOWN_AS_JSON: dict[int | str, dict[str, Any]] = {404: {"content": AS_JSON, "description": "No such job, or no longer."}}


@router.get("/v1/jobs/{id}", responses=UNKNOWN)
async def show(job: Requested) -> JobState:
    """How far a job is and, at the end, its result."""
    return job.now


@router.get("/v1/jobs/{id}/events", response_class=EventSourceResponse, responses=UNKNOWN_AS_JSON)
async def events(job: Requested) -> AsyncIterator[ServerSentEvent]:
    """The same as server-sent events named `progress`; the last one is named `end`."""
    async for state in job.follow():
        yield ServerSentEvent(event="end" if state.state in ("done", "failed") else "progress", data=state)


@router.delete("/v1/jobs/{id}", responses=UNKNOWN)
async def cancel(request: Request, job: Requested) -> JobState:
    """Cancel a job."""
    await request.app.state.jobs.cancel(job)
    return job.now
