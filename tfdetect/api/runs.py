"""runs: the runs in a folder with detector, data, result, date and size; those with given names, to be deleted."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tfdetect import artifact as artifacts
from tfdetect import config, files, installation, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError, suggestion

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = "embedded sample"
State = Literal["finished", "interrupted", "training", "outdated", "unreadable"]


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder and the folders in it, with the results on their test files."""

    folder: tyro.conf.Positional[Path] = Path("saved_models")
    """Folder of runs."""
    sort: Literal["date", "auc", "size", "name"] = "date"
    """Order: newest, best or largest first, or by name."""
    name: tuple[str, ...] = ()
    """Only runs with these names or shell patterns, such as "cnn*" or "study/*"."""
    detector: tuple[str, ...] = ()
    """Only runs of these detectors."""
    data: str = ""
    """Only runs whose data set has this text in its path, ignoring case; "sample" stands for the embedded sample."""
    min_auc: float | None = None
    """Only runs with at least this test AUC."""
    state: tuple[State, ...] = ()
    """Only runs in these states.
    finished: trained and evaluated.
    interrupted: begun and not finished; the same training command resumes it.
    training: being trained.
    outdated: made by an older version of tfdetect, which this one cannot use.
    unreadable: config.yaml is damaged, or from a newer version."""


def runs(folder: str | Path = "saved_models", **settings: Any) -> "pd.DataFrame":
    """Return a row per run in a folder, with the columns name, detector, data, auc, auc_low, auc_high, date, size, state,
    versions, note and path.

    The keywords are flags of the command `runs`, such as `sort="auc"` and `min_auc=0.9`. AUC is that of the test files, in 0..1,
    with its 95 % interval; NaN if there is none. `versions` lists the numbers of those that exist, the newest last; the
    other columns are about the newest. The date is when a run was finished, or else last changed; the size is in bytes
    on disk; the note says what is wrong with the run. Raises UserError for a setting that is not valid, and if there is no such
    folder.
    """
    return list_runs(config.parse_keywords(Runs(Path(folder)), settings, "runs"))


def list_runs(settings: Runs) -> "pd.DataFrame":
    """Return the runs that `settings` selects, sorted, with the columns of `runs`."""
    from tfdetect.pandas_settings import pd

    if not settings.folder.is_dir():
        raise UserError(f"There is no folder {settings.folder}: give the folder of your runs, by default saved_models, which "
                        "train makes.")  # fmt: skip
    rows = [describe(folder, settings.folder) for folder in artifacts.find_runs(settings.folder)]
    table = pd.DataFrame([row for row in rows if is_selected(row, settings)], columns=list(EMPTY))
    table = table.astype({"auc": float, "auc_low": float, "auc_high": float, "size": int, "date": "datetime64[s]"})
    table = table.sort_values("name", key=lambda names: names.map(natural_key), ignore_index=True)
    if settings.sort == "name":
        return table
    return table.sort_values(settings.sort, ascending=False, kind="stable", ignore_index=True)


def is_selected(row: Mapping[str, Any], settings: Runs) -> bool:
    """Return whether the filters let a row pass."""
    return (
        (not settings.name or any(row["name"] == name or fnmatchcase(row["name"], name) for name in settings.name))
        and (not settings.detector or row["detector"] in settings.detector)
        and settings.data.lower() in row["data"].lower()
        and (settings.min_auc is None or row["auc"] >= settings.min_auc)
        and (not settings.state or row["state"] in settings.state)
    )


def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """Return a key that sorts cnn-2 before cnn-10."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name))


EMPTY = {"name": "", "detector": "", "data": "", "auc": math.nan, "auc_low": math.nan, "auc_high": math.nan, "date": None,
         "size": 0, "state": "unreadable", "versions": "", "note": "", "path": ""}  # fmt: skip  # nothing is known


def describe(folder: Path, root: Path) -> dict[str, Any]:
    """Return the row of a run; a damaged one has its reason in `note`."""
    import pandas as pd

    artifact = Artifact(folder)
    name = folder.relative_to(root).as_posix() if folder != root else folder.absolute().name
    status = [status for _, status in files.walk(folder)]
    lengths = {(item.st_dev, item.st_ino): item.st_size for item in status}  # versions share files by hard links
    changed = max((item.st_mtime for item in status), default=0.0)
    row = EMPTY | {"path": str(folder), "name": name, "size": sum(files.disk_size(length) for length in lengths.values())}
    try:
        finished = artifact.report.stat().st_mtime if artifact.is_finished else None
        row["date"] = pd.Timestamp.fromtimestamp(int(finished or changed))
        row |= read_settings(config.load_yaml(artifact.config))
        row["versions"] = ", ".join(map(str, sorted({*versions.listed(folder), versions.number(folder)})))
        row |= {"state": "training", "note": ""} if artifacts.is_locked(artifact) else {}
        if not row["state"]:
            row["state"] = "interrupted" if finished is None else "finished"
        return row | (read_result(artifact) if finished is not None else {})
    except (OSError, UserError) as error:
        return row | {"note": str(error)}


def read_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return detector and data of a config.yaml of any version, and the state if this version of tfdetect cannot use the run."""
    data = content.get("data")
    path = data.get("path") if isinstance(data, Mapping) else None
    row = {"detector": str(content["detector"]["name"]), "data": str(path or SAMPLE), "state": ""}
    version = content.get("version", config.VERSION)
    if version == config.VERSION:
        return row
    older = isinstance(version, int) and version < config.VERSION
    return row | {"state": "outdated" if older else "unreadable", "note": f"config.yaml has version {version!r}; this tfdetect "
                  f"reads version {config.VERSION}"}  # fmt: skip


def read_result(artifact: Artifact) -> dict[str, Any]:
    """Return the test AUC with its interval; a note if metrics.json has none that can be read."""
    try:
        test = json.loads(artifact.metrics.read_bytes())["test"]
        low, high = test.get("auc_interval") or (math.nan, math.nan)
        numbers = {"auc": test.get("auc"), "auc_low": low, "auc_high": high}
        return {name: math.nan if value is None or not math.isfinite(value) else value for name, value in numbers.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        evaluate = installation.command("evaluate", artifact.folder)
        return {"note": f"metrics.json is missing or damaged; {evaluate} evaluates the run again"}


def select(table: "pd.DataFrame", names: Sequence[str]) -> "pd.DataFrame":
    """Return the rows whose name is one of `names` or matches a shell pattern among them. What is the name of a run, such as
    "cnn[v2]", is no pattern.

    Raises UserError for a name that no row has, with the nearest one.
    """
    chosen: set[str] = set()
    for pattern in names:
        literal = pattern.rstrip("/")
        found = {literal} & {*table["name"]} or {name for name in table["name"] if fnmatchcase(name, literal)}
        if not found:
            hint = suggestion(pattern, table["name"])
            raise UserError(f"No run listed is called {pattern!r}.{hint} The command without --delete lists them.")
        chosen |= found
    return table[table["name"].isin(chosen)].reset_index(drop=True)


def why_kept(path: str) -> str:
    """Return why a run must not be deleted: it is being trained, contains another run or is a link; "" if it may be."""
    try:
        with artifacts.lock_for_deletion(Artifact(Path(path))):
            return ""
    except BlockingIOError:
        return f"{path} is being trained."
    except (OSError, UserError) as error:
        return str(error)
