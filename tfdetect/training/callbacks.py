"""What happens at the end of each epoch: everything needed to go on is saved, and the best epoch is kept."""

import time
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.progress import Progress

from tfdetect import models
from tfdetect.errors import UserError
from tfdetect.evaluation import metrics, predictions
from tfdetect.files import read_json, write_arrays, write_json

RESTART_HINT = "the training cannot go on there; begin it again with --overwrite or another --name."

HEAD_FOLDER = "head"  # of checkpoints/: those of a head on stored features, which are small
MAX_KEPT_BYTES = 100_000_000  # bytes of weights that a finished run keeps, to be trained further with its optimizer


class Checkpoint(keras.callbacks.Callback):
    """Backup, restoration, best epoch and early stopping in one, since a run that goes on needs all four to agree.

    `folder/state.json` names the files of the last whole epoch and of the best one, and holds the history; it is
    replaced in one step after they are written. (`keras.callbacks.BackupAndRestore` overwrites weights and epoch number
    one after the other, so a kill between the two repeats an epoch; it leaves out the random state of dropout; and
    neither the best value of `ModelCheckpoint` (keras issue 17012) nor `EarlyStopping`'s patience survives a restart.)
    """

    def __init__(self, folder: Path, monitor: str, patience: int, since: int = 0, source: Path | None = None):
        """`since`: the epoch, counted from 0, with which the last phase of the training begins; none stops before it. `source`:
        the .keras of the best epoch, for a finished run that did not `keep_for_resume` its weights and is trained further."""
        super().__init__()
        self.folder, self.patience, self.source = folder, patience, source
        self.monitor, self.sign = monitor, -1 if monitor.endswith("loss") else 1
        self.state = {"history": [], "last": "", "best": "", "best_epoch": 0, "since": 0}
        if (folder / "state.json").exists():
            self.state |= read_json(folder / "state.json", ("history", "last", "best", "best_epoch"), RESTART_HINT)
        self.since = max(since, self.state["since"])

    @property
    def epoch(self) -> int:
        """Epochs done; in what is stored, the first epoch is number 1."""
        return len(self.state["history"])

    @property
    def done(self) -> bool:
        """No better epoch for too long; equals, of which the one with the lowest loss is kept, are not better."""
        values = [self._value(entry) for entry in self.state["history"][self.since :] if self.monitor in entry]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.patience

    def _value(self, entry):
        """Higher is better; an epoch that was not judged is the worst."""
        return self.sign * entry[self.monitor] if self.monitor in entry else -np.inf

    def restore(self, model, first=0):
        """Weights and random states of dropout of the last whole epoch, if there is one, and its optimizer unless a phase
        of the training begins here, at epoch `first`."""
        model.optimizer.build(model.trainable_variables)
        self._read(self.state["last"], model, model.optimizer.variables if self.epoch > first else [])

    def restore_best(self, model):
        """Weights of the best epoch, if there was one."""
        self._read(self.state["best"], model)

    def _read(self, name, model, more=()):
        if not name:
            if self.epoch and self.source:
                model.set_weights(models.load(self.source).get_weights())
            return
        try:
            with np.load(self.folder / name) as stored:
                for number, variable in enumerate([*model.variables, *more]):
                    variable.assign(stored[f"arr_{number}"])
        except (KeyError, ValueError, EOFError, FileNotFoundError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.folder / name} is missing or damaged: {RESTART_HINT}") from error

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{key: float(value) for key, value in (logs or {}).items()}}
        if not np.isfinite(list(row.values())).all():
            raise UserError(f"In epoch {epoch + 1} the loss became no finite number; try a lower --train.learning_rate.")
        history = [*self.state["history"], row]
        values = [(self._value(entry), -entry.get("val_loss", 0.0)) for entry in history]  # AUCs tie easily
        best = values.index(max(values))
        name = f"epoch-{epoch + 1:04d}.npz"
        variables = [*self.model.variables, *self.model.optimizer.variables]
        write_arrays(self.folder / name, *map(keras.ops.convert_to_numpy, variables))
        kept = name if best == epoch else self.state["best"]
        self.state |= {"history": history, "last": name, "best": kept, "best_epoch": best + 1}
        write_json(self.folder / "state.json", self.state)
        for file in self.folder.glob("epoch-*.npz"):
            if file.name not in (name, kept):
                file.unlink()
        self.model.stop_training = self.done


