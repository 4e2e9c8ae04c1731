"""Train runs in another process, one after the other. The process is replaced once it has grown.

TensorFlow does not give back all memory of models that are gone, the more the larger they are (benchmarks/study_memory.py), so
that a study in one process would end for lack of memory. A crash, as of a process killed for its memory, fails one run.
"""

import errno
import logging
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.data.worker_processes import hidden_main
from tfdetect.errors import UserError
from tfdetect.machine import resident_memory
from tfdetect.settings import Run
from tfdetect.workflow.console import import_keras, print_note
from tfdetect.workflow.protocols import MemberError, describe_error, is_disk_full
from tfdetect.workflow.startup import start

MAX_GROWTH = 1.5  # of memory after the first run, from which on the process is replaced
SECONDS = 10  # for a process to end by itself
Function = Callable[[Run], Mapping[str, Any]]  # at module level, so that another process can import it


class ChildProcess:
    """A process that calls functions of runs."""

    def __init__(self) -> None:
        self.process: SpawnProcess | None = None
        self.connection: Connection | None = None
        self.lifeline: Connection | None = None
        self.first_memory = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def call(self, function: Function, run: Run) -> Mapping[str, Any]:
        """Return what the function returns, called in the other process; in this one where none can be started, for a detector
        that only this one knows, and in notebooks, which do not show what other processes print.

        Raises UserError, OSError and MemberError for the errors of the function.
        """
        if type(run.detector).__module__ == "__main__" or "ipykernel" in sys.modules:
            return function(run)
        try:
            connection = self.connection if self.process and self.process.is_alive() and self.connection else self.begin()
        except OSError as error:
            print_note(f"No process can be started ({error}): this one trains, and may run out of memory after many trainings.")
            return function(run)
        with tempfile.TemporaryDirectory(prefix="tfdetect-") as folder:
            path = Path(folder, "config.yaml")
            config.write_yaml(run, path)
            try:
                connection.send((function, to_flags(run, path)))
                outcome = connection.recv()
            except (EOFError, ConnectionError) as error:
                raise MemberError(f"Its process {self.end()}.") from error
        self.first_memory = self.first_memory or outcome["memory"]
        if outcome["memory"] > MAX_GROWTH * self.first_memory:
            self.end()
        return result_of(outcome)

    def begin(self) -> Connection:
        """Start the process and return the connection to it."""
        context = SpawnContext()
        self.connection, theirs = context.Pipe()
        their_lifeline, self.lifeline = context.Pipe(duplex=False)
        process, self.process, self.first_memory = context.Process(target=serve, args=(theirs, their_lifeline)), None, 0
        with hidden_main():
            process.start()
        self.process = process
        theirs.close()  # so that the end of the process closes the connection
        their_lifeline.close()
        return self.connection

    def end(self) -> str:
        """End the process, and return how it ended."""
        if self.process is None:
            return "was not started"
        for connection in filter(None, (self.connection, self.lifeline)):
            connection.close()
        self.process.join(SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code, self.process = self.process.exitcode or 0, None
        return f"was ended by signal {-code}, as happens when memory runs out" if code < 0 else f"ended with exit code {code}"


def to_flags(run: Run, path: Path) -> list[str]:
    """Return the flags that give this run, whose config.yaml is at `path`."""
    stress = [] if run.stress is None else ["--stress", str(run.stress)]
    return ["--config", str(path), "--out", str(run.out), "--name", str(run.name), *stress, *["--profile"] * run.profile]


def result_of(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of a function, or raise its error."""
    if "found" in outcome:
        found: Mapping[str, Any] = outcome["found"]
        return found
    kind, reason, trace = outcome["error"]
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), reason)
    raise UserError(reason) if kind == "user" else MemberError(reason, trace)


def serve(connection: Connection, lifeline: Connection) -> None:
    """Call the functions that come over the connection until it is closed. The process ends with its parent."""
    threading.Thread(target=end_with, args=(lifeline,), daemon=True).start()
    logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())
    try:
        start()
        while True:
            function, argv = connection.recv()
            import_keras().backend.clear_session()
            connection.send({**outcome_of(function, argv), "memory": resident_memory()})
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)  # without waiting for threads of libraries


def end_with(lifeline: Connection) -> None:
    """End this process when the other end of the connection is closed, as it is when that process ends for any reason."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(0)


def outcome_of(function: Function, argv: list[str]) -> dict[str, Any]:
    """Return {"found": what the function returns} or {"error": (kind, reason, traceback)}."""
    try:
        with config.parser_errors():
            run = config.parse(argv, "train")
        return {"found": dict(function(run))}
    except Exception as error:
        expected = isinstance(error, UserError | OSError)
        kind = "disk" if is_disk_full(error) else "user" if expected else "bug"
        return {"error": (kind, describe_error(error), traceback.format_exc())}
