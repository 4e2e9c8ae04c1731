"""Per-file time limits: a base plus an allowance for length, so that long videos pass and hanging decoders are stopped.

The kernel ends a worker process when its time is up (SIGALRM), whichever library it hangs in. The allowance far exceeds what
intact files take on one slow core; docs/data.md describes the measurement.
"""

import math
import signal

BYTES_PER_SECOND = 10_000_000  # read or hashed
PIXELS_PER_SECOND = 60_000_000  # decoded once
MAX_SECONDS = 4 * 3600.0  # however long a file claims to be
_most = math.inf  # the same, where a process that reads files of strangers gives them less


def cap(seconds: float) -> None:
    """Let no file take longer than `seconds` in this process from now on, whatever it claims."""
    global _most
    _most = seconds


def start(seconds: float | None) -> None:
    """End this process after `seconds`; None or 0 removes the limit."""
    signal.setitimer(signal.ITIMER_REAL, min(seconds or 0, _most))


def extend(size: float = 0, pixels: float = 0) -> None:
    """Extend the limit, if one is set, by the time allowed for `size` bytes and `pixels` decoded pixels."""
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if left:
        added = size / BYTES_PER_SECOND + pixels / PIXELS_PER_SECOND
        signal.setitimer(signal.ITIMER_REAL, min(left + added, max(left, min(MAX_SECONDS, _most))))


def is_timeout(exitcode: int) -> bool:
    """Return whether a process with this exit code was ended by its time limit."""
    return exitcode == -signal.SIGALRM
