"""What the server accepts, and from whom: `--limits` and `--access` of `serve`. Imports nothing heavy, for `--help`."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

from tfdetect.errors import UserError, require_minimum
from tfdetect.limits import Limits

SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True)
class ServeLimits:
    """Upper limits per request, file and client (docs/safety.md)."""

    bytes: int = 200_000_000
    """Maximum size of a request in bytes, all its files together."""
    files: int = 20
    """Maximum number of files in a request."""
    pixels: int = 100_000_000
    """Maximum width times height of an image or video frame."""
    frames: int = 200_000
    """Maximum number of frames in a video."""
    seconds: float = 3600.0
    """Maximum duration of a video in seconds."""
    inline_seconds: float = 30.0
    """Duration of a video in seconds above which it becomes a job, whose progress the client follows."""
    decode_seconds: float = 300.0
    """Maximum time in seconds that decoding a file may take."""
    memory: int = 2**31
    """Maximum memory of a decoding process in bytes."""
    workers: int | None = None
    """Number of decoding processes; by default one per core."""
    jobs: int = 8
    """Maximum number of jobs that run or wait, heat-maps and case reports included; others are refused with 503."""
    results: int = 32
    """Maximum number of finished jobs whose results are kept."""
    keep_seconds: float = 600.0
    """Time in seconds for which the result of a job can be fetched."""
    requests: int = 256
    """Maximum number of requests with a body that are answered at a time; others are refused with 503."""
    rate: int | None = None
    """Maximum number of requests with a body per minute and client, who else is refused with 429; by default no limit."""
    stall_seconds: float = 15.0
    """Time in seconds that a client may pause within a request before it is refused with 408."""
    upload_seconds: float = 600.0
    """Maximum time in seconds for sending a request."""

    def __post_init__(self) -> None:
        require_minimum(1, "limits", self, *(each.name for each in fields(self) if not each.name.endswith("seconds")))
        if wrong := [each.name for each in fields(self) if each.name.endswith("seconds") and not getattr(self, each.name) > 0]:
            raise UserError(f"--limits.{wrong[0]} must be above 0, got {getattr(self, wrong[0])}.")

    def of_files(self, trained: Limits) -> Limits:
        """Return the limits for a file: those of a run, or those of the server where these are lower."""
        lower = {name: min(getattr(trained, name), getattr(self, name)) for name in ("pixels", "bytes", "frames", "seconds")}
        return Limits(**lower)


@dataclass(frozen=True)
class Access:
    """Who may use the server (docs/safety.md)."""

    tokens: Path | None = None
    """File with a line NAME TOKEN for each client; requests then need the header "Authorization: Bearer TOKEN"."""
    cors: tuple[str, ...] = ()
    """Origins, such as https://example.org, whose pages may use the server from a browser; by default only its own page."""
    hosts: tuple[str, ...] = ()
    """Host names by which the server may be addressed; by default those of this machine, or any if --host is another address."""

    def read_tokens(self) -> dict[bytes, str]:
        """Return the SHA-256 of each token -> its name; empty without a file. Raises UserError, which shows no token."""
        if self.tokens is None:
            return {}
        try:
            lines = self.tokens.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--access.tokens {self.tokens} cannot be read ({reason}).") from error
        found: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or len(words[1]) < SHORTEST_TOKEN:
                make = 'python -c "import secrets; print(secrets.token_urlsafe())"'
                raise UserError(f"{self.tokens}, line {number}: expected a name and a token of at least {SHORTEST_TOKEN} "
                                f"characters, such as that of: {make}")  # fmt: skip
            found[hashlib.sha256(words[1].encode()).digest()] = words[0]
        if not found:
            raise UserError(f"{self.tokens} has no token, so nobody could use the server: add lines NAME TOKEN.")
        return found
