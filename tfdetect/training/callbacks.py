"""What happens at the end of each epoch: validation, and saving everything that is needed to resume."""

import time
import zipfile
import zlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from tfdetect import models
from tfdetect.errors import UserError
from tfdetect.evaluation import metrics, predictions
from tfdetect.files import read_json, write_arrays, write_json

RESTART_HINT = "training cannot resume there; start it again with --overwrite or another --name."

HEAD_FOLDER = "head"  # in checkpoints/: those of a head on stored features, which are small
MAX_KEPT_BYTES = 100_000_000  # of weights that a finished run keeps so that it can be trained further with its optimizer
PER_EPOCH = ("history", "last", "best", "best_epoch")  # what the state says of the epochs
Logs = dict[str, Any] | None


class Checkpoint(keras.callbacks.Callback):
    """Backup, restoration, best epoch and early stopping in one, since a resumed run needs all four to agree.

    `folder/state.json` names the files of the last complete epoch and of the best one, and holds the history; it is replaced
    in one step after they are written. (`keras.callbacks.BackupAndRestore` overwrites weights and epoch number one after the
    other, so a kill between the two repeats an epoch; it leaves out the random state of dropout; and neither the best value of
    `ModelCheckpoint` (keras issue 17012) nor `EarlyStopping`'s patience survives a restart.)
    """

    def __init__(self, folder: Path, monitor: str, patience: int, since: int = 0, source: Path | None = None,
                 keep_previous: bool = False):  # fmt: skip
        """`since` is the first epoch, counted from 0, of the last training phase: early stopping waits for it. `source` is the
        .keras file of the best epoch, for a finished run whose checkpoints were too large to keep. With `keep_previous`, the last
        epoch can be forgotten."""
        super().__init__()
        self.folder, self.patience, self.source, self.keep_previous = folder, patience, source, keep_previous
        self.monitor = monitor
        self.state: dict[str, Any] = {"history": [], "last": "", "best": "", "best_epoch": 0, "since": 0, "previous": {}}
        if (folder / "state.json").exists():
            self.state |= read_json(folder / "state.json", ("history", "last", "best", "best_epoch"), RESTART_HINT)
        self.since = max(since, self.state["since"])

    @property
    def epoch(self) -> int:
        """Number of complete epochs. On disk, the first epoch has the number 1."""
        return len(self.state["history"])

    def go_back_to(self, epoch: int) -> None:
        """Forget the last epoch if there are more complete ones than `epoch`: another worker was killed before it saved it.

        Workers are never further apart, because none takes a step without the others. Raises UserError if they are.
        """
        if self.epoch > epoch and len(self.state["previous"].get("history", ())) == epoch:
            self.state |= self.state["previous"]
        if self.epoch != epoch:
            raise UserError(f"{self.folder} holds {self.epoch} epochs and that of another worker {epoch}: {RESTART_HINT}")

    @property
    def done(self) -> bool:
        """Whether patience has run out. An equal value is no improvement, even if it is kept for its lower loss."""
        values = [goodness(entry, self.monitor) for entry in self.state["history"][self.since :] if self.monitor in entry]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.patience

    def restore(self, model: keras.Model, first: int = 0) -> None:
        """Restore weights and random states of dropout of the last complete epoch, if there is one, and the optimizer unless a
        training phase begins here, at epoch `first`."""
        model.optimizer.build(model.trainable_variables)
        self._read(self.state["last"], model, model.optimizer.variables if self.epoch > first else [])

    def restore_best(self, model: keras.Model) -> None:
        """Restore the weights of the best epoch, if there was one."""
        self._read(self.state["best"], model)

    def _read(self, name: str, model: keras.Model, optimizer: Sequence[Any] = ()) -> None:
        if not name:
            if self.epoch and self.source:
                model.set_weights(models.load(self.source).get_weights())
            return
        try:
            with np.load(self.folder / name) as stored:
                for number, variable in enumerate([*model.variables, *optimizer]):
                    variable.assign(stored[f"arr_{number}"])
        except (KeyError, ValueError, EOFError, FileNotFoundError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.folder / name} is missing or damaged: {RESTART_HINT}") from error

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        row = {"epoch": epoch + 1, **{key: float(value) for key, value in (logs or {}).items()}}
        if not np.isfinite(list(row.values())).all():
            raise UserError(f"The loss is not finite in epoch {epoch + 1}; try a lower --train.learning_rate.")
        history = [*self.state["history"], row]
        best = best_row(history, self.monitor)
        name = f"epoch-{epoch + 1:04d}.npz"
        variables = [*self.model.variables, *self.model.optimizer.variables]
        write_arrays(self.folder / name, *map(keras.ops.convert_to_numpy, variables))
        best_name = name if best == epoch else self.state["best"]
        previous = {key: self.state[key] for key in PER_EPOCH} if self.keep_previous else {}
        self.state |= {"history": history, "last": name, "best": best_name, "best_epoch": best + 1, "previous": previous}
        write_json(self.folder / "state.json", self.state)
        _drop_weights(self.folder, (name, best_name, previous.get("last"), previous.get("best")))
        self.model.stop_training = self.done


