"""Score prepared files with the exported model, and find out how far cheap properties of the files alone would get."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.audit import shortcuts
from tfdetect.data.audit.properties import collect, to_table
from tfdetect.data.input_pipeline.corruptions import CorruptionChain
from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.made_fakes import SOURCE as SELF_BLENDED
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import expand_faces, usable_rows
from tfdetect.detector import FeatureTable
from tfdetect.evaluation import familiarity, metrics, predictions
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data
from tfdetect.workflow.console import progress

SHORTCUT_FILES = 1000  # largest number of files per split in which shortcuts are looked for
PIXELS_PER_CALL = 2**26  # of the frames that are scored in one call; bounds the memory
COLUMNS = ["path", "label", "group", "source", "split", "frame"]


def score(predictor: Predictor, table: pd.DataFrame, cache: Cache, chain: CorruptionChain | None = None) -> pd.DataFrame:
    """Return the predictions table of the usable rows: one row per file, or per frame for a frame detector.

    `chain` corrupts the clips before they are scored.
    """
    total = len(expand_frames(usable_rows(table), predictor.is_frame_detector))
    with progress("Scoring", total, "frames" if predictor.is_frame_detector else "files") as step:
        return score_with(predictor, table, cache, chain, step)


def score_with(predictor: Predictor, table: pd.DataFrame, cache: Cache, chain: CorruptionChain | None,
               step: Callable[..., None]) -> pd.DataFrame:  # fmt: skip
    """Return the same; `step` is called with `advance=` clips scored."""
    rows = expand_frames(usable_rows(table), predictor.is_frame_detector)
    names = [f"{metrics.SOURCE_PREFIX}{name}" for name in predictor.classes]
    names += familiarity.DISTANCES if predictor.familiarity else ()
    scores = np.full((len(rows), 1 + len(names)), np.nan)
    corrupt = chain.compiled() if chain else None
    for start, clips in batches(rows, cache, predictor.is_frame_detector):
        if corrupt:
            clips = corrupt(clips, np.zeros((len(clips), 1), np.float32), np.array([0, start], np.int32))[0].numpy()
        found = predictor.outputs(clips)
        columns = [found[name] for name in ("score", "source", *familiarity.DISTANCES) if name in found]
        scores[start : start + len(clips)] = np.column_stack(columns)
        step(advance=len(clips))
    out = rows[columns_of(rows)].copy()
    out[["score", *names]] = scores
    out = predictions.add_probabilities(predictions.with_aggregate(out, predictor.aggregate), predictor.calibration)
    if predictor.classes:
        out[predictions.SOURCE_CLASS] = [predictor.classes[number] if number >= 0 else "" for number in rows["source_class"]]
    return out


def score_features(predictor: Predictor, features: FeatureTable, table: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions table of the usable rows from their stored features, which have one row per frame."""
    rows = expand_frames(usable_rows(table), predictor.is_frame_detector)
    scores = [predictor.predict_features(features.features[start : start + 1024])[0] for start in range(0, len(rows), 1024)]
    out = predictions.with_aggregate(rows[columns_of(rows)].assign(score=np.float64(np.concatenate(scores))), predictor.aggregate)
    return predictions.add_probabilities(out, predictor.calibration)


def columns_of(rows: pd.DataFrame) -> list[str]:
    """Return the columns of rows of `expand_frames` that a predictions table takes over."""
    return [*COLUMNS, *(name for name in predictions.FACE_COLUMNS if name in rows)]


def batches(rows: pd.DataFrame, cache: Cache, single: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, uint8 clips (batch, frames, size, size, 3)) over all rows of `expand_frames`."""
    pixels = cache.spec.size**2 * (1 if single else cache.spec.frames)
    batch, reader = int(np.clip(PIXELS_PER_CALL // (3 * pixels), 1, 64)), cache.reader(rows["sha"])
    for start in range(0, len(rows), batch):
        chunk = rows.iloc[start : start + batch]
        loaded = {sha: reader.load(sha) for sha in set(chunk["sha"])}  # once, though a record is decoded for every frame and crop
        clips = [loaded[sha] for sha in chunk["sha"]]
        if single:
            clips = [clip[frame : frame + 1] for clip, frame in zip(clips, chunk["frame"], strict=True)]
        yield start, np.stack(clips)


def clip_loader(table: pd.DataFrame, cache: Cache) -> Callable[..., np.ndarray]:
    """Return a function from the path of a usable file of a prepared table, and with all faces the number of one, by default the
    largest, to its uint8 clip (frames, size, size, 3)."""
    rows = expand_faces(usable_rows(table))
    faces = rows["face"] if "face" in rows else [0] * len(rows)
    shas, reader = dict(zip(zip(rows["path"], faces, strict=True), rows["sha"], strict=True)), cache.reader(rows["sha"])
    return lambda path, face=0: reader.load(shas[path, face])


def find_shortcuts(table: pd.DataFrame, data: Data, cache: Cache | None = None) -> shortcuts.Shortcuts:
    """Measure how well cheap properties of the files predict the labels of the test split.

    The classifiers are fitted on the training files, or across folds of the test files if there are none. Only a sample of the
    files is looked at; those whose properties the cache does not have are read, and the result is empty if most of them are
    unavailable or unreadable. Fakes that the run made itself are left out: as files, all of them differ from the reals.
    """
    table = table[table["source"] != SELF_BLENDED]
    if table["label"].nunique() < 2:
        return shortcuts.Shortcuts({}, [])
    parts = {name: shortcuts.sample_groups(rows, SHORTCUT_FILES) for name, rows in usable_rows(table).groupby("split")}
    files = pd.concat([parts[name] for name in ("train", "test") if name in parts], ignore_index=True)
    properties = collect_properties(files, data, cache)
    readable = (properties["error"] == "").to_numpy()
    if readable.mean() < 0.5:
        return shortcuts.Shortcuts({}, [])
    files, properties = files[readable].reset_index(drop=True), properties[readable].reset_index(drop=True)
    train, test = (np.flatnonzero(files["split"] == name) for name in ("train", "test"))
    both_classes = all(files["label"].iloc[rows].nunique() == 2 for rows in (train, test))
    return shortcuts.find_shortcuts(files, properties, [(train, test)] if both_classes else None)


def collect_properties(files: pd.DataFrame, data: Data, cache: Cache | None) -> pd.DataFrame:
    """Return the properties of prepared files, from the cache or else by reading them; a file that is gone has an error."""
    known = cache.facts(files["sha"]) if cache else [None] * len(files)
    missing = files[[found is None for found in known]]
    there = missing[list(map(os.path.exists, missing["path"]))]
    rows: list[dict[str, Any]] = [
        {**found, "extension": os.path.splitext(path)[1].lower(), "error": ""} if found  # a copy may have another name
        else {"error": "the file does not exist"} for path, found in zip(files["path"], known, strict=True)
    ]  # fmt: skip
    if len(there):
        with progress("Looking for shortcuts", len(there)) as step:
            measured = collect(there, data.workers, step, data.timeout, data.limits, decoding=data.decoding)
        for number, row in zip(there.index, measured.to_dict("records"), strict=True):
            rows[number] = row
    return to_table(rows, files.index)
