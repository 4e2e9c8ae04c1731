"""The training files that look most alike to a detector as the test files it is most confidently wrong about."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.prepare.clip_cache import FACES, Cache
from tfdetect.detector import ReportContext
from tfdetect.evaluation import predictions
from tfdetect.files import plural
from tfdetect.machine import threads_for
from tfdetect.models.layers import common
from tfdetect.pages.learnt import Mistake, Picture
from tfdetect.workflow.console import progress
from tfdetect.workflow.scoring import batches

MISTAKES, NEIGHBOURS = 6, 3
THUMBNAIL = 16  # pixels; side of the pictures that are compared where a model has no layer `features`
PER_FILE = ["path", "label", "source"]


def most_wrong(context: ReportContext, cache: Cache, single: bool, sample: pd.DataFrame) -> tuple[list[Mistake], str]:
    """Return the most confidently wrong test files with their nearest neighbours among the sampled training files, and a sentence
    that says what was compared. `single` frames are compared, the middle one of each file, or else whole clips."""
    test = context.predictions[context.predictions["split"] == "test"]
    wrong = predictions.worst_mistakes(test, context.threshold, MISTAKES)
    wrong = wrong.iloc[np.argsort(-np.abs(wrong["probability"] - wrong["label"]), kind="stable")[:MISTAKES]]
    if wrong.empty:
        return [], "No test file is misjudged."
    files = context.files.set_index("path", drop=False)
    train, tested = sample, files.loc[wrong["path"]]
    vectors, name = embed(context, cache, single, pd.concat([train, tested], ignore_index=True))
    nearest = nearest_rows(vectors[: len(train)], vectors[len(train) :])

    def picture(row: Any) -> Picture:
        clip = context.load_clip(row.path)
        return Picture(row.path, row.label, row.source, np.array(clip[len(clip) // 2]))

    rows, mistaken = list(train[PER_FILE].itertuples()), tested[PER_FILE].itertuples()
    mistakes = [Mistake(picture(row), probability, [picture(rows[place]) for place in places])
                for row, probability, places in zip(mistaken, wrong["probability"], nearest, strict=True)]  # fmt: skip
    return mistakes, f"Compared were {plural(len(train), 'training file')}, by {name}."


def nearest_rows(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the rows of `train` (n, dimensions) nearest to each row of `test`, (m, NEIGHBOURS), by the cosine distance of their
    differences from the mean of `train`."""
    from sklearn.neighbors import NearestNeighbors

    mean = train.mean(axis=0)
    with threads_for(train.size):
        search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train)), metric="cosine").fit(train - mean)
        return search.kneighbors(test - mean, return_distance=False)


def embed(context: ReportContext, cache: Cache, single: bool, files: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return a vector for each file, (files, n) float32, and what it is: stored features, those of the layer `features`, or the
    pixels of a thumbnail for a model without such a layer."""
    if context.features is not None:
        return stored(context, files), "the features that its head is trained on"
    rows = expand_frames(files.drop(columns=FACES, errors="ignore"), single)  # the largest face of each file
    if single:  # the middle frame of each file
        rows = rows[rows["frame"] == rows["frames"] // 2].reset_index(drop=True)
    if any(layer.name == "features" for layer in context.model.layers):
        function, name = common.submodel_until(context.model, "features").predict_on_batch, "the model's layer 'features'"
    else:
        function, name = thumbnails, "the pixels of a thumbnail, since the model has no layer 'features'"
    return compute(function, rows, cache, single), name


def compute(function: Callable[[np.ndarray], Any], rows: pd.DataFrame, cache: Cache, single: bool) -> np.ndarray:
    """Return the function's outputs (rows, n) for uint8 clips (batch, frames, size, size, 3)."""
    out = []
    with progress("Finding the nearest training files", len(rows)) as step:
        for _, clips in batches(rows, cache, single):
            out.append(np.asarray(function(clips), np.float32).reshape(len(clips), -1))
            step(advance=len(clips))
    return np.concatenate(out)


def stored(context: ReportContext, files: pd.DataFrame) -> np.ndarray:
    """Return the mean of the stored features of each file's frames, (files, n)."""
    assert context.features is not None
    means = pd.DataFrame(context.features.features).groupby(np.array(context.features.paths, object)).mean()
    return means.loc[files["path"]].to_numpy()


def thumbnails(clips: np.ndarray) -> np.ndarray:
    """Return the middle frames of clips (batch, frames, height, width, 3), each as THUMBNAIL x THUMBNAIL pixels in a row."""
    import cv2

    frames, size = clips[:, clips.shape[1] // 2], (THUMBNAIL, THUMBNAIL)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA).ravel() for frame in frames])
