"""Fit a head on stored features, for detectors whose first part is frozen: each file passes through it only once."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, FeatureFitContext, GradientFit, Phase
from tfdetect.errors import UserError
from tfdetect.machine import threads_for
from tfdetect.settings import Train
from tfdetect.training import devices, fit
from tfdetect.training.callbacks import HEAD_FOLDER, Checkpoint
from tfdetect.training.feature_extractor import FeatureExtractor, Progress, silent


def fit_head(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
             callbacks: list[keras.callbacks.Callback], progress: Progress = silent) -> fit.Fitted:
    """Train as `fit.fit` does. Raises UserError if several devices are asked for."""
    if settings.strategy not in ("auto", "single"):
        raise UserError(f"{detector.name} is fitted on one device, on stored features: give --train.strategy auto or single, not "
                        f"{settings.strategy}.")  # fmt: skip
    devices.setup(settings.precision, settings.seed)
    train, validation = fit.select_split(table, "train", detector), fit.select_split(table, "validation")
    model = fit.build(detector, cache)
    fit.require_reloadable(detector, model)
    extractor = FeatureExtractor(model, detector, cache, progress)
    train_features = extractor.of(train, detector.views, settings.augment)
    checkpoint = Checkpoint(checkpoints / HEAD_FOLDER, fit.monitored_metric(settings, validation), settings.patience)
    frames = dataset.expand_frames(validation, extractor.single)
    by_gradient = gradient_fit(detector, settings, checkpoint, callbacks, frames)
    context = FeatureFitContext(train_features, extractor.of(validation), by_gradient, settings.seed)
    with threads_for(train_features.features.size):
        trained = detector.fit_head(model, context)
    return fit.save_result(trained, checkpoint, target)


def gradient_fit(detector: Detector, settings: Train, checkpoint: Checkpoint, callbacks: list[keras.callbacks.Callback],
                 validation: pd.DataFrame) -> GradientFit:
    """Return what fits a part of the model by gradient descent with the run's settings, and resumes an interrupted fit.

    `validation` has a row for each row of the validation features.
    """

    def fit_by_gradient(model: keras.Model, x: np.ndarray, y: np.ndarray, validation_x: np.ndarray, validation_y: np.ndarray,
                        loss: keras.losses.Loss | None = None) -> None:
        if loss:
            checkpoint.monitor = "val_loss"  # its outputs are no scores
        labels, steps = pd.DataFrame({"label": y}), max(1, len(y) // settings.batch)
        fit.compile_phase(model, detector, Phase(), settings, settings.epochs, steps, loss)
        checkpoint.restore(model)
        rows = validation_y == 0 if detector.trains_on == "real" else np.full(len(validation_y), True)
        loss_data = (validation_x[rows], validation_y[rows, None].astype(np.float32)) if loss or model.loss is None else None
        if not checkpoint.done and checkpoint.epoch < settings.epochs:
            batches = dataset.feature_batches(x, labels, settings, checkpoint.epoch, settings.epochs)
            fit.run_epochs(model, batches, steps, settings.epochs, settings, checkpoint, callbacks, validation,
                           None if loss else validation_x, loss_data)  # fmt: skip
        checkpoint.restore_best(model)

    return fit_by_gradient
