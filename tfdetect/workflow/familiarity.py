"""What a run's training files are like: their vectors, computed of clips in the cache, and `evaluation.familiarity` of these."""

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdetect.artifact import Artifact
from tfdetect.data.audit.shortcuts import sample_groups
from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import usable_rows
from tfdetect.detector import Detector, FeatureTable
from tfdetect.evaluation import familiarity
from tfdetect.evaluation.familiarity import DEFAULT_LEVEL, Familiarity, Vectors
from tfdetect.files import atomic_write
from tfdetect.pandas_settings import pd
from tfdetect.workflow import scoring
from tfdetect.workflow.console import progress

if TYPE_CHECKING:
    import keras

    from tfdetect.serving.predictor import Predictor
    from tfdetect.training.feature_extractor import FeatureExtractor

FILES = 1000  # of training, and of validation, that are looked at, in whole groups
FRAMES = 2000  # of training files, or clips: more do not change the spaces


def fit(level: float | None, model: "keras.Model", detector: Detector, table: pd.DataFrame, cache: Cache,
        extractor: "FeatureExtractor | None" = None) -> Familiarity | None:  # fmt: skip
    """Return what the usable training files of a prepared table are like, with the validation files as those that are usual.

    Both hold files of all classes, whatever the detector trains on. `level` is --evaluate.unfamiliar; None if that is 0, or by
    default if there are too few validation files.
    """
    from tfdetect.models.vectors import content_layer

    good = usable_rows(table)
    if level == 0 or missing(level, good):
        return None
    parts = [sample_groups(good[good["split"] == split], FILES) for split in ("train", "validation")]
    layer, rows = content_layer(model, detector), pd.concat(parts, ignore_index=True)
    every = ceil(parts[0]["frames"].sum() / FRAMES) if detector.input_kind == "frame" else 1
    found, frames = vectors(model, detector, rows, cache, layer, extractor, every)
    is_training = (frames["split"] == "train").to_numpy()
    return familiarity.fit(layer, found[is_training], found[~is_training], level or DEFAULT_LEVEL)


def store(known: Familiarity | None, artifact: Artifact) -> None:
    """Write what is familiar into a run's folder, or remove what was known before."""
    artifact.familiarity.unlink(missing_ok=True)
    if known:
        with atomic_write(artifact.familiarity) as temporary:
            known.save(temporary)


def missing(level: float | None, files: pd.DataFrame) -> str:
    """Return a sentence if there are too few groups of validation files among these for the level, else ""."""
    groups = files.loc[files["split"] == "validation", "group"].nunique()
    return familiarity.missing_files(groups, DEFAULT_LEVEL if level is None else level) if level != 0 else ""


def vectors(model: "keras.Model", detector: Detector, table: pd.DataFrame, cache: Cache, layer: str,
            extractor: "FeatureExtractor | None" = None, every: int = 1) -> tuple[Vectors, pd.DataFrame]:  # fmt: skip
    """Return the vectors of the usable files of a prepared table and the row of the table for each: one for a clip, or for a
    frame detector one for a frame, of training files for one in so many frames. With `extractor`, stored features are the
    content."""
    from tfdetect.models.vectors import WithVectors

    rows = usable_rows(table)
    frames = expand_frames(rows, detector.input_kind == "frame")
    keep = ((frames["split"] != "train") | (np.arange(len(frames)) % every == 0)).to_numpy()
    frames = frames[keep].reset_index(drop=True)
    file = frames["path"] + "\0" + frames["group"] + "\0" + frames["source"]  # the path alone does not identify it
    names = {"files": file.to_numpy(), "groups": frames["group"].to_numpy()}
    if extractor:
        return Vectors(extractor.of(rows).features[keep], pixel_statistics(frames, detector, cache), **names), frames
    *_, content, processing = observe(WithVectors(model, layer), frames, detector, cache)
    return Vectors(content, processing, **names), frames


def pixel_statistics(frames: pd.DataFrame, detector: Detector, cache: Cache) -> np.ndarray:
    """Return the pixel statistics of the rows of `expand_frames`, (rows, m) float32."""
    import keras

    from tfdetect.models.layers.pixel_statistics import PixelStatistics

    size, count = cache.spec.size, 1 if detector.input_kind == "frame" else cache.spec.frames
    clips = keras.Input((count, size, size, 3), dtype="uint8")
    return observe(keras.Model(clips, PixelStatistics()(clips)), frames, detector, cache)[-1]


def observe(network: "keras.Model", frames: pd.DataFrame, detector: Detector, cache: Cache) -> list[np.ndarray]:
    """Return the outputs of a network for the rows of `expand_frames`, each (rows, n)."""
    parts: list[list[Any]] = []
    single = detector.input_kind == "frame"
    with progress("Looking at what is familiar", len(frames), "frames" if single else "files", may_fail=False) as step:
        for _, clips in scoring.batches(frames, cache, single):
            found = network.predict_on_batch(clips)
            parts.append(list(found) if isinstance(found, list | tuple) else [found])
            step(advance=len(clips))
    return [np.concatenate([np.asarray(part) for part in outputs]) for outputs in zip(*parts, strict=True)]


def score_features(predictor: "Predictor", features: FeatureTable, table: pd.DataFrame, detector: Detector,
                   cache: Cache) -> pd.DataFrame:  # fmt: skip
    """Return the predictions of the usable files of a table from their stored features, with the columns DISTANCES where the run
    knows what is familiar; these are missing for training files."""
    scored, known = scoring.score_features(predictor, features, table), predictor.familiarity
    if known is None:
        return scored
    rows = expand_frames(usable_rows(table), detector.input_kind == "frame")
    judged = (rows["split"] != "train").to_numpy()
    pixels = pixel_statistics(rows[judged].reset_index(drop=True), detector, cache)
    distances = np.full((len(rows), 2), np.nan)
    distances[judged] = np.column_stack([known.content.distances(features.features[judged]), known.processing.distances(pixels)])
    return scored.assign(**dict(zip(familiarity.DISTANCES, distances.T, strict=True)))


def notes(level: float | None, files: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence if, by default, there are too few validation files among these to know what is familiar."""
    reason = missing(level, files)
    return (f"No file is marked as unlike the training data: {reason}",) if reason else ()
