"""serve: answer requests over HTTP."""

import errno
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from tfdetect import config, installation
from tfdetect.errors import UserError
from tfdetect.server.settings import ServeSettings
from tfdetect.workflow.console import console

RUNS = Path("saved_models")  # that are served by default
GRACE = 30  # seconds that an accepted request has to be answered after a signal to stop


def main(argv: Sequence[str]) -> int:
    """Parse the flags, load the models, and serve them until a signal to stop."""
    settings = config.parse_flags(ServeSettings, argv, "serve")
    runs = settings.runs or finished_runs()
    listener = listen(settings.host, settings.port)
    from tfdetect.server.models import Models

    models = Models(runs, settings).load()
    import uvicorn

    from tfdetect.server.app import create_app

    host, port = listener.getsockname()[:2]
    console.print(f"Serving {', '.join(models.names())} on http://{host}:{port}/v1/models; stop with Ctrl-C.")
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn answers what it has accepted, and then raises the signal again
        signal.signal(number, lambda *_: None)
    options = uvicorn.Config(create_app(models, settings), log_config=None, access_log=False, timeout_graceful_shutdown=GRACE)
    uvicorn.Server(options).run([listener])
    models.close()
    return 0


def finished_runs() -> Sequence[Path]:
    """Return the finished runs in saved_models. Raises UserError if there is none."""
    from tfdetect.artifact import Artifact, find_runs

    if found := [run for run in find_runs(RUNS) if Artifact(run).is_finished and Artifact(run).saved_model.exists()]:
        return found
    raise UserError(f"There is no finished run in {RUNS}: train one with {installation.command('train')}, or name the folder "
                    "of a run.")  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address, before the models are loaded. Raises UserError if that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise UserError(f"Cannot listen on {host}:{port}, {reason}: give another --port or --host.") from error
    return listener
