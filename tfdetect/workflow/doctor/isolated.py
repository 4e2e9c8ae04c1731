"""Run checks in a process of their own, because what they look for may crash it or make it hang.

The child prints a JSON object per line: the task that it begins, or a finding. If it dies, the task in progress is a problem,
and a new child continues with the next one.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import IO, Any

from tfdetect.workflow.doctor.finding import PACKAGE, REPORT, Finding, from_error

Task = tuple[str, str]  # a key of FUNCTIONS, and what it is about, such as ("images", "HEIC")
FUNCTIONS = {  # each is called with the second item of a task and yields findings; imported in the child
    "packages": "installation.check_import",
    "optional": "installation.check_optional_import",
    "plugins": "installation.check_plugin",
    "processes": "machine.check_processes",
    "images": "media.check_image",
    "videos": "media.check_video",
    "devices": "training.check_devices",
    "training": "training.check_training",
}
SECONDS = 120  # per task; the longest one takes about ten on two cores
MEMORY_ERRORS = ("bad_alloc", "Cannot allocate memory", "MemoryError", "failed to map segment", "out of memory")
THREAD_ERRORS = ("pthread_create", "can't start new thread", "Resource temporarily unavailable", "thread constructor failed")
MEMORY_ADVICE = "Free memory, or raise the memory limit of the container or shell (ulimit -v)."
PROCESS_ADVICE = "Raise the limit on processes and threads: ulimit -u, or --pids-limit of the container."


def run(tasks: Sequence[Task], on_start: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """Carry out the tasks and yield their findings as they come; `on_start` is called with the name of each task."""
    remaining = list(tasks)
    while remaining:
        begun = len(remaining)
        failure = ("", "")
        for message in converse(remaining):
            if isinstance(message, tuple):
                failure = message
            elif "task" in message:
                on_start(" ".join(message["task"]).strip())
                current = remaining.pop(0)
            else:
                yield Finding(**message)
        if len(remaining) == begun:  # not even the interpreter starts
            reason = f"No other Python process can be started: {failure[0]}"
            yield Finding("processes", "Python", "problem", reason, failure[1])
            yield from (Finding(*name_of(task), "not tried", "no process can be started") for task in remaining)
            return
        if failure[0]:
            yield Finding(*name_of(current), "problem", *failure)


def name_of(task: Task) -> tuple[str, str]:
    """Return part and check of a task's findings."""
    return task[0], task[1] or task[0]


def converse(tasks: Sequence[Task]) -> Iterator[Any]:
    """Start a child for these tasks and yield its messages; then, if it died, what happened and how to fix it."""
    with open_log() as log:
        try:
            child = start(tasks, log)
        except OSError as error:
            yield (error.strerror or str(error)).lower(), PROCESS_ADVICE
            return
        complete = False
        try:
            for line in child.stdout or ():
                message = json.loads(line)
                complete = "end" in message
                if not complete:
                    yield message
            code = child.wait()
        finally:  # also after Ctrl-C, which the child does not receive
            stop(child)
        if not complete:
            yield explain_death(code, read_log(log))


def open_log() -> IO[bytes]:
    """Open a file for what the libraries print; one that keeps nothing if there is no folder for temporary files."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "r+b")


def start(tasks: Sequence[Task], log: IO[bytes]) -> subprocess.Popen[str]:
    """Start a child, in a process group of its own so that its worker processes end with it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH")))),
                   "TF_CPP_MIN_LOG_LEVEL": "0"}  # fmt: skip  # TensorFlow then says why it does not use a GPU
    environment.setdefault("KERAS_BACKEND", "tensorflow")
    code = "from tfdetect.workflow.doctor import isolated; isolated.main()"
    command = [sys.executable, "-P", "-c", code, json.dumps(tasks)]  # -P: not the modules of the current folder
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                            start_new_session=True)  # fmt: skip


def stop(child: "subprocess.Popen[str]") -> None:
    """End the child and all processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def read_log(log: IO[bytes]) -> str:
    """Return the last 4,000 bytes of the log."""
    log.seek(max(0, os.fstat(log.fileno()).st_size - 4000))
    return log.read().decode(errors="replace")


def explain_death(code: int, log: str) -> tuple[str, str]:
    """Return what ended a process with this exit code, and how to fix it; `log` is what it printed."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    said = f"; its last words: {last[:200]}" if last else ""
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGALRM:
        return f"it hung and was stopped after {SECONDS} s", "Look for a slow disk or network, or a hanging driver."
    if code == -signal.SIGILL:
        return ("it crashed on an instruction that this processor lacks",
                "Use a machine with AVX, or a build of the package for this processor.")  # fmt: skip
    if any(text in log for text in THREAD_ERRORS):
        return f"no threads can be started ({name})", PROCESS_ADVICE
    if code == -signal.SIGKILL or any(text in log for text in MEMORY_ERRORS):
        return f"it was killed or crashed, probably for lack of memory ({name})", MEMORY_ADVICE
    return f"it crashed ({name}){said}", REPORT


def main() -> None:
    """Carry out the tasks given on the command line and print the findings. This is the child."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to both
    _load_libraries_locally()

    def send(message: Any) -> None:
        print(json.dumps(message), file=replies, flush=True)

    for task in json.loads(sys.argv[1]):
        signal.alarm(SECONDS)  # the kernel ends the process, whichever library it hangs in
        send({"task": task})
        for finding in carry_out(tuple(task)):
            send(asdict(finding))
    send({"end": True})
    replies.close()
    os._exit(0)  # some libraries crash when they are unloaded, and their threads may never end


def carry_out(task: Task) -> Iterator[Finding]:
    """Yield the findings of a task, each with the time it took; an exception is a problem."""
    module, _, function = FUNCTIONS[task[0]].partition(".")
    start = time.monotonic()
    try:
        for finding in getattr(importlib.import_module(f"tfdetect.workflow.doctor.{module}"), function)(task[1]):
            yield replace(finding, seconds=round(time.monotonic() - start, 2))
            start = time.monotonic()
    except Exception as error:
        yield replace(from_error(*name_of(task), error), seconds=round(time.monotonic() - start, 2))


def _load_libraries_locally() -> None:
    """Let `import decord` not load its libraries globally: its libpng of 2019 would break TensorFlow's PNG decoder."""
    import ctypes

    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL  # type: ignore[misc]  # a Final in typeshed
