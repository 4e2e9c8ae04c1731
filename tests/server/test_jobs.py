"""Jobs wait for their turn, say how far they are, can be cancelled, and are forgotten."""

import asyncio
import time

import pytest
from starlette.exceptions import HTTPException

from tfdetect.server.jobs import DECODING, FOLLOWING, SCORING, Job, Jobs


def run(test):
    asyncio.run(asyncio.wait_for(test(), 10))


async def work(job):
    for done in range(3):
        job.report("Working", done, 3)
        await asyncio.sleep(0)
    return {"answer": 42}


async def endless(job):
    await asyncio.sleep(1000)


def test_a_job_reports_and_ends_with_its_result():
    async def test():
        jobs, cleaned = Jobs(), []
        job = jobs.start(work, "anna", lambda: cleaned.append(1))
        states = [state async for state in job.follow()]
        assert states[0].state == "queued" and states[-1].state == "done" and states[-1].result == {"answer": 42}
        assert jobs.find(job.now.id, "anna") is job and len(job.now.id) > 20
        await asyncio.sleep(0)
        assert cleaned == [1]
        for name, who in (("x", "anna"), (job.now.id, "bob"), (job.now.id, "")):
            with pytest.raises(HTTPException, match="404"):
                jobs.find(name, who)

    run(test)


def test_one_runs_at_a_time_and_few_wait():
    async def test():
        jobs, cleaned = Jobs(most=2), []
        first, second = jobs.start(endless), jobs.start(work, cleanup=lambda: cleaned.append("second"))
        with pytest.raises(HTTPException, match="503") as refused:
            jobs.start(work, cleanup=lambda: cleaned.append("third"))
        assert refused.value.headers["Retry-After"] and cleaned == ["third"]
        await asyncio.sleep(0.01)
        assert (first.now.state, second.now.state) == ("running", "queued")
        await jobs.cancel(first)
        assert first.now.state == "failed" and first.now.error == "It was cancelled."
        assert [state async for state in second.follow()][-1].state == "done"

    run(test)


def test_scores_need_not_wait_for_heat_maps_and_the_others_know_how_many_are_before_them():
    async def test():
        jobs = Jobs(scoring=2)
        started = [jobs.start(endless, scores=scores) for scores in (False, True, True, True, False, False)]
        await asyncio.sleep(0.01)
        assert [job.now.state for job in started] == ["running", "running", "running", "queued", "queued", "queued"]
        assert [job.now.before for job in started] == [0, 0, 0, 2, 1, 2]
        await jobs.cancel(started[0])
        await asyncio.sleep(0.01)
        assert [(job.now.state, job.now.before) for job in started[3:]] == [("queued", 2), ("running", 0), ("queued", 1)]
        await jobs.close()

    run(test)


def test_decoded_frames_show_while_there_are_any(monkeypatch):
    change, told = Job.change, []
    monkeypatch.setattr("tfdetect.server.jobs.EVENT_SECONDS", 0.001)
    monkeypatch.setattr(Job, "change", lambda job, **new: told.append((*new.values(),)) or change(job, **new))

    async def test():
        counts, asked = iter([None, (100, 900), (100, 900), (900, 900), None, (20, 80)]), []

        async def decode(job):
            for stage, enough in ((DECODING, 4), (SCORING, 6), (FOLLOWING, 7)):
                job.report(stage)
                while len(asked) < enough:
                    await asyncio.sleep(0.0001)
            return {}

        await Jobs().start(decode, frames=lambda: asked.append(1) or next(counts, (30, 80))).task

    run(test)
    assert told[2:-1] == [(DECODING, 0, None), (100, 900, DECODING), (900, 900, DECODING), (SCORING, 0, None),
                          (20, 80, DECODING), (FOLLOWING, 0, None), (30, 80, FOLLOWING)]  # fmt: skip


def test_a_job_that_never_began_is_cleaned_up():
    async def test():
        jobs, cleaned = Jobs(), []
        jobs.start(endless, cleanup=lambda: cleaned.append(1))
        waiting = jobs.start(endless, cleanup=lambda: cleaned.append(2))
        await jobs.cancel(waiting)
        await asyncio.sleep(0)
        assert cleaned == [2]
        await jobs.close()
        await asyncio.sleep(0)
        assert cleaned == [2, 1]

    run(test)


def test_failures_are_told_in_a_sentence_without_details(caplog):
    async def test():
        jobs = Jobs()

        async def refuse(job):
            raise HTTPException(400, "a.png: truncated")

        async def fail(job):
            raise RuntimeError("/secret/path")

        refused, failed = jobs.start(refuse), jobs.start(fail)
        results = await asyncio.gather(refused.task, failed.task)
        assert list(map(type, results)) == [HTTPException, RuntimeError]
        assert refused.now.error == "a.png: truncated" and "secret" not in failed.now.error and "secret" in caplog.text

    run(test)


def test_results_are_bounded_and_forgotten():
    async def test():
        jobs = Jobs(results=2, keep_seconds=0.1)
        done = []
        for _ in range(4):
            done.append(jobs.start(work))
            await done[-1].task
        kept = [job.now.id in jobs._jobs for job in done]
        assert kept == [False, False, True, True]
        await asyncio.sleep(0.2)
        assert not jobs._jobs

    run(test)


def test_threads_report_and_notice_that_they_were_cancelled():
    async def test():
        jobs, ended = Jobs(), []

        def count(job):
            try:
                for number in range(10_000):
                    job.report("Counting", number, None)
                    time.sleep(0.001)
            except asyncio.CancelledError:
                ended.append(number)
                raise

        async def in_thread(job):
            await asyncio.to_thread(count, job)

        job = jobs.start(in_thread)
        async for state in job.follow():
            if state.done > 5:
                break
        await jobs.cancel(job)
        await asyncio.sleep(0.1)
        assert ended and job.now.stage == ""

    run(test)
