"""Build, compile and fit a model end to end, choose the epoch on validation, save."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfdetect import models
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, Phase
from tfdetect.errors import UserError
from tfdetect.files import atomic_write
from tfdetect.models.layers import common
from tfdetect.settings import Train
from tfdetect.training import devices
from tfdetect.training.callbacks import Checkpoint, ExactValidationMetrics
from tfdetect.training.feature_extractor import FeatureExtractor, silent

HEAD_BATCH = 1024  # rows of features
COLUMNS = ("epoch", "loss", "auc", "val_loss", "val_auc")  # of a history, before those that a detector's layers add


@dataclass(frozen=True)
class Fitted:
    """The outcome of a training."""

    history: pd.DataFrame
    """One row per epoch: COLUMNS, and the metrics of the detector's own layers."""
    best_epoch: int
    """Chosen on validation; 0 if there was no epoch."""
    validation_scores: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Labels and scores (files,) of the validation files, by epoch."""


def fit(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
        callbacks: list[keras.callbacks.Callback], start: Path | None = None) -> Fitted:
    """Train on the rows of split `train`, choose the epoch on `validation`, save that model to `target` (.keras).

    `table` is a prepared manifest. Training resumes from what is in `checkpoints`. A one-class detector sees no fakes in
    training, and in validation only for the ranking metrics. `start` is a .keras file of the same network, whose weights training
    starts from. Raises UserError if the loss is not finite.
    """
    devices.setup(settings.precision, settings.seed)
    strategy = devices.strategy(settings.strategy)
    worker, single = devices.worker(strategy), detector.input_kind == "frame"
    train, validation = select_split(table, "train", detector), select_split(table, "validation")
    steps = dataset.steps_per_epoch(train, single, settings.batch)
    schedule = phase_schedule(detector.phases(), settings.epochs)
    last_phase = schedule[-1][0] if schedule else 0
    checkpoint = Checkpoint(checkpoints / f"worker-{worker}", monitored_metric(settings, validation), settings.patience,
                            last_phase, target, settings.strategy == "multiworker")  # fmt: skip
    checkpoint.go_back_to(devices.lowest(strategy, checkpoint.epoch))
    loss_rows = select_split(validation, "validation", detector)
    clips, loss_clips = (devices.distribute(strategy, partial(dataset.evaluation_batches, rows, cache, single, settings.batch))
                         for rows in (validation, loss_rows))  # fmt: skip
    frames = dataset.expand_frames(validation, single)
    model = initial_model(detector, cache, strategy, start)
    for first, last, phase in schedule:
        if checkpoint.done or checkpoint.epoch >= last:
            continue
        with devices.scope(strategy):
            compile_phase(model, detector, phase, settings, last - first, steps)
            checkpoint.restore(model, first)
        batches = partial(dataset.training_batches, train, cache, single, settings, checkpoint.epoch, last)
        with devices.lost_worker_explained(strategy):
            run_epochs(model, devices.distribute(strategy, batches), steps, last, settings, checkpoint, callbacks, frames, clips,
                       loss_clips if model.loss is None else None)  # fmt: skip
    checkpoint.restore_best(model)
    common.synchronise_batch_norms(model, False)
    return save_result(model, checkpoint, target, worker == 0)


def initial_model(detector: Detector, cache: Cache, strategy: Any, start: Path | None) -> keras.Model:
    """Return the model that training starts from."""
    with devices.scope(strategy):
        model = build(detector, cache)
    if start:
        start_from(model, start)
    require_reloadable(detector, model)
    common.synchronise_batch_norms(model, strategy is not None)
    return model


def run_epochs(model: keras.Model, batches: Any, steps: int, last: int, settings: Train, checkpoint: Checkpoint,
               callbacks: list[keras.callbacks.Callback], validation: pd.DataFrame, inputs: Any | None,
               loss_data: Any | None) -> None:  # fmt: skip
    """Fit a compiled model to `batches` from the checkpoint's epoch to `last`, and evaluate it every --train.eval_every epochs.

    `validation` has a row for each of the model's `inputs`, which give the ranking metrics; None leaves those out. `loss_data` is
    what Keras computes the validation loss of.
    """
    evaluated = [*range(settings.eval_every, last, settings.eval_every), last]
    exact = [ExactValidationMetrics(checkpoint.folder, validation, inputs, evaluated)] if inputs is not None else []
    model.fit(
        batches,
        validation_data=loss_data,
        validation_batch_size=settings.batch,
        validation_freq=evaluated,
        initial_epoch=checkpoint.epoch,
        epochs=last,
        steps_per_epoch=steps,
        callbacks=[*exact, checkpoint, *callbacks],
        shuffle=False,  # the data set shuffles itself
        verbose=0,
    )


def save_result(model: keras.Model, checkpoint: Checkpoint, target: Path, chief: bool = True) -> Fitted:
    """Save the trained model to `target` if this process is the chief; return the outcome."""
    if chief:
        with atomic_write(target) as temporary:
            model.save(temporary)
    scores = ExactValidationMetrics.read(checkpoint.folder)
    return Fitted(history_table(checkpoint), checkpoint.state["best_epoch"], scores)


def select_split(table: pd.DataFrame, split: str, learner: Detector | None = None) -> pd.DataFrame:
    """Return the rows of a split; with `learner`, only those that this detector may be trained on."""
    rows = table[table["split"] == split]
    if learner and learner.trains_on == "real":
        rows = rows[rows["label"] == 0]
    return rows.reset_index(drop=True)


def monitored_metric(settings: Train, validation: pd.DataFrame) -> str:
    """Return the metric that chooses the epoch; with a single class in validation, only the loss is possible."""
    return settings.monitor if validation["label"].nunique() == 2 else "val_loss"


def history_table(checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the history, one row per epoch."""
    history = checkpoint.state["history"]
    table = pd.DataFrame(history, columns=list(dict.fromkeys([*COLUMNS, *(name for row in history for name in row)])))
    return table.dropna(axis="columns", how="all") if len(table) else table  # a head without epochs keeps the header


