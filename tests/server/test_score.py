"""Uploads are decoded by limited processes and judged as files on disk are; a bad one only fails itself."""

import asyncio
import base64
import io
import json
import os
import tempfile
import time
from contextlib import suppress
from types import SimpleNamespace

import av
import crashing
import numpy as np
import psutil
import pytest
from PIL import Image
from served import picture, wait_for
from starlette.testclient import TestClient

from tfdetect.data import worker_pool, worker_processes
from tfdetect.server import score
from tfdetect.server.app import create_app
from tfdetect.server.limits import ServeLimits
from tfdetect.server.settings import ServeSettings
from tfdetect.serving.verdict import Verdict


@pytest.fixture(scope="module")
def ask(app, tmp_path_factory):
    """A client of a server with one decoding process."""
    limits = ServeLimits(workers=1, files=3, pixels=100_000, inline_seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("uploads")))
        served = create_app(app.state.models, ServeSettings(limits=limits))
        with TestClient(served, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            yield client
    assert not worker_processes.is_confined()


@pytest.fixture(autouse=True)
def nothing_stays(ask):
    yield
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("tfdetect-")], "uploads are gone"


def movie(frames=12, rate=25, size=(64, 48)):
    """Return an MP4 of a moving pattern."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 20 + 5 * number % 200, np.uint8)
            pixels[:, number % size[0]] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def png_size(uri):
    assert uri.startswith("data:image/png;base64,")
    return (image := Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).mode, image.size


def send(ask, path, *contents, **fields):
    files = [("file", (f"{number}.bin", content, "")) for number, content in enumerate(contents)]
    return ask.post(path, files=files, data=fields)


def test_verdicts_are_those_of_the_files_on_disk(ask, tmp_path):
    contents = {"a.png": picture(1), "b.jpg": picture(2, kind="jpeg"), "c.mp4": movie()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    served = ask.app.state.models.get("tiny")
    expected = [served.predictor.to_verdict("", served.predictor.spec.read(tmp_path / name)) for name in contents]
    answer = send(ask, "/v1/score", *contents.values())
    assert answer.status_code == 200
    for found, verdict, kind in zip(answer.json()["files"], expected, ("image", "image", "video"), strict=True):
        [finding] = found["findings"]
        assert (found["kind"], found["error"], finding["model"], finding["version"]) == (kind, None, "tiny", 1)
        assert finding["verdict"]["score"] == pytest.approx(verdict.score, abs=1e-6)
        assert finding["verdict"]["verdict"] == verdict.verdict and finding["threshold"] == 0.5 and finding["seconds"] > 0
        assert finding["meaning"] == finding["caveats"] == []
        assert set(finding["verdict"]) == set(Verdict.__dataclass_fields__) - {"path"}


@pytest.fixture
def no_reencodings(monkeypatch):
    """Leave re-encodings out of case reports, for which a decoding process would load TensorFlow."""
    monkeypatch.setattr("tfdetect.workflow.case.reencode", lambda *_: ())


def test_all_verdicts_are_logged(ask, monkeypatch, no_reencodings):
    rows = []
    monkeypatch.setitem(ask.app.state._state, "record", SimpleNamespace(add=rows.extend))
    send(ask, "/v1/score", picture(1), b"no image at all")
    send(ask, "/v1/explain", picture(1))
    send(ask, "/v1/case", picture(1))
    assert [row.verdict for row in rows] == [(first := rows[0].verdict), "failed", first, first] and first != "failed"
    assert len({row.sha256 for row in rows}) == 2 and rows[0].bytes == len(picture(1)) and {row.model for row in rows} == {"tiny"}


def test_a_bad_file_only_fails_itself(ask):
    found = send(ask, "/v1/score", picture()[:500], picture(3), b"no image at all").json()["files"]
    assert [each["error"] is None for each in found] == [False, True, False] and len(found[1]["findings"]) == 1
    assert "truncated PNG" in found[0]["error"] and found[2]["kind"] is None and not found[2]["findings"]
    huge = send(ask, "/v1/score", picture(size=(400, 400))).json()["files"][0]["error"]
    assert huge == "160000 pixels (400 x 400) announced, at most 100000 are read (--limits.pixels)"
    assert send(ask, "/v1/score", picture(), model="none").json() == {"error": "Servable not found for request: Latest(none)"}
    assert send(ask, "/v1/score", *[picture()] * 4).status_code == 400 and send(ask, "/v1/score", b"text").status_code == 415


def test_a_heat_map_covers_the_picture_and_says_whether_it_holds(ask):
    found = send(ask, "/v1/explain", picture(1)).json()
    assert png_size(found["picture"]) == ("RGB", (32, 32)) and png_size(found["heat_map"]["image"]) == ("RGBA", (32, 32))
    check = found["heat_map"]["check"]
    assert found["heat_map"]["passed"] == (check["hottest_tenth"] > check["elsewhere"])
    assert "Hiding the hottest tenth" in found["heat_map"]["result"] and found["timeline"] is None and found["face_note"] is None
    assert found["name"] == "0.bin" and found["model"] == "tiny"
    refused = send(ask, "/v1/explain", picture()[:500])
    assert refused.json() == {"error": "0.bin: truncated PNG: the file ends within its pixel data"} and refused.status_code == 400


def test_a_video_has_a_timeline_that_a_decoding_process_reads(ask, monkeypatch):
    monkeypatch.setattr("tfdetect.workflow.timeline.for_each_frame", None)  # in this process
    line = send(ask, "/v1/explain", movie()).json()["timeline"]
    assert len(line["times"]) == len(line["scores"]) == len(line["probabilities"]) == 12 and line["threshold"] == 0.5
    assert line["times"][-1] == pytest.approx(11 / 25) and png_size(line["peaks"][0]["image"]) == ("RGB", (64, 48))
    assert line["peaks"][0]["probability"] == max(line["probabilities"])


def test_a_case_report_names_no_path_of_the_server(ask, tiny_run, no_reencodings):
    page = send(ask, "/v1/case", picture(1))
    assert page.headers["Content-Type"].startswith("text/html") and "sandbox" in page.headers["Content-Security-Policy"]
    plain = send(ask, "/v1/case?format=json", picture(1))
    assert plain.json()["files"][0]["findings"][0]["heat_map"] and plain.json()["files"][0]["path"] == "0.bin"
    for text in (page.text, plain.text):
        assert "0.bin" in text and str(tiny_run.parent) not in text and "/tmp" not in text and "tfdetect-" not in text


def test_a_long_video_is_a_job(ask, monkeypatch):
    content = movie(50)
    monkeypatch.setattr(score, "Reader", crashing.Counting)
    started = send(ask, "/v1/score", content)
    assert started.status_code == 202
    with ask.stream("GET", f"/v1/jobs/{started.json()['job']}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    states = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert ("Decoding frames", 7, 9) in [(state["stage"], state["done"], state["total"]) for state in states]
    last = states[-1]
    assert events[-1] == "end" and set(events[:-1]) <= {"progress"} and last["state"] == "done"
    assert last == ask.get(f"/v1/jobs/{last['id']}").json()
    assert last["result"]["files"][0]["findings"][0]["verdict"]["frames"] == 4
    assert ask.get("/v1/jobs/unknown").status_code == ask.get("/v1/jobs/unknown/events").status_code == 404


def test_a_job_can_be_cancelled(ask):
    first, second = (send(ask, "/v1/explain?wait=false", movie()).json()["job"] for _ in range(2))
    for answer in (ask.delete(f"/v1/jobs/{second}"), ask.get(f"/v1/jobs/{second}")):
        assert answer.json()["error"] == "It was cancelled."
    assert ask.delete(f"/v1/jobs/{first}").status_code == 200


def test_a_cancelled_job_ends_what_its_threads_wait_for(ask, monkeypatch, tmp_path):
    process = tmp_path / "process"

    def follow(*_):
        assert not list(worker_pool.map_unordered([str(process)], crashing.Slow(), 1, 60))
        (tmp_path / "ended").touch()

    monkeypatch.setattr("tfdetect.server.explain.case.follow", follow)
    job = send(ask, "/v1/explain?wait=false", movie()).json()["job"]
    wait_for(process.exists)
    ask.delete(f"/v1/jobs/{job}")
    wait_for((tmp_path / "ended").exists)
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(process.read_text())).status() == psutil.STATUS_ZOMBIE


def decoders():
    """Return the decoding processes of this process."""
    found = [each for each in psutil.Process().children() if "resource_tracker" not in " ".join(each.cmdline())]
    return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]


def test_decoding_processes_are_limited_and_live_long(ask):
    send(ask, "/v1/score", picture(1))
    before = {each.pid for each in decoders()}
    send(ask, "/v1/score", picture(2))
    assert {each.pid for each in decoders()} == before
    for each in decoders():
        limits = ask.app.state.settings.limits
        assert each.rlimit(psutil.RLIMIT_DATA)[1] == limits.memory and each.rlimit(psutil.RLIMIT_CORE)[1] == 0
        assert each.rlimit(psutil.RLIMIT_FSIZE)[1] == 10 * limits.bytes and each.rlimit(psutil.RLIMIT_NOFILE)[1] == 256


@pytest.mark.parametrize("work, reason", [(crashing.Dying, "the decoder crashed"),
                                          (crashing.Hungry, "not enough memory to decode it")])  # fmt: skip
def test_a_file_that_ends_its_decoder_costs_one_answer(ask, monkeypatch, work, reason):
    with monkeypatch.context() as patch:
        patch.setattr(score, "Reader", work)
        assert send(ask, "/v1/score", picture(1)).json()["files"][0]["error"] == reason
        assert send(ask, "/v1/explain", picture(1)).json() == {"error": f"0.bin: {reason}"}
    assert send(ask, "/v1/score", picture(1)).json()["files"][0]["error"] is None


def test_a_decoder_that_is_killed_while_it_waits_costs_none(ask):
    for each in decoders():
        each.kill()
    time.sleep(0.3)
    assert send(ask, "/v1/score", picture(1)).json()["files"][0]["error"] is None


def test_a_file_that_takes_too_long_ends_its_decoder(ask, monkeypatch):
    monkeypatch.setattr(ask.app.state.decoders, "limits", ServeLimits(decode_seconds=0.5))
    monkeypatch.setattr(score, "Reader", crashing.Slow)
    error = send(ask, "/v1/score", picture(1)).json()["files"][0]["error"]
    assert error.startswith("decoding took longer than 0.5 s") and "--data" not in error


def test_work_for_a_client_that_leaves_is_cancelled(ask, tmp_path):
    """Its decoder ends, since it may be busy with anything."""
    path = tmp_path / "process"

    async def leave():
        work = asyncio.ensure_future(ask.app.state.decoders.run(crashing.Slow(), str(path)))
        while not (path.exists() and path.read_text()):
            await asyncio.sleep(0.05)
        busy = psutil.Process(int(path.read_text()))
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        with suppress(psutil.NoSuchProcess):
            while busy.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(leave(), 60))
