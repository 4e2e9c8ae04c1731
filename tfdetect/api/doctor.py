"""doctor: check the installation and this machine, for one's own problem or for a bug report.

Only the standard library is imported in this process; whatever may be broken is tried in another one.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfdetect import config
from tfdetect.workflow.doctor.finding import Finding, conclude, from_error
from tfdetect.workflow.doctor.isolated import Task

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["gpu", "beam", "torch", "jax", "transformers"]


@dataclass(frozen=True)
class Folders:
    """Where decoded clips go."""

    cache_dir: Path = Path("cache")
    """Folder for decoded clips, as in train."""


@dataclass(frozen=True)
class Doctor:
    """What has to work, and the folders that are written to."""

    require: tuple[Part, ...] = ()
    """Optional parts that have to work; without it, a missing GPU is no problem."""
    data: Folders = field(default_factory=Folders)
    out: Path = Path("saved_models")
    """Folder for runs, as in train."""


def doctor(require: str | Sequence[str] = (), **settings: Any) -> "pd.DataFrame":
    """Check the installation and this machine, which takes about 15 seconds and leaves nothing behind.

    Returns a row per check with the columns part, check, result, detail, advice, seconds and cause; shown as a whole, it is the
    page that `tfdetect doctor` prints. `result` is ok, warning, problem, absent (an optional part) or not tried. Parts in
    `require`, such as "gpu", become problems if they do not work. The keywords are flags of the command: `cache_dir` and
    `out`. Raises UserError for a setting that is not valid.
    """
    from tfdetect.workflow.doctor.table import Findings

    keywords = {"require": [require] if isinstance(require, str) else list(require), **settings}
    findings = check_all(config.parse_keywords(Doctor(), keywords, "doctor"))
    return Findings([dataclasses.asdict(finding) for finding in findings])


def check_all(settings: Doctor) -> list[Finding]:
    """Carry out all checks and return their findings in the order of the page."""
    findings = list(_check(settings, show_progress))
    show_progress("")
    return list(conclude(findings, settings.require))


def show_progress(name: str) -> None:
    """Show on a terminal what is being checked, in place of what was shown before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{f'Checking {name} ...' if name else ''}", end="", file=sys.stderr, flush=True)


def _check(settings: Doctor, on_start: Callable[[str], None]) -> Iterator[Finding]:
    from tfdetect.workflow.doctor import installation, isolated, machine

    folders = {"cache folder": settings.data.cache_dir, "output folder": settings.out}
    packages: list[str] = []

    def find_packages() -> Iterator[Finding]:
        packages.extend(installation.requirements())
        yield from ()

    for part, check in (
        ("system", installation.check_versions),
        ("optional", lambda: installation.check_optional(settings.require)),
        ("machine", machine.check_resources),
        ("disk", lambda: machine.check_disks(folders)),
        ("packages", find_packages),
    ):
        on_start(part)
        try:
            yield from check()
        except Exception as error:
            yield from_error(part, part, error)
    yield from isolated.run(tasks(packages, settings.require), on_start)


def tasks(packages: Sequence[str], required: Sequence[str]) -> list[Task]:
    """Return what is checked in another process, in this order."""
    from tfdetect.workflow.doctor import installation, media

    return [
        ("devices", ""),  # first, because what the libraries write when they are imported says why a GPU is not used
        *(("packages", name) for name in packages),
        *(("optional", name) for name in required if installation.is_present(name)),
        *(("plugins", key) for key in installation.list_plugins()),
        ("processes", "workers"),
        *(("images", name) for name in media.IMAGES),
        *(("videos", name) for name in media.VIDEOS),
        ("training", ""),
    ]
