"""Decode the files of a manifest into the cache, on all cores. Every row ends up cached, or failed with a reason."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pandas as pd

from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.data.prepare.clip_cache import MAX_HEADER, Cache, ClipSpec, failure_result
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.files import BLOCK, atomic_write, disk_size, size_and_mtime
from tfdetect.limits import Limits

Progress = Callable[[dict[str, Any]], None]
Runner = Callable[[Iterable[str], Cache, int | None, float | None], Iterator[tuple[str, Any]]]
RESULT_FIELDS = ("sha", "frames", "width", "height", "note", "error")
INDEX_NAME = "files.index"
SAVE_EVERY = 30.0  # seconds
SAMPLED = 256  # files by which the size of the others is judged


class ResultIndex:
    """Results by path, file size and modification time, so that a resumed run need not read files again.

    A failure is valid for the timeout and limits under which it occurred; under others the file is tried again. A lost
    or damaged index is rebuilt. A file that no longer exists keeps its result, so a prepared folder works without its
    original files. Results are kept as text, `path TAB fields` in JSON, which takes a quarter of the memory of objects.
    """

    def __init__(self, path: Path, seconds: float | None = None, limits: Limits | None = None):
        self.path, self.settings = path, [seconds or 0.0, *astuple(limits or Limits())]
        self.lines: dict[str, str] = {}
        self.unsaved: dict[str, str] = {}  # files that could not be opened; the next run tries them again
        self.last_save = time.monotonic()
        with contextlib.suppress(FileNotFoundError, ValueError), open(path) as file:
            pairs = (line.rstrip("\n").partition("\t") for line in file if "\t" in line)
            self.lines = {key: values for key, _, values in pairs}

    def find(self, path: str, cache: Cache) -> dict[str, Any] | None:
        """Return the result of a file if the file is unchanged and its clip is still cached, else None."""
        try:
            saved_state, settings, *values = json.loads(self.lines[_key(path)])
            result = dict(zip(RESULT_FIELDS, values, strict=True))
        except (KeyError, ValueError):
            return None
        current_state = size_and_mtime(path)
        if current_state != [0, 0] and (current_state != saved_state or (result["error"] and settings != self.settings)):
            return None
        return result if result["error"] or cache.is_complete(result["sha"], result["frames"]) else None

    def add(self, path: str, result: Mapping[str, Any], crashed: bool) -> None:
        """Add a result; `crashed` means that the decoder crashed or timed out."""
        target = self.lines if crashed or result["sha"] else self.unsaved
        settings = self.settings if result["error"] else None
        target[_key(path)] = json.dumps([size_and_mtime(path), settings, *(result[name] for name in RESULT_FIELDS)])
        if time.monotonic() > self.last_save + SAVE_EVERY:
            self.save()

    def values(self, path: str) -> list[Any]:
        """Return the values of RESULT_FIELDS for a path that this run has processed."""
        key = _key(path)
        return list(json.loads(self.unsaved.get(key) or self.lines[key])[2:])

    def save(self) -> None:
        """Write the index, sorted, so that equal results give equal bytes."""
        with atomic_write(self.path) as temporary, open(temporary, "w") as file:
            file.writelines(f"{key}\t{self.lines[key]}\n" for key in sorted(self.lines))
        self.last_save = time.monotonic()


def _key(path: str) -> str:
    return json.dumps(os.path.abspath(path))


def decode_locally(paths: Iterable[str], cache: Cache, workers: int | None, seconds: float | None) -> Iterator[tuple[str, Any]]:
    """Yield (path, result of `Cache.decode_file` or WorkerFailure) of each file, decoded by local processes."""
    return map_unordered(paths, cache.decode_file, workers, seconds)


def prepare(table: pd.DataFrame, cache: Cache, workers: int | None = None, progress: Progress | None = None,
            seconds: float | None = None, runner: Runner = decode_locally) -> pd.DataFrame:  # fmt: skip
    """Decode every file of the manifest that the cache lacks, each within `seconds`, locally or with `beam.BeamRunner`.

    Returns the manifest with the columns sha, frames, width, height, note and error. `progress` is called with the result
    of each file. A file whose decoder crashes or hangs fails like any other. Raises OSError if the cache cannot be written.
    """
    index = ResultIndex(cache.folder / INDEX_NAME, seconds, cache.spec.limits)
    progress = progress or (lambda result: None)

    def missing_paths() -> Iterator[str]:
        for path in table["path"]:
            known = index.find(path, cache)
            if known is None:
                yield path
            else:
                progress(known)

    try:
        for path, outcome in runner(missing_paths(), cache, workers, seconds):
            crashed = isinstance(outcome, WorkerFailure)
            result = failure_result("", outcome.reason) if isinstance(outcome, WorkerFailure) else outcome
            index.add(path, result, crashed)
            progress(dict(result))
    finally:
        index.save()
    return add_results(table, index.values, cache.spec)


def estimate_size(table: pd.DataFrame, cache: Cache, seconds: float | None = None) -> int:
    """Return about how many bytes on disk the clips will take that the cache lacks, judged by at most SAMPLED of the files."""
    index = ResultIndex(cache.folder / INDEX_NAME, seconds, cache.spec.limits)
    paths = list(table["path"])[:: -(-len(table) // SAMPLED) or 1]
    sizes = [_expected_size(path, cache) for path in paths if index.find(path, cache) is None]
    return sum(sizes) * len(table) // max(len(paths), 1)


def _expected_size(path: str, cache: Cache) -> int:
    """Return about how many bytes on disk the clip of a file and its result take; a TFRecord of a video takes less, and so does a
    file whose frames are too small for all crops."""
    spec = cache.spec
    try:
        is_image = media_kind(path) == "image"
        if is_image and cache.kind == "tfrecord" and not (spec.faces or spec.plan):  # stored in encoded form
            return disk_size(os.path.getsize(path)) + BLOCK
    except (OSError, MediaError):
        return 0
    return disk_size((spec.fit.crops if is_image else spec.max_squares) * spec.size**2 * 3 + MAX_HEADER) + BLOCK


def size_on_disk(table: pd.DataFrame, cache: Cache) -> int:
    """Return the bytes on disk of the clips of a prepared manifest and their results."""
    hashes = set(table.loc[table["error"] == "", "sha"])
    return sum(disk_size(os.path.getsize(cache.clip_path(sha))) + BLOCK for sha in hashes)


def add_results(table: pd.DataFrame, values: Callable[[str], Iterable[Any]], spec: ClipSpec) -> pd.DataFrame:
    """Return the manifest with the columns RESULT_FIELDS, whose values for a path `values` returns.

    Frames and notes are those that a detector with this `spec` gets.
    """
    columns: dict[str, list[Any]] = {name: [] for name in RESULT_FIELDS}
    for path in table["path"]:
        for name, value in zip(RESULT_FIELDS, values(path), strict=True):
            columns[name].append(value)
    columns["note"] = [spec.extend_note(note, frames) for note, frames in zip(columns["note"], columns["frames"], strict=True)]
    columns["frames"] = [frames * spec.repeat_count(frames) for frames in columns["frames"]]
    dtypes = dict.fromkeys(("frames", "width", "height"), "int64")  # also if there are no rows
    joined = pd.concat([table, pd.DataFrame(columns, index=table.index).astype(dtypes)], axis=1)
    joined.attrs = table.attrs  # pandas keeps attrs only if both tables have the same
    return joined


def usable_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a prepared manifest whose files were decoded."""
    return table[table["error"] == ""].reset_index(drop=True)


def list_messages(table: pd.DataFrame, column: str) -> list[tuple[str, str]]:
    """Return (path, text) of the rows whose `column`, "error" or "note", is not empty."""
    rows = table[table[column] != ""]
    return list(zip(rows["path"], rows[column], strict=True))


def summarise_failures(table: pd.DataFrame) -> list[tuple[str, int, str]]:
    """Return (reason, number of files, first path) of the failures, the most frequent first.

    Reasons that differ only in numbers or quoted text are merged; "…" replaces what differs.
    """
    failures = table[table["error"] != ""]
    patterns = failures["error"].str.replace(r"\d+(\.\d+)?|'.*'|\".*\"|b'.*'", "…", regex=True)
    summary = []
    for pattern, rows in failures.groupby(patterns, sort=False):
        reason = str(pattern) if rows["error"].nunique() > 1 else str(rows["error"].iloc[0])
        summary.append((reason, len(rows), str(rows["path"].iloc[0])))
    return sorted(summary, key=lambda row: -row[1])
