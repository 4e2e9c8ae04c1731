"""Checks in another process: whatever happens to it is one finding, and the others are still carried out."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tfdetect.workflow.doctor import isolated
from tfdetect.workflow.doctor.finding import MEMORY_ADVICE, PROCESS_ADVICE, REPORT

PLUGINS = {"crashes": "import os; os.abort()", "leaves": "import os; os._exit(0)", "faulty": "x", "noisy": "print('[1]')"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with plugins that fail in many ways; their names as tasks."""
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[tfdetect.corruptions]\n" + "".join(f"{name} = mine_{name}\n" for name in PLUGINS))
    for name, code in PLUGINS.items():
        (tmp_path / f"mine_{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [("plugins", f"tfdetect.corruptions:{name}") for name in PLUGINS]


def test_a_check_that_crashes_or_ends_its_process_is_one_problem(installed):
    names = []
    found = {item.check.partition(":")[2]: item for item in isolated.run(installed, names.append)}
    assert list(found) == list(PLUGINS) and len(names) == 4
    assert found["crashes"].detail == "it crashed in mine_crashes (SIGABRT)" and found["crashes"].cause == "mine_crashes"
    assert found["leaves"].detail == "it crashed (exit code 0)" and found["leaves"].advice == isolated.UNINSTALL
    assert "NameError: name 'x' is not defined" in found["faulty"].detail and "Update mine" in found["faulty"].advice
    assert (found["noisy"].result, found["noisy"].detail) == ("ok", "mine 1.0"), "what it prints is not taken for a finding"


def test_processes_end_and_files_are_deleted_if_one_stops_reading(monkeypatch, tmp_path):
    children = []
    original = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **keys: children.append(original(*args, **keys)) or children[-1])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    findings = isolated.run([("images", "BMP"), ("training", "")])
    assert next(findings).result == "ok"
    findings.close()
    assert children[0].poll() == -signal.SIGKILL and not list(tmp_path.iterdir())


def test_without_processes_the_rest_is_not_tried(monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    first, *others = isolated.run([("images", "PNG"), ("training", "")])
    assert (first.part, first.result, first.advice) == ("processes", "problem", PROCESS_ADVICE)
    assert [item.result for item in others] == ["not tried"] * 2 and others[1].check == "training"


def test_a_lack_of_memory_ends_the_checks(monkeypatch):
    died = [None, isolated.explain_death(-9, "")]
    monkeypatch.setattr(isolated, "converse", lambda tasks: iter(died))
    first, *others = isolated.run([("devices", ""), ("images", "PNG")])
    assert first.detail == "not enough memory" and [item.result for item in others] == ["not tried"]


TRACE = """Fatal Python error: Illegal instruction

Current thread 0x00007f (most recent call first):
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "/x/lib/python3.12/site-packages/cv2/__init__.py", line 181 in bootstrap
  File "/x/tfdetect/data/media/read.py", line 14 in <module>
"""


@pytest.mark.parametrize("code, log, detail, advice", [
    (-signal.SIGILL, TRACE, "it crashed in cv2 (SIGILL)", "another build of opencv-python-headless"),
    (-signal.SIGSEGV, TRACE, "it crashed in cv2 (SIGSEGV)", "--force-reinstall opencv-python-headless"),
    (-signal.SIGSEGV, "", "it crashed (SIGSEGV)", REPORT),
    (-signal.SIGKILL, "", "not enough memory", MEMORY_ADVICE),
    (-signal.SIGABRT, "what():  std::bad_alloc", "not enough memory", MEMORY_ADVICE),
    (-signal.SIGABRT, "pthread_create failed", "no threads can be started", PROCESS_ADVICE),
    (-signal.SIGALRM, TRACE, "because it hung in cv2 for 120 s", "hanging driver"),
])  # fmt: skip
def test_every_death_is_explained(code, log, detail, advice):
    found = isolated.explain_death(code, log)
    assert detail in found.detail and advice in found.advice and found.result == "problem"


def test_a_hang_is_stopped_and_its_place_is_known(tmp_path):
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)")
    code = ("import sys; from tfdetect.workflow.doctor import isolated; isolated.SECONDS = 1; "
            "isolated.carry_out = lambda task: __import__('hangs'); isolated.main()")
    environment = {**os.environ, "PYTHONPATH": f"{isolated.PACKAGE.parent}{os.pathsep}{tmp_path}"}
    start = time.monotonic()
    command = [sys.executable, "-c", code, '[["images", "PNG"]]']
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert time.monotonic() - start < 30 and done.returncode == -signal.SIGALRM
    assert "hung in hangs" in isolated.explain_death(done.returncode, done.stderr).detail
