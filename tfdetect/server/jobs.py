"""Work that takes longer than a client waits for an answer: its queue, its progress, and its result for a while."""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tfdetect.data import stopping
from tfdetect.server.health import FAILED, Error

log = logging.getLogger("tfdetect.server")
router = APIRouter(tags=["jobs"])
EVENT_SECONDS = 0.2  # between two events at least
DECODING, SCORING, FOLLOWING = "Decoding frames", "Scoring", "Following the video"  # stages
State = Literal["queued", "running", "done", "failed"]


class JobState(BaseModel):
    """How far a job is."""

    id: str
    state: State
    before: int = 0
    """Jobs that run or wait before it, while it is queued."""
    done: float = 0
    """Steps of `total`, or frames of videos while these are decoded."""
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


Frames = Callable[[], tuple[int, int] | None]  # decoded ones, of how many; None while none are


class Job:
    """One piece of work. Its methods are for the thread of the event loop, but for `report`."""

    def __init__(self, who: str, scores: bool = False):
        self.now, self.who, self.scores = JobState(id=secrets.token_urlsafe(16), state="queued"), who, scores
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

    async def count(self, frames: Frames) -> None:
        """Show how many frames are decoded, whenever that changes."""
        last = None
        while True:
            await asyncio.sleep(EVENT_SECONDS)
            if (found := frames()) and found != last:
                last = found
                stage = FOLLOWING if self.now.stage == FOLLOWING else DECODING  # while scores or reports are made of others
                self.change(done=found[0], total=found[1], stage=stage)

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
    """The jobs of a server, `most` at a time. Of those that only score, `scoring` run at a time, as they leave a decoder to
    others; heat-maps and case reports take turns, as each takes all cores. The others wait."""

    most: int = 8
    results: int = 32
    keep_seconds: float = 600.0
    scoring: int = 1

    def __post_init__(self) -> None:
        self._jobs: dict[str, Job] = {}  # the oldest first
        self._turns = {True: asyncio.Semaphore(self.scoring), False: asyncio.Semaphore(1)}
        self._tasks = set[asyncio.Task[Any]]()

    def start(self, work: Work, who: str = "", cleanup: Callable[[], None] = lambda: None, frames: Frames = lambda: None,
              scores: bool = False) -> Job:  # fmt: skip
        """Queue `work(job)`, whose result becomes that of the job; `cleanup` is called at its end, however it comes, also if it
        never begins. `frames` is asked how many frames of its videos are decoded; with `scores` the work is nothing but scoring.
        Raises HTTPException 503 if too many wait."""
        if len(self._tasks) >= self.most:
            cleanup()
            raise HTTPException(503, "Too many jobs are waiting: try again later.", {"Retry-After": "10"})
        job = Job(who, scores)
        self._jobs[job.now.id] = job
        self._count_queue()
        job.task = asyncio.create_task(self._run(job, work, frames))
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

    def _count_queue(self) -> None:
        """Tell the jobs that wait how many are before them."""
        left = [job for job in self._jobs.values() if not job.is_over]
        for number, job in enumerate(left):
            if job.now.state == "queued":
                job.change(before=sum(other.scores == job.scores for other in left[:number]))

    async def _run(self, job: Job, work: Work, frames: Frames) -> Any:
        """Do the work once it is its turn; return its result, or the exception that it raised."""
        try:
            async with self._turns[job.scores]:
                job.change(state="running", before=0)
                counting, stop = asyncio.create_task(job.count(frames)), threading.Event()
                try:
                    with stopping.by(stop):
                        result = await work(job)
                finally:
                    counting.cancel()
                    stop.set()
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
            self._count_queue()
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
