"""Manifest -> cache, on all cores. Every row ends as cached or as failed, with its reason; nothing is dropped."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect.data.prepare.clip_cache import Cache, ClipSpec, failure_result
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.files import atomic_write, size_and_mtime
from tfdetect.limits import Limits

Progress = Callable[[dict[str, Any]], None]
Runner = Callable[[Iterable[str], Cache, int | None, float | None], Iterator[tuple[str, Any]]]
RESULT_FIELDS = ("sha", "frames", "width", "height", "note", "error")
INDEX_NAME = "files.index"
SAVE_EVERY = 30.0  # seconds


class ResultIndex:
    """What became of a path, by its size and time of change: a resumed run need not read again what it has seen.

    A failure is known for the seconds and limits that it was tried with; with others it is worth another try.
    A lost or damaged index is made anew. A file that is gone is known by what became of it: a prepared folder can be used
    where its originals are not at hand. Kept as text, `path TAB details` in JSON, which takes a quarter of the objects' memory.
    """

    def __init__(self, path: Path, seconds: float | None = None, limits: Limits | None = None):
        self.path, self.tried = path, [seconds or 0.0, *astuple(limits or Limits())]
        self.known: dict[str, str] = {}
        self.passing: dict[str, str] = {}  # of this run alone: what could not be opened is tried again next time
        self.saved = time.monotonic()
        with contextlib.suppress(FileNotFoundError, ValueError), open(path) as file:
            self.known = dict(line.rstrip("\n").split("\t", 1) for line in file if "\t" in line)  # type: ignore[misc]

    def find(self, path: str, cache: Cache) -> dict[str, Any] | None:
        """The result for a file that has not changed since, if its entry is still there."""
        try:
            then, tried, *details = json.loads(self.known[_key(path)])
            found = dict(zip(RESULT_FIELDS, details, strict=True))
        except (KeyError, ValueError):
            return None
        now = size_and_mtime(path)
        if now != [0, 0] and (now != then or (found["error"] and tried != self.tried)):
            return None
        return found if found["error"] or cache.whole(found["sha"], found["frames"]) else None

    def add(self, path: str, found: Mapping[str, Any], lost: bool) -> None:
        """`lost`: crashed or out of time."""
        lasting = self.known if lost or found["sha"] else self.passing
        tried = self.tried if found["error"] else None
        lasting[_key(path)] = json.dumps([size_and_mtime(path), tried, *(found[name] for name in RESULT_FIELDS)])
        if time.monotonic() > self.saved + SAVE_EVERY:
            self.save()

    def details(self, path: str) -> list[Any]:
        """The values of RESULT_FIELDS for a path that this run has seen."""
        key = _key(path)
        return list(json.loads(self.passing.get(key) or self.known[key])[2:])

    def save(self) -> None:
        """Sorted, so that equal work leaves equal bytes."""
        with atomic_write(self.path) as temporary, open(temporary, "w") as file:
            file.writelines(f"{key}\t{self.known[key]}\n" for key in sorted(self.known))
        self.saved = time.monotonic()


def _key(path: str) -> str:
    return json.dumps(os.path.abspath(path))


def decode_locally(paths: Iterable[str], cache: Cache, workers: int | None, seconds: float | None) -> Iterator[tuple[str, Any]]:
    """(path, result of `Cache.add` or Lost) of each file, by processes of this machine."""
    return map_unordered(paths, cache.add, workers, seconds)


def prepare(table: pd.DataFrame, cache: Cache, workers: int | None = None, progress: Progress | None = None,
            seconds: float | None = None, runner: Runner = decode_locally) -> pd.DataFrame:
    """Decode every file of the manifest that the cache lacks, each in at most `seconds`, by this machine or `beam.BeamRunner`.

    Returns the manifest with the columns sha, frames, width, height, note and error. `progress` is called with the result
    of each file. A file whose decoder crashes or hangs is a failure like any other. Raises OSError where the cache cannot
    be written.
    """
    index = ResultIndex(cache.folder / INDEX_NAME, seconds, cache.spec.limits)
    progress = progress or (lambda found: None)

    def lacking() -> Iterator[str]:
        for path in table["path"]:
            known = index.find(path, cache)
            if known is None:
                yield path
            else:
                progress(known)

    try:
        for path, result in runner(lacking(), cache, workers, seconds):
            lost = isinstance(result, WorkerFailure)
            found = failure_result("", result.reason) if isinstance(result, WorkerFailure) else result
            index.add(path, found, lost)
            progress(dict(found))
    finally:
        index.save()
    return add_results(table, index.details, cache.spec)


def add_results(table: pd.DataFrame, details: Callable[[str], Iterable[Any]], view: ClipSpec) -> pd.DataFrame:
    """The manifest with what became of each path, the values of RESULT_FIELDS, as a detector with this view sees it."""
    columns: dict[str, list[Any]] = {name: [] for name in RESULT_FIELDS}
    for path in table["path"]:
        for name, value in zip(RESULT_FIELDS, details(path), strict=True):
            columns[name].append(value)
    columns["note"] = [view.note(note, frames) for note, frames in zip(columns["note"], columns["frames"], strict=True)]
    columns["frames"] = [frames * view.repeats(frames) for frames in columns["frames"]]
    numbers = dict.fromkeys(("frames", "width", "height"), "int64")  # also where there is no row
    out = pd.concat([table, pd.DataFrame(columns, index=table.index).astype(numbers)], axis=1)
    out.attrs = table.attrs  # which pandas keeps only where both have the same
    return out


def usable_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a prepared manifest that hold a picture."""
    return table[table["error"] == ""].reset_index(drop=True)


def list_messages(table: pd.DataFrame, column: str) -> list[tuple[str, str]]:
    """(path, reason) of the rows whose `column`, "error" or "note", says something."""
    rows = table[table[column] != ""]
    return list(zip(rows["path"], rows[column], strict=True))


def summarise_failures(table: pd.DataFrame) -> list[tuple[str, int, str]]:
    """(reason, how many files, the first of them) of the failures, the most common first; numbers in reasons do not part them,
    and are left out where they differ."""
    failures = table[table["error"] != ""]
    kinds = failures["error"].str.replace(r"\d+(\.\d+)?|'.*'|\".*\"|b'.*'", "…", regex=True)
    found = []
    for kind, rows in failures.groupby(kinds, sort=False):
        reason = str(kind) if rows["error"].nunique() > 1 else str(rows["error"].iloc[0])
        found.append((reason, len(rows), str(rows["path"].iloc[0])))
    return sorted(found, key=lambda row: -row[1])
