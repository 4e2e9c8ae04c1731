"""The client against a server that answers as it is told: what is sent, waited for and said."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
from scripted import serving

from tfdetect import answers, cli
from tfdetect import client as clients
from tfdetect.client import Client, ServerError
from tfdetect.errors import UserError
from tfdetect.server import page
from tfdetect.server.answers import ExplainAnswer, FindingAnswer, HeatMapAnswer, TimelineAnswer

VERDICT = {"probability": 0.75, "label": "fake", "score": 1.5, "frames": 1, "note": "", "error": None, "source": None,
           "source_probability": None, "text": None, "verdict": "fake", "familiarity": None, "unfamiliar": None,
           "unfamiliar_reason": None, "faces": None, "of_a_newer_server": 1}  # fmt: skip
PIXEL = "data:image/png;base64,iVBORw=="
MODEL = {"name": "cnn", "version": 2, "threshold": 0.5, "band": [0.4, 0.6], "not_for": ["on videos"], "caveats": ["Doubtful."]}
SERVER = {"version": "0.1.0", "models": [MODEL, MODEL | {"name": "lstm", "version": 1, "band": None}], "needs_token": False,
          "limits": {"bytes": 50_000, "files": 3, "seconds": None}, "keeps": None}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(clients, "POLLS", (0.0, 0.0))
    monkeypatch.delenv(clients.TOKEN, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def judge(asked, models=("cnn", "lstm")):
    """Answer /v1/score as the server does."""
    found = {"version": 1, "threshold": 0.5, "band": None, "seconds": 0.1, "verdict": VERDICT, "meaning": ["m"]}
    findings = [{"model": name, **found} for name in asked.fields or models]
    bad = [name for name, content in asked.files if content == b"bad"]
    if len(bad) == len(asked.files):
        return 415, {"error": f"{bad[0]} is neither an image nor a video."}, {}
    return 200, {"files": [{"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "kind": "image",
                            "error": "bad" if name in bad else None, "findings": [] if name in bad else findings}
                           for name, content in asked.files]}, {}  # fmt: skip


@pytest.fixture
def served():
    """Yield a function from path -> answer or function to (address, what was asked); the first matching path wins."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**answers):
            known = {"v1/score": judge, "v1/server": (200, SERVER, {}), **{key.replace("__", "/"): value for key, value in
                                                                           answers.items()}}  # fmt: skip

            def answer(asked):
                found = next((known[key] for key in sorted(known, key=len, reverse=True) if asked.path.startswith(f"/{key}")),
                             (404, {"error": "Not Found"}, {}))  # fmt: skip
                return found(asked) if callable(found) else found

            return stack.enter_context(serving(answer))

        yield start


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_files_are_scored_together_in_their_order(served, files):
    url, seen = served()
    with Client(url) as client:
        found = client.score(files, ["lstm", "cnn"])
        assert [model.name for model in client.models()] == ["cnn", "lstm"] and client.models()[0].not_for == ("on videos",)
    assert [(file.path, file.name, file.bytes, file.error) for file in found] == \
        [(str(path), path.name, 5, None) for path in files]  # fmt: skip
    assert found[0].sha256 == clients.sha256(files[0]) and [each.model for each in found[0].findings] == ["lstm", "cnn"]
    first = found[0].findings[0]
    assert (first.verdict.path, first.verdict.probability, first.meaning, first.band) == (str(files[0]), 0.75, ("m",), None)
    posts = [asked for asked in seen if asked.method == "POST"]
    assert [len(asked.files) for asked in posts] == [3, 2], "no more than the server takes"
    assert all(asked.fields == ["lstm", "cnn"] for asked in posts) and len(seen) == 3


@pytest.mark.parametrize("ours, theirs", [
    (answers.Model, page.ServerModel), (answers.Server, page.Server), (answers.Finding, FindingAnswer),
    (answers.Explanation, ExplainAnswer), (answers.HeatMap, HeatMapAnswer), (answers.Timeline, TimelineAnswer)])  # fmt: skip
def test_every_field_of_an_answer_is_one_that_the_server_sends(ours, theirs):
    assert {field.name for field in fields(ours)} <= set(theirs.model_fields)


def test_what_cannot_be_sent_or_judged_only_fails_itself(served, files, tmp_path):
    url, seen = served()
    (tmp_path / "large.png").write_bytes(bytes(49_000))
    (tmp_path / "bad.png").write_bytes(b"bad")
    odd = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    odd.write_bytes(b"odd")
    paths = [tmp_path / "large.png", files[0], tmp_path / "none.jpg", tmp_path, tmp_path / "bad.png", odd]
    with Client(url) as client:
        found = {file.path: file.error for file in client.score_each(paths)}
        assert found == {str(path): None for path in paths} | {
            str(paths[0]): "not sent: it has 49 kB, and the server takes 50 kB at most", str(paths[2]): "no such file",
            str(tmp_path): "not a file", str(paths[4]): "bad"}  # fmt: skip
        assert [file.error for file in client.score([paths[4]])] == ["bad.png is neither an image nor a video."]
    assert all(len(content) < 1000 for asked in seen for _, content in asked.files)
    assert "caf\ufffd.jpg" in [name for asked in seen for name, _ in asked.files]


