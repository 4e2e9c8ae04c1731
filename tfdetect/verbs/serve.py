"""serve: answer requests over HTTP until a signal to stop."""

import errno
import gc
import logging
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import config, installation, versions
from tfdetect.errors import UserError
from tfdetect.server.settings import ServeSettings
from tfdetect.workflow.console import console, printable, served_devices_line

if TYPE_CHECKING:
    from tfdetect.server.models import Models

RUNS = Path("saved_models")  # that are served by default
DEMO = ("cnn", "--name", "demo", "--train.epochs", "5")  # what --demo trains; more epochs learn no more of the sample
GRACE = 30  # seconds that an accepted request has to be answered after a signal to stop


def main(argv: Sequence[str]) -> int:
    """Parse the flags, bind the port, serve the runs until a signal to stop, and answer what was accepted."""
    settings = config.parse_flags(ServeSettings, argv, "serve")
    listener = listen(settings.host, settings.port)  # before the models are loaded, which takes a while
    runs = settings.runs or finished_runs() or (train_demo() if settings.demo else ())
    if not runs:
        raise UserError(f"There is no finished run in {RUNS}: train one with {installation.command('train')}, name the folder of "
                        "a run, or give --demo, which trains one on the embedded sample.")  # fmt: skip
    from tfdetect.server.models import Models

    serve(Models(runs, settings), settings, listener)
    return 0


def serve(models: "Models", settings: ServeSettings, listener: socket.socket) -> None:
    """Load the models and answer requests; raises what keeps a model from being loaded at first."""
    # First: it imports TensorFlow without its messages.
    console.print(f"Loading {', '.join(map(printable, models.names()))}: {served_devices_line()}")
    import uvicorn

    from tfdetect.server.app import create_app
    from tfdetect.server.connection import timed_protocol

    start_log()
    app = create_app(models, settings)
    # uvicorn would choose uvloop where that is installed, with which one client waits 10.7 instead of 9.6 ms, and 32 get 0.79
    # instead of 0.83 of the SavedModel's rate (benchmarks/serving.py).
    server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", log_config=None, access_log=False, server_header=False,
                                           http=timed_protocol(settings.limits.stall_seconds),
                                           timeout_graceful_shutdown=GRACE))  # fmt: skip
    models.on_ready = lambda: announce(models, listener, settings)
    models.on_failure = lambda: setattr(server, "should_exit", True)
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn handles them, and for when it then raises them again
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    gc.collect()
    gc.freeze()  # what libraries have made so far stays; to look through it after each change of a version takes half a second
    server.run([listener])
    models.close()
    if models.failure:
        raise models.failure
    console.print("Stopped.")


def announce(models: "Models", listener: socket.socket, settings: ServeSettings) -> None:
    """Print where the server is, how to ask it, and what its log will lack."""
    names = models.names()
    host, port = listener.getsockname()[:2]
    name = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    url = f"http://{name}:{port}"
    console.print(f"Serving {', '.join(map(printable, names))}; stop with Ctrl-C.")
    console.print(f"  Page         {url}/")
    console.print(f"  Predict      {url}/v1/models/{names[0]}:predict, as TensorFlow Serving does")
    console.print(f"  More         {url}/openapi.json, {url}/metrics; {installation.page('server.md')}")
    if settings.host not in ("127.0.0.1", "::1", "localhost"):
        who = "Anyone with a token" if settings.access.tokens else "Anyone"
        console.print(f"  {who} who reaches {settings.host}:{port} can use it.")
    for model in filter(lambda model: settings.log and model.lacks_verdicts, map(models.get, names)):
        console.print(f"  The log gets no row of {printable(model.name)}:predict, which answers without a verdict, as an older "
                      f"version exported it: {installation.command('export', versions.base(model.detector.folder))} and "
                      "another start mend that.")  # fmt: skip


def finished_runs() -> Sequence[Path]:
    """Return the finished runs in saved_models that have a SavedModel."""
    from tfdetect.artifact import Artifact, find_runs

    return [run for run in find_runs(RUNS) if Artifact(run).is_finished and Artifact(run).saved_model.exists()]


def train_demo() -> Sequence[Path]:
    """Train a small CNN on the embedded sample of images, in a process of its own, which takes its memory with it."""
    from tfdetect.api.train import train_member
    from tfdetect.workflow.child import ChildProcess

    console.print(f"There is no finished run in {RUNS}: training one on the embedded sample, which takes a few minutes.")
    with ChildProcess() as process:
        process.call(train_member, config.parse([*DEMO, "--out", str(RUNS)], "train"))
    return [RUNS / "demo"]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address. Raises UserError if that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise UserError(f"Cannot listen on {host}:{port}, {reason}: give another --port or --host.") from error
    return listener


def start_log() -> None:
    """Write what operators need to know to stderr, a line per event: versions loaded, unloaded or damaged, and bugs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("time=%(asctime)s level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    for name, level in (("tfdetect.server", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
