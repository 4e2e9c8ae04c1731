"""The settings of the server, which are the flags of `serve`. Imports nothing heavy, since `--help` needs it."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tfdetect.errors import UserError, require_minimum
from tfdetect.server.limits import Access, ServeLimits


@dataclass(frozen=True)
class BatchSettings:
    """How requests are gathered: while a call of the network runs, the next ones wait for it, and are then scored together."""

    size: int = 32
    """Maximum number of images or clips in one call of the network."""
    queue: int = 1000
    """Maximum number of requests that wait; those above it are refused with 503."""

    def __post_init__(self) -> None:
        require_minimum(1, "batch", self, "size", "queue")


@dataclass(frozen=True)
class ServeSettings:
    """Serve trained detectors over HTTP, with TensorFlow Serving's REST contract (docs/server.md)."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of the runs to serve, such as saved_models/cnn; by default all finished runs in saved_models."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all networks of this machine."""
    port: int = 8501
    """Port to listen on; 0 for any free one."""
    batch: BatchSettings = field(default_factory=BatchSettings)
    limits: ServeLimits = field(default_factory=ServeLimits)
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port must be within 0..65535, got {self.port}.")