def keep_for_resume(folder: Path) -> None:
    """What a finished run needs to be trained further, of the checkpoints in `folder`: their weights unless they take more than
    KEPT bytes, for then the model's own must do, and the history. Patience counts anew from there."""
    for path in folder.glob("*/state.json"):
        state = read_json(path, ("history", "last", "best"), RESTART_HINT)
        weights = [path.parent / name for name in {state["last"], state["best"]} - {""}]
        if path.parent.name != HEAD_FOLDER and sum(weight.stat().st_size for weight in weights) > MAX_KEPT_BYTES:
            state |= {"last": "", "best": ""}
        write_json(path, state | {"since": len(state["history"])})
        for weight in weights if not state["last"] else ():
            weight.unlink()


def rebuild_state(folder: Path, history: pd.DataFrame, monitor: str) -> None:
    """The state of a finished run whose checkpoints are gone, from its history: its .keras is of the best epoch."""
    rows = [{name: value for name, value in row.items() if value == value} for row in history.to_dict("records")]
    sign = -1 if monitor.endswith("loss") else 1
    values = [(sign * row.get(monitor, -sign * np.inf), -row.get("val_loss", 0.0)) for row in rows]
    write_json(folder / "worker-0" / "state.json", {"history": rows, "last": "", "best": "", "since": len(rows),
                                                    "best_epoch": values.index(max(values)) + 1})  # fmt: skip


class ExactValidationMetrics(keras.callbacks.Callback):
    """Validation after the epochs numbered in `when`: the files are scored once, and the logs get `val_loss`, the mean over what
    the model is fed, and `val_auc` and `val_ap` over files, exact.

    (`keras.metrics.AUC` counts frames, in 200 bins of the sigmoid, so that it cannot rank what a confident detector calls 0.999
    and more.) A model whose layers add their own loss has its `val_loss` from Keras. Labels and scores of the files are kept in
    `folder/judged-NNNN.npz`. Several workers score their part each and get the scores of all, so that they agree on the epoch.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame, inputs: Any, when: Container[int]):
        """`rows`: of `pipeline.units`, one for each of `inputs`, which are what `predict` takes."""
        super().__init__()
        self.folder, self.rows, self.inputs, self.when = folder, rows, inputs, when

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or epoch + 1 not in self.when:
            return
        outputs = self.model.predict(self.inputs, verbose=0)
        if self.model.loss is not None:
            labels = self.rows[["label", *({"source_class"} & {*self.rows})]].to_numpy(np.float32)
            logs["val_loss"] = float(keras.ops.mean(self.model.loss(labels, outputs)))
        files = predictions.file_scores(self.rows.assign(score=outputs[:, 0]))
        labels, scores = files["label"].to_numpy(), files["score"].to_numpy()
        if np.isfinite(scores).all() and files["label"].nunique() == 2:
            logs.update(val_auc=metrics.auc(labels, scores), val_ap=metrics.average_precision(labels, scores))
        write_arrays(self.folder / f"judged-{epoch + 1:04d}.npz", labels, scores)

    @staticmethod
    def read(folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Labels and scores (files,) by epoch, of what is kept in `folder`."""
        out = {}
        for path in sorted(folder.glob("judged-*.npz")):
            with np.load(path) as stored:
                out[int(path.stem.removeprefix("judged-"))] = stored["arr_0"], stored["arr_1"]
        return out


class ProgressLogger(keras.callbacks.Callback):
    """A bar over the steps of an epoch, and a line at its end."""

    def __init__(self, console, epochs: int):
        super().__init__()
        self.console, self.epochs = console, epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()
        self.bar = Progress(console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task(f"Epoch {epoch + 1}/{self.epochs}", total=self.params["steps"])
        self.bar.start()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.advance(self.task)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.stop()
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        self.console.print(f"Epoch {epoch + 1}/{self.epochs}  {numbers}  {time.monotonic() - self.start:.0f} s")

    def on_train_end(self, logs=None):
        self.bar.stop()
