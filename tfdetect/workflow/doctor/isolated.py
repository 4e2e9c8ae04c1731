"""Run checks in a process of their own, because what they look for may crash it or make it hang.

The child prints a line of JSON for each finding, and null whenever it begins a task. If it dies, the task in progress is a
problem, and a new child continues with the next one.
"""

import contextlib
import errno
import faulthandler
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import IO, Any

from tfdetect.workflow.doctor import finding as findings
from tfdetect.workflow.doctor.finding import PACKAGE, PROCESS_ADVICE, REPORT, SHORTAGES, Finding

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
LOG_BYTES = 20_000  # read at the end of what a child printed
SECONDS = 120  # per task; the longest one takes about ten on two cores
UNINSTALL = "Uninstall the package that brings this plugin, or ask its authors."


def run(tasks: Sequence[Task], on_start: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """Carry out the tasks and yield their findings as they come; `on_start` is called with the name of each task.

    Once memory or threads are lacking, the remaining ones are not tried.
    """
    remaining, crashes = list(tasks), set()
    while remaining:
        current: Task | None = None
        for message in converse(remaining):
            if not isinstance(message, Finding):
                current = remaining.pop(0)
                on_start(" ".join(current).strip())
                continue
            part, check = name_of(current) if current else ("processes", "Python")
            if not message.part:  # it died
                advice = UNINSTALL if part == "plugins" and message.advice == REPORT else message.advice
                message = replace(message, part=part, check=check, advice=advice)
            yield message
            if (part, message.cause) in crashes and part in ("images", "videos"):  # each crash costs the start of a new child
                skipped = [task for task in remaining if task[0] == part]
                yield from (replace(message, check=name, seconds=0.0) for _, name in skipped)
                remaining = [task for task in remaining if task not in skipped]
            crashes |= {(part, message.cause)} if message.cause else set()
            if current is None or message.detail in SHORTAGES:
                yield from (Finding(*name_of(task), "not tried", f"see the problem with {check}") for task in remaining)
                return


def name_of(task: Task) -> tuple[str, str]:
    """Return part and check of a task's findings."""
    return task[0], task[1] or task[0]


def converse(tasks: Sequence[Task]) -> Iterator[Finding | None]:
    """Start a child for these tasks; yield None when it begins one, and its findings. If it dies, or does not even start, the
    last one has no part."""
    with workplace() as (variables, log):
        try:
            child = start(tasks, log, variables)
        except OSError as error:
            reason = f"no other Python process can be started: {(error.strerror or str(error)).lower()}"
            yield Finding("", "", "problem", reason, PROCESS_ADVICE if error.errno == errno.EAGAIN else "")
            return
        complete = False
        try:
            for line in child.stdout or ():
                message = json.loads(line)
                complete = message == "end"
                if not complete:
                    yield Finding(**message) if message else None
            code = child.wait()
        finally:  # also after Ctrl-C, which the child does not receive
            stop(child)
        if not complete:
            yield explain_death(code, read_log(log))


@contextlib.contextmanager
def workplace() -> Iterator[tuple[Mapping[str, str], IO[bytes]]]:
    """Yield environment variables that give a child a folder for temporary files, deleted whatever becomes of it, and a log.

    If there is no place for either, as the page will say, no variables and a log that keeps nothing.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="tfdetect-", ignore_cleanup_errors=True)
    except OSError:
        with open(os.devnull, "r+b") as log:
            yield {}, log
        return
    with folder as name, open(f"{name}/log", "w+b") as log:
        yield {"TMPDIR": name}, log


def start(tasks: Sequence[Task], log: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a child with these environment variables, in a process group of its own so that its worker processes end with it."""
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **variables, "PYTHONPATH": path}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "0"  # TensorFlow then says why it does not use a GPU
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
    """Return the last part of the log."""
    log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
    return log.read().decode(errors="replace")


def explain_death(code: int, log: str) -> Finding:
    """Return what ended a process with this exit code, and how to fix it, without part and check; `log` is what it printed,
    with the traceback by faulthandler."""
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if short := findings.shortage(log) or ("not enough memory" if code == -signal.SIGKILL else ""):
        return Finding("", "", "problem", short, SHORTAGES[short])
    cause = crashed_module(log)
    where, package = (f" in {cause}", findings.package_of(cause)) if cause else ("", "")
    reinstall = f"pip install --force-reinstall {package}" if cause else REPORT
    if code == -signal.SIGALRM:
        return Finding("", "", "problem", f"it was stopped because it hung{where} for {SECONDS} s",
                       "Look for a slow disk or network, or a hanging driver.")  # fmt: skip
    if code == -signal.SIGILL:
        reinstall = f"Use a machine with AVX, or another build of {package or 'the package'}."
    return Finding("", "", "problem", f"it crashed{where} ({name})", reinstall, cause=cause)


def crashed_module(log: str) -> str:
    """Return the top-level module whose code ran last according to faulthandler's traceback, "" for none or tfdetect's own."""
    for path in re.findall(r'^  File "([^<"][^"]*)", line \d+ in', log, re.MULTILINE):
        after = re.split(r"(?:site|dist)-packages/", path)
        module = after[-1].partition("/")[0].removesuffix(".py") if len(after) > 1 else os.path.basename(path).removesuffix(".py")
        return "" if path.startswith(str(PACKAGE)) else module
    return ""


def main() -> None:
    """Carry out the tasks given on the command line and print the findings. This is the child."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to both
    _load_libraries_locally()
    log = os.dup(2)  # a copy, because some tasks redirect stderr
    faulthandler.enable(log, all_threads=False)  # a crash writes a traceback to the log, and so does a hang
    faulthandler.register(signal.SIGALRM, log, all_threads=False, chain=True)

    def send(message: Any) -> None:
        print(json.dumps(message), file=replies, flush=True)

    for task in json.loads(sys.argv[1]):
        signal.alarm(SECONDS)  # the kernel ends the process, whichever library it hangs in
        send(None)  # a task begins
        for finding in carry_out(tuple(task)):
            send(asdict(finding))
    send("end")
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
        yield replace(findings.from_error(*name_of(task), error), seconds=round(time.monotonic() - start, 2))


def _load_libraries_locally() -> None:
    """Let `import decord` not load its libraries globally: its libpng of 2019 would break TensorFlow's PNG decoder."""
    import ctypes

    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL  # type: ignore[misc]  # a Final in typeshed
