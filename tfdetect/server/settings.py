"""The settings of the server, which are the flags of `serve`. Imports nothing heavy, since `--help` needs it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tfdetect.errors import UserError, require_minimum
from tfdetect.server.limits import Access, ServeLimits

LABEL = re.compile(r"(?:(?P<model>[^/]+):)?(?P<label>[^/:=]+)=(?P<version>\d+)")
LONGEST = 86_400  # seconds that anything waits; threads cannot wait without limit


@dataclass(frozen=True)
class BatchSettings:
    """How requests are gathered: while a call of the network runs, the next ones wait for it, and are then scored together."""

    size: int = 16  # 8 serve fewer images a second (benchmarks/serving.py)
    """Maximum number of images or clips in one call of the network."""
    wait: float = 0.01
    """Maximum time in seconds that a request waits for as many others as were scored together before; alone, it never waits."""
    queue: int = 1000
    """Maximum number of requests that wait; those above it are refused with 503."""

    def __post_init__(self) -> None:
        require_minimum(1, "batch", self, "size", "queue")
        if not 0 <= self.wait <= LONGEST:
            raise UserError(f"--batch.wait must be within 0..{LONGEST} seconds, got {self.wait:g}.")


@dataclass(frozen=True)
class ServeSettings:
    """Serve trained detectors over HTTP, with TensorFlow Serving's REST contract (docs/server.md)."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of the runs to serve, such as saved_models/cnn; by default all finished runs in saved_models."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all networks of this machine."""
    port: int = 8501
    """Port to listen on; 0 for any free one."""
    demo: bool = False
    """Without a finished run in saved_models, train one on the embedded sample first, which takes a few minutes."""
    versions: int = 1
    """Number of the newest versions of each run to serve; older ones are asked for by /versions/N."""
    labels: tuple[str, ...] = ()
    """Names of versions, such as stable=1, or cnn:stable=1 with several runs.
    These versions are served, too, and asked for by /labels/stable."""
    reload: float = 5.0
    """Seconds between two looks for new versions, which then take effect; 0 for never."""
    batch: BatchSettings = field(default_factory=BatchSettings)
    limits: ServeLimits = field(default_factory=ServeLimits)
    access: Access = field(default_factory=Access)
    trust: bool = False
    """Use runs even if their files differ from their SHA256SUMS."""
    log: str | None = None
    """Keep a record of all verdicts (docs/log.md): the path of an SQLite file, or postgresql://USER@HOST/DATABASE.
    It holds time, SHA-256 and size of a file, model, verdict and who asked, never the file. By default nothing is kept."""
    log_readers: tuple[str, ...] = ()
    """Names of the tokens that may read what others asked; any other token reads its own rows of the log."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port must be within 0..65535, got {self.port}.")
        if self.versions < 1 or not 0 <= self.reload <= LONGEST:
            raise UserError(f"--versions must be at least 1 and --reload within 0..{LONGEST} seconds, got {self.versions} and "
                            f"{self.reload:g}.")  # fmt: skip
        if wrong := [text for text in self.labels if not LABEL.fullmatch(text)]:
            raise UserError(f"--labels takes names such as stable=1 or cnn:stable=1, got {wrong[0]}.")

    def labels_of(self, models: Iterable[str]) -> dict[tuple[str, str], int]:
        """Return (model, label) -> version. Raises UserError for a label of a model that is not among these, or of several."""
        names, found = list(models), {}
        for match in filter(None, map(LABEL.fullmatch, self.labels)):
            name = match["model"] or names[0]
            if name not in names or (len(names) > 1 and not match["model"]):
                raise UserError(f"--labels {match[0]} must name one of the models {', '.join(names)}, as in {names[0]}:"
                                f"{match['label']}={match['version']}.")  # fmt: skip
            found[name, match["label"]] = int(match["version"])
        return found
