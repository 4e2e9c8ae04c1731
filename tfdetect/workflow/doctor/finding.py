"""What one check found."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tfdetect.errors import UserError

Result = Literal["ok", "warning", "problem", "absent", "not tried"]
PACKAGE = Path(__file__).resolve().parents[2]
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
REPORT = "Report this page as a bug of tfdetect."
MEMORY_ADVICE = "Free memory, or raise the memory limit of the container or shell (ulimit -v)."
PROCESS_ADVICE = "Raise the limit on processes and threads: ulimit -u, or --pids-limit of the container."
SHORTAGES = {"not enough memory": MEMORY_ADVICE, "no threads can be started": PROCESS_ADVICE}
SHORTAGE_MARKS = {  # what libraries print then
    "no threads can be started": ("pthread_create", "can't start new thread", "Resource temporarily unavailable",
                                  "thread constructor failed"),
    "not enough memory": ("bad_alloc", "Cannot allocate memory", "MemoryError", "failed to map segment", "out of memory"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    part: str
    """Heading on the page, such as "videos"."""
    check: str
    """What was checked, such as "HEVC in MP4"."""
    result: Result = "ok"
    """"absent": an optional part is missing. "not tried": this machine has no way to check it. Only "problem" is an error."""
    detail: str = ""
    """What was found, such as a version or an error."""
    advice: str = ""
    """How to fix it."""
    seconds: float = 0.0
    """How long the check took."""
    cause: str = ""
    """Module that could not be imported, or in which a process crashed."""


def from_error(part: str, check: str, error: Exception) -> Finding:
    """Return an error of any kind as a problem."""
    cause, text = import_cause(error), " ".join(str(error).split())
    if short := shortage(f"{type(error).__name__}: {text}"):
        return Finding(part, check, "problem", short, SHORTAGES[short])
    if isinstance(error, UserError):  # says how to fix it
        return Finding(part, check, "problem", without_folders(text), cause=cause)
    advice = f"pip install --force-reinstall {package_of(cause)}" if cause else REPORT
    if isinstance(error, OSError) and error.strerror:
        text, advice = f"{error.strerror}: {error.filename}" if error.filename else error.strerror, ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(PACKAGE))]
    where = f" ({Path(frames[-1].filename).relative_to(PACKAGE)}, line {frames[-1].lineno})" if frames else ""
    return Finding(part, check, "problem", without_folders(f"{type(error).__name__}: {text}{where}"), advice, cause=cause)


def shortage(text: str) -> str:
    """Return which of SHORTAGES an error, or what a process printed, is about, or ""."""
    return next((short for short, marks in SHORTAGE_MARKS.items() if any(mark in text for mark in marks)), "")


def import_cause(error: BaseException | None) -> str:
    """Return the top-level module that a failed import was about: the one that is missing, or else the one that failed; ""
    for other errors. The first error of a chain counts."""
    cause = ""
    while error:
        if isinstance(error, ImportError):
            names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
            raised_in = [name for name in names if not name.startswith(("importlib", "_frozen_importlib"))][-1:]
            missing = [error.name] if isinstance(error, ModuleNotFoundError) and error.name else []
            cause = "".join(missing or raised_in).partition(".")[0]
        error = error.__cause__ or error.__context__
    return cause


def module_of(package: str) -> str:
    """Return the name under which a package is imported."""
    return MODULES.get(package, package.replace("-", "_"))


def package_of(module: str) -> str:
    """Return the name of the package that contains a module."""
    return next((package for package, name in MODULES.items() if name == module), module.replace("_", "-"))


def without_folders(text: str) -> str:
    """Return the text without the names of the home folder, if there is one, and the environment, since the page is made to be
    published."""
    for folder, short in ((sys.prefix, "ENV"), (os.path.expanduser("~"), "~")):
        text = text.replace(folder, short) if len(folder) > 1 else text
    return text


def conclude(findings: Sequence[Finding], required: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings. Of those with the same cause only one stays a problem; optional parts that are `required` become
    problems if they are missing or doubtful."""
    first: dict[str, Finding] = {}
    for finding in findings:
        if finding.cause and (finding.cause not in first or module_of(finding.check) == finding.cause):
            first[finding.cause] = finding
    for finding in findings:
        if finding.cause and first[finding.cause] is not finding:
            yield replace(finding, result="not tried", detail=f"see the problem with {first[finding.cause].check}", advice="")
        elif finding.check in required and finding.result in ("absent", "warning"):
            yield replace(finding, result="problem")
        else:
            yield finding
