"""Training on stored features: for detectors whose first part is frozen, so that it sees each file once, ever."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfdetect.config import Train
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, Lesson, Phase
from tfdetect.errors import UserError
from tfdetect.training import devices, fit
from tfdetect.training.callbacks import HEAD, Checkpoint, Judge
from tfdetect.training.feature_extractor import Features, Progress, silent


def teach(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
          callbacks: list[keras.callbacks.Callback], progress: Progress = silent) -> fit.Fitted:
    """As `fit.fit`. ValueError where several devices are asked for."""
    if settings.strategy not in ("auto", "single"):
        raise UserError(f"{detector.name} learns from stored features on one device; --train.strategy {settings.strategy} is of "
                         "no use to it, expected auto or single.")  # fmt: skip
    devices.setup(settings.precision, settings.seed)
    rows, held = fit.part(table, "train", detector), fit.part(table, "validation")
    model = fit.build(detector, cache)
    features = Features(model, detector, cache, progress)
    learnt, seen = features.of(rows, getattr(detector, "views", 1), settings.augment), features.of(held)
    checkpoint = Checkpoint(checkpoints / HEAD, fit.monitored(settings, held), settings.patience)
    descend = descent(detector, settings, checkpoint, callbacks, dataset.units(held, features.single))
    model = detector.learn(model, Lesson(learnt, seen, descend, settings.seed))
    return fit.kept(model, checkpoint, target)


def descent(detector: Detector, settings: Train, checkpoint: Checkpoint,
            callbacks: list[keras.callbacks.Callback], held: pd.DataFrame) -> Callable[..., None]:
    """`Lesson.descend`: a part of the model by gradients, with the run's settings; it goes on where it was cut off. `held`: the
    units of the validation files."""

    def descend(part, x, y, held_x, held_y, loss=None):
        if loss:
            checkpoint.monitor, checkpoint.sign = "val_loss", -1  # there is no score yet
        labels, steps = pd.DataFrame({"label": y}), max(1, len(y) // settings.batch)
        fit.prepare(part, detector, Phase(), settings, settings.epochs, steps, loss)
        checkpoint.restore(part)
        judged = [*range(settings.every, settings.epochs, settings.every), settings.epochs]
        own = held_y == 0 if detector.trains_on == "real" else np.full(len(held_y), True)
        judge = Judge(checkpoint.folder, held, held_x, judged)
        if not checkpoint.done and checkpoint.epoch < settings.epochs:
            part.fit(
                dataset.vectors(x, labels, settings, checkpoint.epoch, settings.epochs),
                validation_data=(held_x[own], held_y[own, None].astype(np.float32)) if loss or part.loss is None else None,
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

    return descend
