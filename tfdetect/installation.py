"""Where tfdetect runs, a checkout or an installed package: the commands, recipes and pages that its messages name."""

import contextlib
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tfdetect import __version__
from tfdetect.files import shell_quote

PACKAGE = Path(__file__).resolve().parent
LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python", "opencv-python-headless", "av", "decord", "scikit-learn")


def folder(name: str) -> Path:
    """Return a top-level folder of the repository, `recipes` or `docs`, which an installed package holds inside itself."""
    return next((found for found in (PACKAGE / name, PACKAGE.parent / name) if found.is_dir()), PACKAGE / name)


def page(name: str) -> str:
    """Return the path of a page of docs/, relative if the current folder contains it."""
    path, here = folder("docs") / name, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def command(verb: str, *words: object) -> str:
    """Return the command that runs a verb with these words, quoted for a shell.

    It is the verb's script if this process is a script of the checkout, which works without an installation, and `tfdetect VERB`
    otherwise.
    """
    program = ["python", _program().with_name(f"{verb}.py")] if _is_script() else ["tfdetect", verb]
    return _join(*program, *words)


def utc_now() -> str:
    """Return the time in UTC to the second, ISO 8601, as pages and tables show when they were made."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def command_line() -> str:
    """Return the command line of this process, quoted for a shell; "" for a process that calls tfdetect from Python."""
    if _is_script():
        return _join("python", *sys.argv)
    return _join("tfdetect", *sys.argv[1:]) if _program().name in ("tfdetect", "cli.py") else ""


def versions() -> dict[str, str]:
    """Return the versions of tfdetect, Python and the installed LIBRARIES."""
    found = {"tfdetect": __version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _program() -> Path:
    """Return the path of the program; an interpreter inside another program need not have one."""
    return Path(sys.argv[0] if sys.argv else "")


def _is_script() -> bool:
    """Return whether this process runs a file in scripts/ of the checkout that holds this package."""
    program = _program()
    return program.suffix == ".py" and program.resolve().parent == PACKAGE.parent / "scripts"


def _join(*words: object) -> str:
    return " ".join(map(shell_quote, map(str, words)))