def goodness(row: Mapping[str, float], monitor: str) -> float:
    """Return the metric that chooses the epoch, negated for a loss: higher is better, and worst without validation."""
    sign = -1 if monitor.endswith("loss") else 1
    return sign * row[monitor] if monitor in row else -np.inf


def best_row(history: Sequence[Mapping[str, float]], monitor: str) -> int:
    """Return the number, from 0, of the best epoch; of equal ones, that with the lowest loss, since AUCs tie easily."""
    values = [(goodness(row, monitor), -row.get("val_loss", 0.0)) for row in history]
    return values.index(max(values))


def keep_for_resume(folder: Path) -> None:
    """Keep in `folder` what a finished run needs to be trained further: the history, and the weights unless they take more than
    MAX_KEPT_BYTES, in which case training continues from the saved model. Patience is reset."""
    for path in folder.glob("*/state.json"):
        state = read_json(path, ("history", "last", "best"), RESTART_HINT)
        weights = [path.parent / name for name in {state["last"], state["best"]} - {""}]
        if path.parent.name != HEAD_FOLDER and sum(weight.stat().st_size for weight in weights) > MAX_KEPT_BYTES:
            state |= {"last": "", "best": ""}
        write_json(path, state | {"since": len(state["history"]), "previous": {}})
        _drop_weights(path.parent, {state["last"], state["best"]})


def _drop_weights(folder: Path, kept: Container[str | None]) -> None:
    for file in folder.glob("epoch-*.npz"):
        if file.name not in kept:
            file.unlink()


def rebuild_state(folder: Path, history: pd.DataFrame, monitor: str) -> None:
    """Rebuild, from its history, the state of a finished run without checkpoints; its .keras file is the best epoch."""
    rows = [{name: value for name, value in row.items() if value == value} for row in history.to_dict("records")]
    write_json(folder / "worker-0" / "state.json", {"history": rows, "last": "", "best": "", "since": len(rows),
                                                    "best_epoch": best_row(rows, monitor) + 1})  # fmt: skip


class ExactValidationMetrics(keras.callbacks.Callback):
    """Validate after the epochs numbered in `epochs`: score the files once, and log `val_loss`, the mean over the model's inputs,
    and `val_auc` and `val_ap`, exact and over files.

    (`keras.metrics.AUC` counts frames and has only 200 thresholds, so it cannot rank what a confident detector scores above
    0.999.) For a model whose layers add their own loss, Keras computes `val_loss`. Labels and scores of the files are stored in
    `folder/validation-NNNN.npz`. Each of several workers scores its share and gets the scores of all, so that they agree on the
    epoch.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame, inputs: Any, epochs: Container[int]):
        """`rows` come from `dataset.expand_frames`, one for each of `inputs`, which are what `predict` takes."""
        super().__init__()
        self.folder, self.rows, self.inputs, self.epochs = folder, rows, inputs, epochs

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is None or epoch + 1 not in self.epochs:
            return
        outputs = self.model.predict(self.inputs, verbose=0)
        if self.model.loss is not None:
            labels = self.rows[["label", *({predictions.SOURCE_CLASS} & {*self.rows})]].to_numpy(np.float32)
            logs["val_loss"] = float(keras.ops.mean(self.model.loss(labels, outputs)))
        files = predictions.file_scores(self.rows.assign(score=outputs[:, 0]))
        labels, scores = files["label"].to_numpy(), files["score"].to_numpy()
        if np.isfinite(scores).all() and files["label"].nunique() == 2:
            logs.update(val_auc=metrics.auc(labels, scores), val_ap=metrics.average_precision(labels, scores))
        write_arrays(self.folder / f"validation-{epoch + 1:04d}.npz", labels, scores)

    @staticmethod
    def read(folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return labels and scores (files,) by epoch, as stored in `folder`."""
        out = {}
        for path in sorted(folder.glob("validation-*.npz")):
            with np.load(path) as stored:
                out[int(path.stem.removeprefix("validation-"))] = stored["arr_0"], stored["arr_1"]
        return out


class ProgressLogger(keras.callbacks.Callback):
    """Show a progress bar over the steps of an epoch, and print a line at its end."""

    def __init__(self, console: Console, epochs: int):
        super().__init__()
        self.console, self.epochs = console, epochs

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.start = time.monotonic()
        self.bar = Progress(console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task(f"Epoch {epoch + 1}/{self.epochs}", total=self.params["steps"])
        self.bar.start()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.bar.advance(self.task)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.bar.stop()
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        self.console.print(f"Epoch {epoch + 1}/{self.epochs}  {numbers}  {time.monotonic() - self.start:.0f} s")

    def on_train_end(self, logs: Logs = None) -> None:
        self.bar.stop()
