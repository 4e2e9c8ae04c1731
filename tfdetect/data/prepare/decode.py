"""Decode the files of a manifest into the cache, on all cores. Every row ends up cached, or failed with a reason."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import pandas as pd

from tfdetect import stages
from tfdetect.data.media.read import digest
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.data.prepare import clip_index, shards
from tfdetect.data.prepare.clip_cache import CLIP_FIELDS, FACES, Cache, ClipSpec, Decoded, clip_result, failure_result
from tfdetect.data.prepare.clip_index import ClipIndex
from tfdetect.data.worker_pool import WorkerFailure, map_ordered, map_unordered
from tfdetect.files import size_and_mtime
from tfdetect.machine import available_cores

Progress = Callable[[dict[str, Any]], None]
Runner = Callable[[Iterable[str], Cache, int | None, float | None], Iterator[tuple[str, Any]]]
RESULT_FIELDS = ("sha", *CLIP_FIELDS, "error")
SAMPLED, TIMED = 256, 32  # files by which the size and the time of the others are judged
BUFFER_BYTES = 2**28  # of clips that wait for one before them


class Results:
    """The results of files in a cache, by path, so that a resumed run need not read files again.

    A result is valid as long as the file's size and modification time do not change; a failure, also only for the timeout and
    limits under which it occurred. A file that no longer exists keeps its result, so a prepared folder works without its original
    files.
    """

    def __init__(self, cache: Cache, connection: sqlite3.Connection, seconds: float | None = None):
        self.cache, self.connection = cache, connection
        self.settings = json.dumps([seconds or 0.0, *astuple(cache.spec.limits)])
        self.unsaved: dict[str, dict[str, Any]] = {}  # of files that could not be opened; the next run tries them again

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the result of a file if it is valid and its clip is still cached, else None."""
        if (found := clip_index.find_file(self.connection, path)) is None:
            return None
        state = size_and_mtime(path)
        if state != [0, 0] and (state != found.state or (found.error and found.settings != self.settings)):
            return None
        return _as_result(found) if found.error else self.cache.find_result(self.connection, found.sha) if found.clip else None

    def add(self, path: str, outcome: Decoded | WorkerFailure, writer: shards.ClipWriter) -> dict[str, Any]:
        """Save what became of a file, and return its result; a WorkerFailure means that the decoder crashed or timed out."""
        crashed = isinstance(outcome, WorkerFailure)
        result = failure_result("", outcome.reason) if isinstance(outcome, WorkerFailure) else outcome.result
        sha, error = result["sha"], result["error"]
        if not isinstance(outcome, WorkerFailure) and outcome.payload is not None:
            clip = {name: result[name] for name in CLIP_FIELDS}
            if FACES in result:
                writer.add_faces(sha, outcome.payload, clip, outcome.facts, result[FACES])
            else:
                writer.add_clip(sha, outcome.payload, clip, outcome.facts)
        if sha or crashed:
            writer.add_file(path, (*size_and_mtime(path), sha, error, self.settings if error else ""))
        else:
            self.unsaved[path] = result
        return result

    def values(self, path: str) -> list[Any]:
        """Return the values of RESULT_FIELDS for a path that this run has processed, once they are saved."""
        if (result := self.unsaved.get(path)) is None:
            found = clip_index.find_file(self.connection, path)
            assert found is not None
            result = _as_result(found)
        return [result[name] for name in RESULT_FIELDS]


    def faces(self, sha: str) -> str:
        """Return FACES of a file with this hash, which is "" if it failed."""
        return clip_index.find_faces(self.connection, sha) if sha else ""


def _as_result(found: clip_index.FileResult) -> dict[str, Any]:
    return clip_result(found.sha, found.clip) if found.clip and not found.error else failure_result(found.sha, found.error)


@contextmanager
def known_digests(cache: Cache) -> Iterator[Callable[[str], str]]:
    """Yield `read.digest`, which does not read files that the cache has seen and that have not changed since."""
    with ClipIndex(cache.folder).open() as connection:

        def find_digest(path: str) -> str:
            found = clip_index.find_file(connection, path)
            return found.sha if found and found.sha and found.state == size_and_mtime(path) else digest(path)

        yield find_digest


def decode_locally(paths: Iterable[str], cache: Cache, workers: int | None, seconds: float | None) -> Iterator[tuple[str, Any]]:
    """Yield (path, result of `Cache.decode_file` or WorkerFailure) of each file in turn, decoded by local processes."""
    ahead = BUFFER_BYTES // (cache.spec.max_squares * cache.spec.size**2 * 3)
    return map_ordered(paths, cache.decode_file, workers, seconds, ahead)


def prepare(table: pd.DataFrame, cache: Cache, workers: int | None = None, progress: Progress | None = None,
            seconds: float | None = None, runner: Runner = decode_locally) -> pd.DataFrame:  # fmt: skip
    """Decode every file of the manifest that the cache lacks, each within `seconds`, locally or with `beam.BeamRunner`.

    Returns the manifest with the columns RESULT_FIELDS and, with all faces, FACES. `progress` is called with the result of each
    file. A file whose decoder crashes or hangs fails like any other. Raises OSError if the cache cannot be written.
    """
    progress = progress or (lambda result: None)
    with cache.writer() as writer:
        results = Results(cache, writer.connection, seconds)

        def missing_paths() -> Iterator[str]:
            for path in table["path"]:
                known = results.find(path)
                if known is None:
                    yield path
                else:
                    progress(known)

        for path, outcome in stages.waiting(runner(missing_paths(), cache, workers, seconds)):
            progress(results.add(path, outcome, writer))
        writer.save()
        out = add_results(table, results.values, cache.spec)
        if cache.spec.all_faces:
            out[FACES] = list(map(results.faces, out["sha"].where(out["error"] == "", "")))
        return out


