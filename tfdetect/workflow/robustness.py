"""How verdicts hold when files are compressed, resized, blurred or sent through social media: `evaluate --robustness`.

Each file is decoded once and corrupted in every way of a grid, in parallel; the exported model scores the results. Scores are
stored as they come, so a sweep that was interrupted goes on where it was.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfdetect import files, plugins
from tfdetect.artifact import Artifact
from tfdetect.data.input_pipeline.corrupted_files import ClipMaker, FileCorruption
from tfdetect.data.media.sniff import media_kind
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.worker_pool import WorkerFailure, map_unordered
from tfdetect.errors import UserError
from tfdetect.evaluation import predictions, stability
from tfdetect.pages.robustness import Robustness
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data
from tfdetect.workflow import robustness_grids
from tfdetect.workflow.console import plural, progress
from tfdetect.workflow.robustness_grids import UNCHANGED
from tfdetect.workflow.scoring import COLUMNS

VERSION = 1  # of the corruptions; a higher one scores all files anew
BATCH_BYTES = 2**25  # of the clips that a worker returns at a time
NAME_UNCHANGED = "none"  # in tables
SCORES_NAME, TABLE_NAME, FLIPS_NAME = "robustness_scores.jsonl", "robustness.csv", "robustness_flips.csv"


@dataclass
class Scores:
    """The scores of corrupted files, kept in a file of JSON lines; those of another detector or other clips are passed over."""

    path: Path
    key: str
    """Names the model, and how a file becomes a clip."""
    known: dict[str, dict[str, list[Any]]] = field(default_factory=lambda: defaultdict(dict), init=False)
    """Corruption -> SHA-256 of a file -> score of each of its frames; with --data.faces all, a list of those for each face."""
    failed: dict[tuple[str, str], str] = field(default_factory=dict, init=False)
    """(SHA-256, corruption) -> why there is no clip; not kept, so that the next sweep tries again."""

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    key, sha, text, scores = json.loads(line)
                except ValueError:  # cut off in the middle
                    continue
                if key == self.key:
                    self.known[text][sys.intern(sha)] = scores  # or millions of lines would hold as many copies of it

    def add(self, scored: Sequence[tuple[str, str, list[Any]]]) -> None:
        """Keep (sha, corruption, scores) of files."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps([self.key, *row]) + "\n" for row in scored)
        with open(self.path, "a+b") as file:
            if file.tell() and _last_byte(file.name) != b"\n":  # of a line that was cut off
                lines = "\n" + lines
            file.write(lines.encode())
        for sha, text, scores in scored:
            self.known[text][sha] = scores

    def table(self, rows: pd.DataFrame, text: str) -> pd.DataFrame:
        """Return the columns of a predictions table without probabilities: a row for each frame of the files that have scores."""
        found = [np.array(self.known[text].get(sha, []), float) for sha in rows["sha"]]
        table = rows.loc[rows.index.repeat([scores.size for scores in found])].reset_index(drop=True)
        table["frame"] = [frame for scores in found for frame in np.indices(scores.shape)[-1].reshape(-1)]
        table = table[COLUMNS].assign(score=np.concatenate([scores.reshape(-1) for scores in found] or [np.zeros(0)]))
        if not any(scores.ndim == 2 for scores in found):
            return table
        return table.assign(face=[face for scores in found for face in np.indices(scores.shape)[0].reshape(-1)])


