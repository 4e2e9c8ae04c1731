"""Scores of prepared files by the exported model, and how far cheap properties of the files alone get."""

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tfdetect.data.audit import shortcuts
from tfdetect.data.audit.properties import collect
from tfdetect.data.input_pipeline.corruptions import Chain
from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import usable
from tfdetect.evaluation import metrics, predictions
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Data
from tfdetect.workflow.console import progress

SHORTCUT_FILES = 1000  # files of a split that shortcuts are looked for in
PIXELS_PER_CALL = 2**26  # of the frames that are scored in one call, which bounds the memory


def score(predictor: Predictor, table: pd.DataFrame, cache: Cache, chain: Chain | None = None) -> pd.DataFrame:
    """The predictions table of the usable rows, one row a file, or for a frame detector one a frame; `chain` corrupts them."""
    rows = expand_frames(usable(table), predictor.single)
    names = [f"{metrics.SOURCE_PREFIX}{name}" for name in predictor.classes]
    scores = np.full((len(rows), 1 + len(names)), np.nan)
    with progress("Judging", len(rows), "frames" if predictor.single else "files") as step:
        for start, clips in batches(rows, cache, predictor.single):
            clips = chain(clips, np.zeros((len(clips), 1), np.float32), (0, start))[0].numpy() if chain else clips
            score, _, *source = predictor.judge(clips)
            scores[start : start + len(clips)] = np.column_stack([score, *source])
            step(advance=len(clips))
    out = rows[["path", "label", "group", "source", "split", "frame"]].copy()
    out[["score", *names]] = scores
    out = predictions.add_probabilities(out, predictor.calibration)
    if names:
        out["source_class"] = [predictor.classes[number] if number >= 0 else "" for number in rows["source_class"]]
    return out


def batches(rows: pd.DataFrame, cache: Cache, single: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, uint8 clips (batch, frames, size, size, 3)) over all rows of `units`."""
    pixels = cache.spec.size**2 * (1 if single else cache.spec.frames)
    batch = int(np.clip(PIXELS_PER_CALL // (3 * pixels), 1, 64))
    for start in range(0, len(rows), batch):
        part = rows.iloc[start : start + batch]
        clips = [cache.load(sha) for sha in part["sha"]]
        if single:
            clips = [clip[frame : frame + 1] for clip, frame in zip(clips, part["frame"], strict=True)]
        yield start, np.stack(clips)


def find_shortcuts(table: pd.DataFrame, data: Data) -> shortcuts.Shortcuts:
    """How well cheap properties of the files tell the test's labels, learnt from the training files, or across folds where
    there are none. Of a sample of the files; of none where most of them are not at hand."""
    parts = {name: shortcuts.sample(rows, SHORTCUT_FILES) for name, rows in usable(table).groupby("split")}
    drawn = pd.concat([parts[name] for name in ("train", "test") if name in parts], ignore_index=True)
    files = drawn[list(map(os.path.exists, drawn["path"]))].reset_index(drop=True)
    if len(files) < len(drawn) / 2:
        return shortcuts.Shortcuts({}, [])
    with progress("Looking for shortcuts", len(files)) as step:
        found = collect(files, data.workers, step, data.timeout, data.limits)
    good = (found["error"] == "").to_numpy()
    if good.mean() < 0.5:
        return shortcuts.Shortcuts({}, [])
    files, found = files[good].reset_index(drop=True), found[good].reset_index(drop=True)
    learnt, told = (np.flatnonzero(files["split"] == name) for name in ("train", "test"))
    whole = all(files["label"].iloc[part].nunique() == 2 for part in (learnt, told))
    return shortcuts.find(files, found, [(learnt, told)] if whole else None)
