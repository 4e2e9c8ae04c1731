"""The time that a file may take: a base, and what its length adds, so that a long video passes and a hang still ends.

A process that decodes is ended by the kernel when its time is up (SIGALRM), whatever library it hangs in. What the length
adds is far more than whole files take on one slow core; docs/data.md says how that was measured.
"""

import signal

BYTES = 10_000_000  # a second, read or hashed
PIXELS = 60_000_000  # a second, decoded once
MOST = 4 * 3600.0  # seconds, however much a file announces


def start(seconds: float | None) -> None:
    """End this process in so many seconds; with None or 0 never."""
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)


def allow(size: float = 0, pixels: float = 0) -> None:
    """Add the time for so many bytes and pixels, where time is limited at all."""
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if left:
        signal.setitimer(signal.ITIMER_REAL, min(left + size / BYTES + pixels / PIXELS, max(left, MOST)))


def passed(exitcode: int) -> bool:
    """Whether a process with this exit code was ended because its time was up."""
    return exitcode == -signal.SIGALRM