@dataclass(frozen=True)
class Estimate:
    """What it will take to decode the files that a cache lacks."""

    files: int
    bytes: int
    shards: int
    seconds: float
    """With all processes, judged by at most TIMED files."""


def estimate(table: pd.DataFrame, cache: Cache, workers: int | None = None, seconds: float | None = None) -> Estimate:
    """Decode a few of the files that the cache lacks, without storing anything, and judge the others by them."""
    with ClipIndex(cache.folder).open() as connection:
        results = Results(cache, connection, seconds)
        missing = [path for path in table["path"] if results.find(path) is None]
    sample = missing[:: -(-len(missing) // TIMED) or 1]
    timed = [result for _, result in map_unordered(sample, _TimedDecode(cache), workers, seconds)]
    durations = [found if isinstance(found, float) else seconds or 0.0 for found in timed]  # a hang takes all its time
    total, size = sum(durations) / max(len(sample), 1) * len(missing), estimate_size(table, cache, seconds)
    return Estimate(len(missing), size, -(-size // shards.SHARD_BYTES), total / (workers or available_cores()))


@dataclass(frozen=True)
class _TimedDecode:
    """Return how many seconds it takes to decode a file."""

    cache: Cache

    def __call__(self, path: str) -> float:
        start = time.monotonic()
        self.cache.decode_file(path)
        return time.monotonic() - start


def estimate_size(table: pd.DataFrame, cache: Cache, seconds: float | None = None) -> int:
    """Return about how many bytes the clips will take that the cache lacks, judged by at most SAMPLED of the files."""
    paths = list(table["path"])[:: -(-len(table) // SAMPLED) or 1]
    with ClipIndex(cache.folder).open() as connection:
        results = Results(cache, connection, seconds)
        sizes = [_expected_size(path, cache) for path in paths if results.find(path) is None]
    return sum(sizes) * len(table) // max(len(paths), 1)


def _expected_size(path: str, cache: Cache) -> int:
    """Return about how many bytes the clip of a file takes; a TFRecord of a video takes less, and so does a file whose frames are
    too small for all crops."""
    spec = cache.spec
    try:
        is_image = media_kind(path) == "image"
        if is_image and cache.kind == "tfrecord" and not (spec.faces or spec.plan):  # stored in encoded form
            return os.path.getsize(path)
    except (OSError, MediaError):
        return 0
    return (spec.fit.crops if is_image else spec.squares) * spec.size**2 * 3


def size_on_disk(table: pd.DataFrame, cache: Cache) -> int:
    """Return the bytes that the clips of a prepared manifest take."""
    return int(cache.reader(expand_faces(usable_rows(table))["sha"]).places[:, 2].sum())


def add_results(table: pd.DataFrame, values: Callable[[str], Iterable[Any]], spec: ClipSpec) -> pd.DataFrame:
    """Return the manifest with the columns RESULT_FIELDS, whose values for a path `values` returns.

    Frames and notes are those that a detector with this `spec` gets.
    """
    columns: dict[str, list[Any]] = {name: [] for name in RESULT_FIELDS}
    for path in table["path"]:
        for name, value in zip(RESULT_FIELDS, values(path), strict=True):
            columns[name].append(value)
    columns |= {FACES: [""] * len(table)} if spec.all_faces else {}
    columns["note"] = [spec.extend_note(note, frames) for note, frames in zip(columns["note"], columns["frames"], strict=True)]
    columns["frames"] = [frames * spec.repeat_count(frames) for frames in columns["frames"]]
    dtypes = dict.fromkeys(set(CLIP_FIELDS) - {"note"}, "int64")  # also if there are no rows
    joined = pd.concat([table, pd.DataFrame(columns, index=table.index).astype(dtypes)], axis=1)
    joined.attrs = table.attrs  # pandas keeps attrs only if both tables have the same
    return joined


def usable_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a prepared manifest whose files were decoded."""
    return table[table["error"] == ""].reset_index(drop=True)


def expand_faces(rows: pd.DataFrame) -> pd.DataFrame:
    """Return usable rows as one row for each face of a file, with `face`, its number from 0, the largest first; `box`, its left,
    top, width and height in pixels; `box_frame`, the frame of the file in which it is there; and, in `sha`, the key of its clip.

    Rows without the column FACES are returned as they are.
    """
    if FACES not in rows:
        return rows
    faces = [json.loads(text) for text in rows[FACES]]
    counts = list(map(len, faces))
    out = rows.drop(columns=FACES).loc[rows.index.repeat(counts)].reset_index(drop=True)
    out["face"] = [number for count in counts for number in range(count)]
    out["box"] = [",".join(map(str, face[:4])) for each in faces for face in each]
    out["box_frame"] = [face[4] for each in faces for face in each]
    out["sha"] = [clip_index.clip_of_face(sha, number) for sha, number in zip(out["sha"], out["face"], strict=True)]
    return out


def main_faces(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the table in which the files of a split have only their first face; unchanged without the column FACES."""
    if FACES not in table:
        return table
    chosen = (table["split"] == split) & (table[FACES] != "")
    first = table[FACES].where(~chosen, table[FACES].map(lambda text: json.dumps(json.loads(text)[:1]) if text else ""))
    out = table.assign(**{FACES: first})
    out.attrs = table.attrs
    return out


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
