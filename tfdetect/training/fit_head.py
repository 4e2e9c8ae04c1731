"""Training on stored features: for detectors whose first part is frozen, so that it sees each file once, ever."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, FeatureFitContext, Phase
from tfdetect.errors import UserError
from tfdetect.settings import Train
from tfdetect.training import devices, fit
from tfdetect.training.callbacks import HEAD_FOLDER, Checkpoint, ExactValidationMetrics
from tfdetect.training.feature_extractor import FeatureExtractor, Progress, silent


def fit_head(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
          callbacks: list[keras.callbacks.Callback], progress: Progress = silent) -> fit.Fitted:
    """As `fit.fit`. ValueError where several devices are asked for."""
    if settings.strategy not in ("auto", "single"):
        raise UserError(f"{detector.name} learns from stored features on one device; --train.strategy {settings.strategy} is of "
                         "no use to it, expected auto or single.")  # fmt: skip
    devices.setup(settings.precision, settings.seed)
    rows, validation = fit.select_split(table, "train", detector), fit.select_split(table, "validation")
    model = fit.build(detector, cache)
    features = FeatureExtractor(model, detector, cache, progress)
    learnt, seen = features.of(rows, getattr(detector, "views", 1), settings.augment), features.of(validation)
    checkpoint = Checkpoint(checkpoints / HEAD_FOLDER, fit.monitored_metric(settings, validation), settings.patience)
    fit_by_gradient = gradient_fit(detector, settings, checkpoint, callbacks, dataset.expand_frames(validation, features.single))
    model = detector.fit_head(model, FeatureFitContext(learnt, seen, fit_by_gradient, settings.seed))
    return fit.save_result(model, checkpoint, target)


def gradient_fit(detector: Detector, settings: Train, checkpoint: Checkpoint,
            callbacks: list[keras.callbacks.Callback], validation: pd.DataFrame) -> Callable[..., None]:
    """`FeatureFitContext.fit_by_gradient`: a part of the model by gradients, with the run's settings; it goes on where it was cut off. `held`: the
    units of the validation files."""

    def fit_by_gradient(part, x, y, validation_x, validation_y, loss=None):
        if loss:
            checkpoint.monitor, checkpoint.sign = "val_loss", -1  # there is no score yet
        labels, steps = pd.DataFrame({"label": y}), max(1, len(y) // settings.batch)
        fit.compile_phase(part, detector, Phase(), settings, settings.epochs, steps, loss)
        checkpoint.restore(part)
        judged = [*range(settings.eval_every, settings.epochs, settings.eval_every), settings.epochs]
        own = validation_y == 0 if detector.trains_on == "real" else np.full(len(validation_y), True)
        judge = ExactValidationMetrics(checkpoint.folder, validation, validation_x, judged)
        if not checkpoint.done and checkpoint.epoch < settings.epochs:
            part.fit(
                dataset.feature_batches(x, labels, settings, checkpoint.epoch, settings.epochs),
                validation_data=(validation_x[own], validation_y[own, None].astype(np.float32)) if loss or part.loss is None else None,
                validation_batch_size=settings.batch,
                validation_freq=judged,
                initial_epoch=checkpoint.epoch,
                epochs=settings.epochs,
                steps_per_epoch=steps,
                callbacks=[*([] if loss else [judge]), checkpoint, *callbacks],
                shuffle=False,
                verbose=0,
            )
        checkpoint.restore_best(part)

    return fit_by_gradient
