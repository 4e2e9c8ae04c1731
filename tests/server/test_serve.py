"""The command `serve` as a process on loopback: hot reload and stop under load, in one process; and its mistakes."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import SECONDS, add_version, picture, wait_for, write_half_plus_run

from tfdetect import cli
from tfdetect.errors import UserError
from tfdetect.server.models import Models
from tfdetect.server.settings import BatchSettings, ServeSettings
from tfdetect.verbs import serve

SCRIPT = Path(__file__).parents[2] / "scripts" / "serve.py"


def post(url, body):
    with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=SECONDS) as answer:
        return json.load(answer)


@pytest.fixture
def run(tmp_path):
    """A run whose version 1 returns x / 2 + 1."""
    return write_half_plus_run(tmp_path / "tiny")


@pytest.fixture
def server(run, tmp_path):
    """The process, the URL of its model, and the file of its log."""
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen([sys.executable, SCRIPT, run, "--port", "0", "--reload", "0.05"], stdout=subprocess.PIPE,
                                   stderr=log, text=True)  # fmt: skip
        lines = iter(process.stdout.readline, "")
        url = next(match[0] for line in lines if (match := re.search(r"http://\S+/v1/models/tiny(?=:predict)", line)))
        yield process, url, Path(log.name)
        process.kill()
        process.wait()
        process.stdout.close()


def test_versions_change_under_load_and_a_stop_loses_nothing(server, run):
    process, url, log = server
    answers, stop = [[], [], []], threading.Event()

    def ask(found):
        while not stop.is_set():
            found.append(post(f"{url}:predict", {"instances": [2.0]})["predictions"])

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask, found) for found in answers]
        wait_for(lambda: all(answers))
        add_version(run, 2)
        wait_for(lambda: all(found[-1] == [3.0] for found in answers))
        add_version(run, 0, damaged=True)
        wait_for(lambda: "version=3 not loaded" in log.read_text())
        count = len(answers[0])
        wait_for(lambda: len(answers[0]) > count + 5)
        stop.set()
        assert [each.result() for each in askers] == [None] * 3, "no request failed"
        for found in answers:
            assert found == sorted(found) and {str(each) for each in found} == {"[2.0]", "[3.0]"}, "first the old, then the new"
        slow = pool.submit(post, f"{url}:predict", {"signature_name": "slowly", "instances": [1000.0]})
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert slow.result() == {"predictions": [502.0]}, "what was accepted is answered"
    assert process.wait(SECONDS) == 0 and process.stdout.read().endswith("Stopped.\n")
    lines = log.read_text().splitlines()
    events = [line.partition("level=")[2] for line in lines if "level=" in line]
    assert [event.split(" in ")[0].split(": ")[0] for event in events] == [
        "INFO model=tiny version=1 loaded", "INFO model=tiny version=2 loaded", "INFO model=tiny version=1 unloaded",
        "ERROR model=tiny version=3 not loaded"]  # fmt: skip


def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {(str(run), "--port", port): f"Cannot listen on 127.0.0.1:{port}, it is in use: give another --port",
                 ("nowhere", "--port", "0"): "No run folder 'nowhere'",
                 (str(run), str(run), "--port", "0"): "Two runs are named tiny",
                 ("--port", "0"): "There is no finished run in saved_models: train one with"}  # fmt: skip
        for argv, message in cases.items():
            assert cli.main(["serve", *argv]) == 2
            error = capsys.readouterr().err
            assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_demo_trains_a_run_serves_it_and_serves_it_again(tmp_path):
    def ask(seconds):
        command = [sys.executable, SCRIPT, "--demo", "--port", "0"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        start, lines = time.monotonic(), iter(process.stdout.readline, "")
        url = next(match[0] for line in lines if (match := re.search(r"http://\S+/v1/models/demo(?=:predict)", line)))
        assert time.monotonic() - start < seconds
        body = {"signature_name": "serve_bytes", "instances": [{"b64": base64.b64encode(picture()).decode()}]}
        [found] = post(f"{url}:predict", body)["predictions"]
        with urllib.request.urlopen(url.partition("/v1/")[0], timeout=SECONDS) as answer:
            page = answer.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
        process.stdout.close()
        return found, page

    first, page = ask(900)
    assert first["verdict"] in ("real", "fake", "inconclusive") and "<html" in page
    assert (tmp_path / "saved_models" / "demo" / "report.html").exists()
    assert ask(90)[0] == first, "the run is served again, without another training"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_uvicorn_handles_them_stops_the_server(run, monkeypatch, capsys, number):
    stopping, handlers = [], {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def run_server(server, sockets):
        signal.raise_signal(number)
        stopping.append(server.should_exit)

    monkeypatch.setattr("uvicorn.Server.run", run_server)
    monkeypatch.setattr(serve, "start_log", lambda: None)
    monkeypatch.setattr(serve.gc, "freeze", lambda: None)
    try:
        with serve.listen("127.0.0.1", 0) as listener:
            serve.serve(Models([run]), ServeSettings(), listener)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert stopping == [True] and capsys.readouterr().out.endswith("Stopped.\n")


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_wait_that_no_thread_can_wait_is_refused_with_its_flag(seconds):
    with pytest.raises(UserError, match=r"--batch\.wait must be within 0\.\.86400 seconds"):
        BatchSettings(wait=seconds)
    with pytest.raises(UserError, match=r"--reload within 0\.\.86400 seconds"):
        ServeSettings(reload=seconds)