def test_large_files_go_alone(served, tmp_path):
    url, seen = served()
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, size in zip(paths, (30_000, 5_000, 30_000), strict=True):
        path.write_bytes(bytes(size))
    with Client(url) as client:
        assert len(client.score(paths)) == 3
    assert [[len(content) for _, content in asked.files] for asked in seen if asked.files] == [[30_000, 5_000], [30_000]]


def test_a_job_is_followed_and_a_busy_server_is_asked_again(served, files):
    states = iter([{"state": "queued", "stage": ""}, {"state": "running", "stage": "Scoring"}, {"state": "done", "stage": ""}])
    started, shown = [], []

    def start(asked):
        started.append(asked)
        return (429, {"error": "too many"}, {"Retry-After": "0"}) if len(started) == 1 else (202, {"job": "abc"}, {})

    def look(asked):
        state = next(states)
        result = judge(started[0])[1] if state["state"] == "done" else None
        return 200, {"id": "abc", "done": 1, "total": 4, "error": None, "result": result, **state}, {}

    url, _ = served(v1__score=start, v1__jobs__abc=look)
    with Client(url, show=lambda *call: shown.append(call)) as client:
        [found] = client.score(files[0])
    assert found.findings[0].verdict.label == "fake"
    assert shown == [("the server is busy", 0, None), ("queued", 1, 4), ("Scoring", 1, 4)]
    assert [content for asked in started for _, content in asked.files] == [b"0.jpg", b"0.jpg"], "sent again in full"


def test_an_interrupted_job_is_cancelled(served, files, monkeypatch):
    running = {"id": "x", "state": "running", "stage": "", "done": 0, "total": None, "result": None, "error": None}
    url, seen = served(v1__score=(202, {"job": "x"}, {}), v1__jobs__x=(200, running, {}))

    def interrupt(_):
        raise KeyboardInterrupt

    with Client(url) as client:
        monkeypatch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.score(files[0])
    assert (seen[-1].method, seen[-1].path) == ("DELETE", "/v1/jobs/x")


def test_explanations_and_case_reports(served, files):
    heat_map = {"image": PIXEL, "method": "occlusion", "note": "", "check": {}, "result": "r", "passed": True}
    timeline = {"times": [0.5], "probabilities": [0.1], "scores": [1], "threshold": 0.5,
                "peaks": [{"time": 0.5, "probability": 0.1, "image": PIXEL}]}  # fmt: skip
    answer = {"name": "0.jpg", "sha256": "0" * 64, "kind": "video", "model": "cnn", "version": 1, "verdict": VERDICT,
              "picture": PIXEL, "heat_map": heat_map, "faces": None, "face_note": None, "timeline": timeline}  # fmt: skip

    def case(asked):
        page = "format=json" not in asked.path
        return (200, "<html>", {"Content-Type": "text/html; charset=utf-8"}) if page else (200, {"files": []}, {})

    url, seen = served(v1__explain=(200, answer, {}), v1__case=case)
    with Client(url) as client:
        found = client.explain(files[0], "lstm")
        assert found.picture == found.heat_map.image == found.timeline.peaks[0].image == b"\x89PNG" and found.heat_map.passed
        assert found.verdict.score == 1.5 and found.timeline.times == (0.5,) and seen[-1].fields == ["lstm"]
        assert client.case(files[0]) == "<html>" and client.case_data(files[0]) == {"files": []}


def test_arrays_and_images_are_predicted_with_the_contract_of_tensorflow_serving(served):
    url, seen = served(v1__models=(200, {"predictions": [{"score": 1.0}]}, {}))
    with Client(url) as client:
        assert client.predict("cnn", [b"\xff\xd8"], "serve_bytes", version=3) == [{"score": 1.0}]
        client.predict("cnn", [{"clip": np.zeros((1, 2), np.uint8)}])
    assert [asked.path for asked in seen] == ["/v1/models/cnn/versions/3:predict", "/v1/models/cnn:predict"]
    assert [asked.json["instances"] for asked in seen] == [[{"b64": "/9g="}], [{"clip": [[0, 0]]}]]
    assert [asked.json["signature_name"] for asked in seen] == ["serve_bytes", "serving_default"]