def _last_byte(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def model_key(artifact: Artifact, cache: Cache) -> str:
    """Return a digest of what decides a score: the weights, how a file becomes a clip, and the corruptions' version."""
    return hashlib.sha256(f"{VERSION} {files.sha256(artifact.model)} {cache.folder.name}".encode()).hexdigest()[:16]


def measure(words: Sequence[str], target: Artifact, artifact: Artifact, predictor: Predictor, table: pd.DataFrame, cache: Cache,
            data: Data) -> Robustness:  # fmt: skip
    """Score the usable files of a prepared table after each corruption of the grids and texts in `words`, by default those for
    their kind, and write the tables into `target`. Raises UserError if the files themselves are gone."""
    if gone := [path for path in table["path"] if not os.path.exists(path)]:
        raise UserError(f"--robustness needs the files themselves, not only their clips in the cache: {len(gone)} of "
                        f"{plural(len(table), 'file')} are gone. The first: {gone[0]}.")  # fmt: skip
    rows = table.assign(is_video=[media_kind(path) == "video" for path in table["path"]])
    texts = robustness_grids.select(words, not rows["is_video"].all(), bool(rows["is_video"].any()))
    scores = Scores(target.folder / SCORES_NAME, model_key(artifact, cache))
    score_missing([UNCHANGED, *texts], rows, scores, predictor, cache, data)
    if not any(sha in scores.known[UNCHANGED] for sha in rows["sha"]):
        raise UserError(f"No file could be read again for --robustness. The first reason: {next(iter(scores.failed.values()))}.")
    found = summarise(texts, rows, scores, predictor)
    for name, part in ((TABLE_NAME, flat(found.table)), (FLIPS_NAME, found.flips)):
        with files.atomic_write(target.folder / name) as temporary:
            part.to_csv(temporary, index=False, errors="surrogateescape")
    return found


def applicable(rows: pd.DataFrame, text: str) -> pd.DataFrame:
    """Return the rows whose files a corruption can be applied to: only videos can be encoded as videos."""
    return rows[rows["is_video"]] if robustness_grids.encodes_video(text) else rows


def score_missing(texts: Sequence[str], rows: pd.DataFrame, scores: Scores, predictor: Predictor, cache: Cache,
                  data: Data) -> None:  # fmt: skip
    """Score the files after each of the corruptions for which there is no score yet."""
    wanted = [(sha, text) for text in texts for sha in applicable(rows, text)["sha"].unique()]
    missing: dict[str, list[str]] = {}
    for sha, text in wanted:
        if sha not in scores.known[text]:
            missing.setdefault(sha, []).append(text)
    jobs = plan(rows.drop_duplicates("sha"), missing, cache)
    with progress("Corrupting and scoring", len(wanted)) as step, tempfile.TemporaryDirectory() as folder:
        step(advance=len(wanted) - sum(map(len, missing.values())))
        work = ClipMaker(cache.spec, Path(folder), tuple(plugins.loaded_files()))
        for group in batches(jobs, work, data, scores, predictor, step):
            scores.add(score_batch(group, predictor))
            step(advance=len(group))


def plan(rows: pd.DataFrame, missing: dict[str, list[str]], cache: Cache) -> Iterator[FileCorruption]:
    """Yield what the workers have to do: one item for a file, or several if its clips would take too much memory."""
    size = max(1, BATCH_BYTES // (cache.spec.max_squares * cache.spec.size**2 * 3))
    for row in rows[rows["sha"].isin(missing)].itertuples():
        texts = missing[row.sha]
        for start in range(0, len(texts), size):
            yield FileCorruption(row.path, row.sha, tuple(texts[start : start + size]), row.is_video, int(row.total_frames))


@dataclass(frozen=True)
class Corrupted:
    """A file after a corruption."""

    sha: str
    text: str
    frames: np.ndarray  # (frames, size, size, 3) uint8 RGB, as the detector gets them, of all faces in turn
    faces: int | None = None  # how many they are; None without --data.faces all


def batches(jobs: Iterator[FileCorruption], work: ClipMaker, data: Data, scores: Scores, predictor: Predictor,
            step: Callable[..., None]) -> Iterator[list[Corrupted]]:  # fmt: skip
    """Yield corrupted files in batches for the model; those of which there is no clip are noted in `scores`."""
    waiting: list[Corrupted] = []
    for job, results in map_unordered(jobs, work, data.workers, data.timeout):
        each = [results] * len(job.texts) if isinstance(results, WorkerFailure) else results
        for text, result in zip(job.texts, each, strict=True):
            if isinstance(result, WorkerFailure):
                scores.failed[job.sha, text] = result.reason
                step({"error": result.reason})
            else:
                waiting.append(Corrupted(job.sha, text, predictor.model_frames(result), len(result.faces) or None))
        while len(waiting) >= predictor.batch:
            yield waiting[: predictor.batch]
            waiting = waiting[predictor.batch :]
    if waiting:
        yield waiting


def score_batch(batch: Sequence[Corrupted], predictor: Predictor) -> list[tuple[str, str, list[Any]]]:
    """Return (sha, corruption, score of each frame, or of the clip; with --data.faces all, of each face) of corrupted files."""
    counts = [len(each.frames) if predictor.is_frame_detector else each.faces or 1 for each in batch]
    clips = np.concatenate([each.frames.reshape(count, -1, *each.frames.shape[1:])
                            for each, count in zip(batch, counts, strict=True)])  # fmt: skip
    starts = range(0, len(clips), predictor.batch)
    found = np.concatenate([predictor.predict_clips(clips[start : start + predictor.batch])[0] for start in starts])
    parts = np.split(found.astype(float), np.cumsum(counts)[:-1])
    return [(each.sha, each.text, (part.reshape(each.faces, -1) if each.faces else part).tolist())
            for each, part in zip(batch, parts, strict=True)]  # fmt: skip


def summarise(texts: Sequence[str], rows: pd.DataFrame, scores: Scores, predictor: Predictor) -> Robustness:
    """Return the table of all corruptions, the unchanged files first, and the list of all verdicts that changed."""
    curves = {UNCHANGED: (NAME_UNCHANGED, None), **robustness_grids.curves(texts)}
    found, flips = [], []
    for text, (curve, strength) in curves.items():
        those = applicable(rows, text)
        before, after = (with_probabilities(scores.table(those, key), predictor) for key in (UNCHANGED, text))
        summary, changed = stability.compare(before, after, predictor.threshold, predictor.calibration)
        failed = sum(sha not in scores.known[text] for sha in those["sha"])
        found.append({"corruption": text or NAME_UNCHANGED, "curve": curve, "strength": strength, **summary, "failed": failed})
        flips.append(changed.assign(corruption=text))
    return Robustness(pd.DataFrame(found), pd.concat(flips, ignore_index=True))


def with_probabilities(table: pd.DataFrame, predictor: Predictor) -> pd.DataFrame:
    """Return a predictions table with probabilities, and with how the scores of frames become those of files."""
    return predictions.add_probabilities(predictions.with_aggregate(table, predictor.aggregate), predictor.calibration)


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with two columns, _low and _high, for each interval."""
    out = table.copy()
    for name in [name for name in table if name.endswith("_interval")]:
        place, ends = out.columns.get_loc(name), [value or (None, None) for value in out.pop(name)]
        for k, end in enumerate(("low", "high")):
            out.insert(place + k, name.replace("interval", end), [pair[k] for pair in ends])
    return out


def describe(found: Robustness, target: Artifact) -> str:
    """Return the result for the terminal: a line, and where the tables are."""
    unchanged, changed = found.table.iloc[0], found.table.iloc[1:]
    auc = changed["auc"].dropna().astype(float)
    lowest = "" if auc.empty else (f"AUC {unchanged['auc']:.3f} as they are, lowest {auc.min():.3f} after "
                                   f"{changed.loc[auc.idxmin(), 'corruption']}; ")  # fmt: skip
    return f"robustness: {lowest}{found.headline}\nTables  {target.folder / TABLE_NAME}, {target.folder / FLIPS_NAME}"
