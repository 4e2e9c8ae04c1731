"""Build, compile, fit, pick the epoch on validation, save."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, Phase
from tfdetect.files import atomic_write
from tfdetect.models.layers import common
from tfdetect.settings import Train
from tfdetect.training import devices
from tfdetect.training.callbacks import Checkpoint, ExactValidationMetrics
from tfdetect.training.feature_extractor import FeatureExtractor, silent

COLUMNS = ("epoch", "loss", "auc", "val_loss", "val_auc")  # of a history, and what its detector adds


@dataclass(frozen=True)
class Fitted:
    """What a training leaves behind."""

    history: pd.DataFrame  # a row an epoch: COLUMNS, and what the detector's own layers tell
    best_epoch: int  # picked on validation
    chief: bool  # whether this process is the one that writes
    judged: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Labels and scores of the validation files at each judged epoch."""


def fit(detector: Detector, table: pd.DataFrame, cache: Cache, settings: Train, checkpoints: Path, target: Path,
        callbacks: list[keras.callbacks.Callback]) -> Fitted:
    """Train on the rows of split `train`, pick the epoch on `validation`, save that model to `target` (.keras).

    `table` is a prepared manifest. What is in `checkpoints` is gone on with. A one-class detector is given no fakes: not in
    training, and in validation only to be ranked. Raises ValueError where the loss is no finite number any more.
    """
    devices.setup(settings.precision, settings.seed)
    strategy = devices.strategy(settings.strategy)
    worker, single = devices.worker(strategy), detector.input_kind == "frame"
    rows, validation = select_split(table, "train", detector), select_split(table, "validation")
    steps = dataset.steps(rows, single, settings.batch)
    plan = phase_schedule(detector.phases(), settings.epochs)
    folder = checkpoints / f"worker-{worker}"
    checkpoint = Checkpoint(folder, monitored_metric(settings, validation), settings.patience, plan[-1][0] if plan else 0, target)
    seen, clips = dataset.expand_frames(validation, single), dataset.ordered(validation, cache, single, settings.batch)
    own = dataset.ordered(select_split(validation, "validation", detector), cache, single, settings.batch)
    with devices.scope(strategy):
        model = build(detector, cache)
    common.synchronise_batch_norms(model, strategy is not None)
    for first, last, phase in plan:
        if checkpoint.done or checkpoint.epoch >= last:
            continue
        with devices.scope(strategy):
            compile_phase(model, detector, phase, settings, last - first, steps)
            checkpoint.restore(model, first)
        judged = [*range(settings.eval_every, last, settings.eval_every), last]
        model.fit(
            dataset.training(rows, cache, single, settings, checkpoint.epoch, last),
            validation_data=own if model.loss is None else None,
            validation_freq=judged,
            initial_epoch=checkpoint.epoch,
            epochs=last,
            steps_per_epoch=steps,
            callbacks=[ExactValidationMetrics(folder, seen, clips, judged), checkpoint, *callbacks],
            shuffle=False,  # the data set shuffles itself
            verbose=0,
        )
    checkpoint.restore_best(model)
    common.synchronise_batch_norms(model, False)
    return save_result(model, checkpoint, target, worker == 0)


def save_result(model: keras.Model, checkpoint: Checkpoint, target: Path, chief: bool = True) -> Fitted:
    """The trained model to `target`, by the chief, and what is known of its training."""
    if chief:
        with atomic_write(target) as temporary:
            model.save(temporary)
    return Fitted(history_table(checkpoint), checkpoint.state["best_epoch"], chief, ExactValidationMetrics.read(checkpoint.folder))


def select_split(table: pd.DataFrame, split: str, learner: Detector | None = None) -> pd.DataFrame:
    """The rows of a split; of them what this detector may learn from."""
    rows = table[table["split"] == split]
    if learner and learner.trains_on == "real":
        rows = rows[rows["label"] == 0]
    return rows.reset_index(drop=True)


def monitored_metric(settings: Train, validation: pd.DataFrame) -> str:
    """What picks the epoch: where validation holds one class alone, no more than the loss can."""
    return settings.monitor if validation["label"].nunique() == 2 else "val_loss"


def history_table(checkpoint: Checkpoint) -> pd.DataFrame:
    """The history."""
    history = checkpoint.state["history"]
    table = pd.DataFrame(history, columns=list(dict.fromkeys([*COLUMNS, *(name for row in history for name in row)])))
    return table.dropna(axis="columns", how="all") if len(table) else table  # a head without epochs keeps the header


def phase_schedule(phases: tuple[Phase, ...], epochs: int) -> list[tuple[int, int, Phase]]:
    """(first epoch, the one after its last, phase) within the epochs that there are; the last phase takes what is left."""
    out: list[tuple[int, int, Phase]] = []
    for phase in phases:
        first = out[-1][1] if out else 0
        last = epochs if phase is phases[-1] or phase.epochs is None else min(first + phase.epochs, epochs)
        if first < epochs:
            out.append((first, last, phase))
    return out


def build(detector: Detector, cache: Cache) -> keras.Model:
    """The model for clips as they are in the cache."""
    view = cache.spec
    return detector.build((1 if detector.input_kind == "frame" else view.frames, view.size, view.size, 3))


def compile_phase(model: keras.Model, detector: Detector, phase: Phase, settings: Train, epochs: int, steps: int,
            other: keras.losses.Loss | None = None) -> None:
    """Compile the model for a phase of the training, of so many epochs of so many steps. `other`: a loss of what is no score."""
    if phase.prepare:
        phase.prepare(model)
    loss = detector.losses()
    if settings.balance == "focal" and other is None:
        loss = common.FocalLoss(loss)
    measured = [common.ScoreAUC(), *([common.ScoreAUC("ap", curve="PR")] if settings.monitor == "val_ap" else [])]
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate(settings.learning_rate * phase.learning_rate_factor, settings.schedule, epochs, steps)),
        loss=other or (common.DetectionAndAttributionLoss(loss) if detector.classes else loss),
        metrics=[] if other or loss is None else measured,
        jit_compile=settings.xla,
    )


def learning_rate(highest: float, schedule: str, epochs: int, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate, or how it goes with the optimizer's steps, which a run that goes on takes up again."""
    if schedule == "constant":
        return highest
    rest = max(1, (epochs - 1) * steps)
    return keras.optimizers.schedules.CosineDecay(0.0, rest, warmup_target=highest, warmup_steps=steps)


def predict_scores(model: keras.Model, table: pd.DataFrame, cache: Cache, detector: Detector, batch: int) -> np.ndarray:
    """Scores (units,) of a saved and reloaded model over `pipeline.units` of the table."""
    if detector.caches_features:
        features = FeatureExtractor(model, detector, cache, silent).of(table).features
        return common.submodel_from(model, "features").predict(features, verbose=0)[:, 0]
    single = detector.input_kind == "frame"
    return model.predict(dataset.ordered(table, cache, single, batch), verbose=0)[:, 0]
