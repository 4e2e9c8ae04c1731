"""What one check found."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tfdetect.errors import UserError

Result = Literal["ok", "warning", "problem", "absent", "not tried"]
BROKEN = ("packages", "problem")
PACKAGE = Path(__file__).resolve().parents[2]
REPORT = "Report this page as a bug of tfdetect."
REINSTALL = "Repair the packages listed here, for example with pip install --force-reinstall NAME."


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
    """Module that raised an ImportError."""


def from_error(part: str, check: str, error: Exception) -> Finding:
    """Return the problem that an error of any kind amounts to."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):  # says how to fix it
        return Finding(part, check, "problem", without_home(text))
    advice = REINSTALL if isinstance(error, ImportError) else REPORT
    if isinstance(error, OSError) and error.strerror:
        text, advice = f"{error.strerror}: {error.filename}" if error.filename else error.strerror, ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(PACKAGE))]
    where = f" ({Path(frames[-1].filename).relative_to(PACKAGE)}, line {frames[-1].lineno})" if frames else ""
    detail = without_home(f"{type(error).__name__}: {text}{where}")
    return Finding(part, check, "problem", detail, advice, cause=import_cause(error))


def import_cause(error: Exception) -> str:
    """Return the top-level module that an ImportError is about: the one that is missing, or else the one that raised it."""
    if not isinstance(error, ImportError):
        return ""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [name for name in names if not name.startswith(("importlib", "_frozen_importlib"))]
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return (missing or names[-1]).partition(".")[0]


def without_home(text: str) -> str:
    """Return the text without the name of the user's home folder, since the page is made to be published."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def conclude(findings: Sequence[Finding], required: Sequence[str], modules: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings; what fails only because of a package that is a problem itself was in fact not tried, and optional
    parts that are missing or doubtful but `required` are problems. `modules` maps packages to what they are imported as."""
    broken = {modules.get(item.check, item.check): item.check for item in findings if (item.part, item.result) == BROKEN}
    for finding in findings:
        if broken.get(finding.cause, finding.check) != finding.check:
            yield replace(finding, result="not tried", detail=f"needs {broken[finding.cause]}", advice="")
        elif finding.check in required and finding.result in ("absent", "warning"):
            yield replace(finding, result="problem")
        else:
            yield finding