@pytest.mark.parametrize(
    "url, answers, message",
    [
        ("http://127.0.0.1:1", {}, "cannot be reached .* is the server running, and the address right"),
        ("http://[::1", {}, "is not the address of a server"),
        ("ftp://localhost", {}, "is not the address of a server"),
        (None, {"v1__server": (200, "<html>", {})}, "not as a server of tfdetect"),
        (None, {"v1__server": (200, {"models": 3}, {})}, "not as a server of tfdetect"),
        (None, {"v1__server": (404, "<html>", {})}, "answers 404 Not Found: is the address right"),
        (None, {"v1__score": (401, {"error": "x"}, {})}, "needs a token: give one with --token"),
        (None, {"v1__score": (500, {"error": "The server failed to answer."}, {})}, "The server failed to answer"),
        (None, {"v1__score": (503, {"error": "Too many jobs."}, {})}, "Too many jobs"),
    ],
)
def test_what_goes_wrong_is_one_sentence(served, files, monkeypatch, capsys, url, answers, message):
    monkeypatch.setattr(clients, "PATIENCE", 0.0)
    url = url or served(**answers)[0]
    with pytest.raises(UserError, match=message), Client(url) as client:
        client.score(files)
    assert cli.main(["score", url, *map(str, files)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_server_that_does_not_answer_in_time(served, files, monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", clients.httpx.Timeout(0.05))
    url, _ = served(v1__score=lambda asked: time.sleep(0.3) or judge(asked))
    with pytest.raises(UserError, match="did not answer in time"), Client(url) as client:
        client.score(files)


def test_the_token_is_sent_and_an_unknown_model_is_not_asked_for(served, files, monkeypatch):
    url, seen = served(v1__score=(401, {"error": "x"}, {}))
    monkeypatch.setenv(clients.TOKEN, "from-the-environment")
    with pytest.raises(ServerError, match="does not accept this token"), Client(url) as client:
        client.score(files)
    assert {asked.headers["Authorization"] for asked in seen} == {"Bearer from-the-environment"}
    with Client(url, "given") as client:
        with pytest.raises(UserError, match="has no model 'cn'. Perhaps you meant cnn. Models: cnn, lstm."):
            client.score(files, ["cn"])
        assert seen[-1].headers["Authorization"] == "Bearer given"
    with pytest.raises(UserError, match="not ASCII"):
        Client(url, "tökèn")
    url, _ = served(v1__server=(200, SERVER | {"loading": ["late"]}, {}))
    with Client(url) as client:
        assert client.score(files, ["late"])[0].findings[0].model == "late", "the server says when it is busy loading it"


def test_neither_tensorflow_nor_numpy_is_imported():
    code = "import sys, tfdetect.client; print(sorted({'keras', 'tensorflow', 'numpy', 'pandas', 'tyro'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def run(capsys, *argv):
    """Run `score` and return its exit code, and what it printed."""
    try:
        code = cli.main(["score", *map(str, argv)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_the_command_prints_what_predict_prints(served, files, tmp_path, capsys):
    url, _ = served()
    code, out, noted = run(capsys, url, tmp_path, "--models", "cnn")
    assert noted == "cnn: Doubtful.\n"
    assert code == 0 and out.splitlines()[:2] == ["verdict      probability    score  frames  file",
                                                  f"fake               0.750    1.500       1  {files[0]}"]  # fmt: skip
    assert "5 files: 5 scored, 0 failed, 0 left out. cnn, version 1: called fake from a probability of 0.500." in out
    code, out, _ = run(capsys, url, files[0], tmp_path / "none.jpg")
    assert code == 1 and f"{files[0]}  by lstm" in out and "no such file" in out and "2 files: 1 scored, 1 failed" in out
    code, out, _ = run(capsys, url, files[0], tmp_path / "none.jpg", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["path"], row["model"], row["probability"]) for row in rows] == \
        [(str(files[0]), "cnn", 0.75), (str(files[0]), "lstm", 0.75), (str(tmp_path / "none.jpg"), None, None)]  # fmt: skip
    assert code == 1 and rows[0]["sha256"] == clients.sha256(files[0]) and rows[2]["error"] == "no such file"


def test_the_command_looks_up_and_verifies(served, files, capsys):
    row = {"id": 1, "time": "2026-01-01T00:00:00.000000Z", "sha256": clients.sha256(files[0]), "bytes": 5, "model": "cnn",
           "version": 1, "model_hash": "f" * 64, "verdict": "fake", "probability": 0.75, "seconds": 0.1, "request": "score",
           "who": "me"}  # fmt: skip
    checks = iter([None, 7])
    known, unknown = (200, {"rows": [row]}, {}), (200, {"rows": []}, {})
    url, seen = served(**{f"v1__log__{row['sha256']}": known, "v1__log__0": unknown, "v1__log__check": lambda _: (
        200, {"rows": 9, "first_changed": next(checks), "chain": "abc"}, {})})  # fmt: skip
    code, out, _ = run(capsys, url, "--lookup", files[0])
    assert code == 0 and "2026-01-01T00:00:00.000000Z  fake     0.750" in out and "1 row about 1 file; nothing about 0." in out
    code, out, _ = run(capsys, url, "--lookup", "0" * 64, row["sha256"])
    assert code == 1 and f"nothing about 1: {'0' * 64}" in out and not any(asked.files for asked in seen)
    code, out, _ = run(capsys, url, "--lookup", files[0], "--json")
    assert code == 0 and json.loads(out) == {"path": str(files[0]), **row}
    assert run(capsys, url, "--verify")[:2] == (0, "The log is as it was written: 9 rows. Keep this hash of the last row: abc\n")
    assert run(capsys, url, "--verify")[:2] == (1, "The log was changed: row 7 does not follow from those before it.\n")
    assert run(capsys, url, files[0])[0] == 0
    assert run(capsys, url)[0] == 2 and "No files given" in run(capsys, url)[2]