def phase_schedule(phases: tuple[Phase, ...], epochs: int) -> list[tuple[int, int, Phase]]:
    """Return (first epoch, end epoch, phase) within the given number of epochs; the last phase takes what is left."""
    out: list[tuple[int, int, Phase]] = []
    for phase in phases:
        first = out[-1][1] if out else 0
        last = epochs if phase is phases[-1] or phase.epochs is None else min(first + phase.epochs, epochs)
        if first < epochs:
            out.append((first, last, phase))
    return out


def build(detector: Detector, cache: Cache) -> keras.Model:
    """Return an untrained model for the clips in the cache. Raises UserError if its outputs are not those of a detector."""
    spec, outputs = cache.spec, 1 + len(detector.classes)
    model = detector.build((1 if detector.input_kind == "frame" else spec.frames, spec.size, spec.size, 3))
    shape = model.output_shape if isinstance(model, keras.Model) else None
    if shape != (None, outputs):
        found = f"outputs {shape}" if shape else type(model).__name__
        raise UserError(f"{detector.name}: build must return a keras.Model with outputs (batch, {outputs}), got {found}.")
    return model


def start_from(model: keras.Model, path: Path) -> None:
    """Give a new model the weights of the one in a .keras file. Raises UserError if it is another network."""
    try:
        model.set_weights(models.load(path).get_weights())
    except ValueError as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} holds another network than this version of the detector builds ({reason}): train a new "
                        "run.") from error  # fmt: skip


def require_reloadable(detector: Detector, model: keras.Model) -> None:
    """Raise UserError if the model of a detector from outside of the suite cannot be saved and loaded again."""
    if not type(detector).__module__.startswith("tfdetect."):
        models.require_reloadable(model)


def compile_phase(model: keras.Model, detector: Detector, phase: Phase, settings: Train, epochs: int, steps: int,
                  loss: keras.losses.Loss | None = None) -> None:
    """Compile the model for a phase of `epochs` epochs of `steps` steps; `loss` replaces the detector's own for outputs that are
    not scores."""
    if phase.prepare:
        phase.prepare(model)
    own = detector.losses()
    if settings.balance == "focal" and loss is None:
        own = common.FocalLoss(own)
    metrics = [common.ScoreAUC(), *([common.ScoreAUC("ap", curve="PR")] if settings.monitor == "val_ap" else [])]
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate(settings.learning_rate * phase.learning_rate_factor, settings.schedule,
                                                      epochs, steps)),
        loss=loss or (common.DetectionAndAttributionLoss(own) if detector.classes else own),
        metrics=[] if loss or own is None else metrics,
        jit_compile=settings.xla,
    )  # fmt: skip


def learning_rate(peak: float, schedule: str, epochs: int, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate, or its schedule over the optimizer's steps, which a resumed run continues."""
    if schedule == "constant":
        return peak
    decay = max(1, (epochs - 1) * steps)
    return keras.optimizers.schedules.CosineDecay(0.0, decay, warmup_target=peak, warmup_steps=steps)


def predict_scores(model: keras.Model, table: pd.DataFrame, cache: Cache, detector: Detector, batch: int,
                   extractor: FeatureExtractor | None = None) -> np.ndarray:
    """Return the scores (rows,) of a saved and reloaded model over the rows of `expand_frames(table)`.

    `extractor` is that of this model, if there is one already: making it hashes all weights.
    """
    if detector.caches_features:
        features = (extractor or FeatureExtractor(model, detector, cache, silent)).of(table).features
        head = common.submodel_from(model, "features")  # eagerly, since tracing it takes longer
        parts = [head(features[start : start + HEAD_BATCH], training=False) for start in range(0, len(features), HEAD_BATCH)]
        return np.concatenate([keras.ops.convert_to_numpy(part)[:, 0] for part in parts])
    return model.predict(dataset.evaluation_batches(table, cache, detector.input_kind == "frame", batch), verbose=0)[:, 0]
