"""Build, compile, fit, pick the epoch on validation, save."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfdetect.config import Train
from tfdetect.data import pipeline
from tfdetect.data.cache import Cache
from tfdetect.detector import Detector
from tfdetect.files import atomic
from tfdetect.models import layers  # noqa: F401  (registers the layers that .keras files name)
from tfdetect.training import devices
from tfdetect.training.callbacks import Checkpoint

METRICS = ("loss", "auc")


@dataclass(frozen=True)
class Fitted:
    """What a training leaves behind."""

    history: pd.DataFrame  # a row an epoch: epoch, loss, auc, val_loss, val_auc
    best_epoch: int  # picked on validation
    chief: bool  # whether this process is the one that writes


def fit(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
        callbacks: list[keras.callbacks.Callback]) -> Fitted:
    """Train on the rows of split `train`, pick the epoch on `validation`, save that model to `target` (.keras).

    `table` is a prepared manifest. What is in `checkpoints` is gone on with. Raises ValueError where the loss is no
    finite number any more.
    """
    devices.setup(settings.precision, settings.seed)
    strategy = devices.strategy(settings.strategy)
    worker = devices.worker(strategy)
    single = detector.sees == "frame"
    rows, held = (table[table["split"] == name].reset_index(drop=True) for name in ("train", "validation"))
    if detector.trains_on == "real":
        rows = rows[rows["label"] == 0].reset_index(drop=True)
    with devices.scope(strategy):
        model = build(detector, cache, settings)
        checkpoint = Checkpoint(checkpoints / f"worker-{worker}", settings.monitor, settings.patience)
        checkpoint.restore(model)
    if not checkpoint.done and checkpoint.epoch < settings.epochs:
        model.fit(
            pipeline.training(rows, cache, single, settings.batch, settings.seed, checkpoint.epoch, settings.epochs),
            validation_data=pipeline.ordered(held, cache, single, settings.batch),
            initial_epoch=checkpoint.epoch,
            epochs=settings.epochs,
            steps_per_epoch=pipeline.steps(rows, single, settings.batch),
            class_weight=class_weights(rows) if settings.class_weights else None,
            callbacks=[checkpoint, *callbacks],
            shuffle=False,  # the data set shuffles itself
            verbose=0,
        )
    checkpoint.restore_best(model)
    if worker == 0:
        with atomic(target) as temporary:
            model.save(temporary)
    history = pd.DataFrame(checkpoint.state["history"], columns=["epoch", *METRICS, *(f"val_{name}" for name in METRICS)])
    return Fitted(history, checkpoint.state["best_epoch"], worker == 0)


def build(detector: Detector, cache: Cache, settings: Train) -> keras.Model:
    """The compiled model for clips as they are in the cache."""
    view = cache.view
    model = detector.build((1 if detector.sees == "frame" else view.frames, view.size, view.size, 3))
    model.compile(
        optimizer=keras.optimizers.Adam(settings.rate),
        loss=detector.losses(),
        metrics=[keras.metrics.AUC(from_logits=True, name="auc")],
        jit_compile=settings.xla,
    )
    return model


def class_weights(rows: pd.DataFrame) -> dict[int, float]:
    """Weights with which both classes count alike, 1 on average."""
    counts = rows["label"].value_counts()
    return {int(label): len(rows) / (len(counts) * int(count)) for label, count in counts.items()}


def scores(model: Path, table: pd.DataFrame, cache: Cache, single: bool, batch: int) -> np.ndarray:
    """Scores (units,) of a saved model, reloaded, over `pipeline.units` of the table."""
    loaded = keras.saving.load_model(model, compile=False)
    return loaded.predict(pipeline.ordered(table, cache, single, batch), verbose=0)[:, 0]
