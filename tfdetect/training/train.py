"""Train a detector the way its contract says: end to end, or a head on stored features."""

from pathlib import Path

import keras
import pandas as pd

from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector
from tfdetect.settings import Train
from tfdetect.training.feature_extractor import Progress
from tfdetect.training.fit import Fitted, fit
from tfdetect.training.fit_head import fit_head


def train(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
          callbacks: list[keras.callbacks.Callback], progress: Progress, start: Path | None = None) -> Fitted:
    """Train as `fit.fit` does; `progress` shows how features are computed."""
    if detector.caches_features:
        return fit_head(detector, table, cache, settings, checkpoints, target, callbacks, progress)
    return fit(detector, table, cache, settings, checkpoints, target, callbacks, start)
