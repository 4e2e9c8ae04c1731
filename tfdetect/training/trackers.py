"""--train.tracker: settings, epochs and results of a run in MLflow or Weights & Biases, through their own Keras callbacks.

Nothing goes over the network unless the user's environment says so (MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY); the usage
statistics that both send by default are turned off. The id of the tracker's run is stored in the run's folder, so that a resumed
run goes on in the same one.
"""

import importlib.util
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from tfdetect import files
from tfdetect.errors import UserError

PROJECT = "tfdetect"  # the experiment or project, unless the environment names another
PARAMETERS_PER_CALL, MAX_VALUE = 100, 500  # of MLflow; the latter in characters


@dataclass(frozen=True)
class Tracker:
    """A run in a tracker that is open."""

    ident: str = ""
    context: Any = field(default_factory=nullcontext)
    """Closes it; an exception marks it as failed."""
    where: str = ""
    """A line that says where it is to be seen."""
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    finish: Callable[[Mapping[str, Any], Sequence[Path]], None] = lambda found, paths: None
    """Log the figures of metrics.json, and files."""


def require(name: str) -> None:
    """Raise UserError if a tracker is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"--train.tracker {name} needs the package {name}, which is not installed: pip install "
                        f"'tfdetect[{name}]', or leave out --train.tracker.")  # fmt: skip


@contextmanager
def tracking(name: str, logs: Path, title: str, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Tracker]:
    """Open a run called `title` in a tracker, or the one that an earlier call with these `logs` opened; an empty one for "none".

    `settings` are those of the run, by section. An exception in the block marks the tracker's run as failed. Raises UserError if
    the tracker cannot open a run.
    """
    if name == "none":
        yield Tracker()
        return
    state = logs / "tracker.json"
    known = files.read_json(state, (), "delete it; the tracker then begins a new run.") if state.exists() else {}
    flat = {f"{part}.{key}": value for part, values in settings.items() for key, value in values.items()}
    plain = {key: value if isinstance(value, bool | int | float) else files.printable(str(value)) for key, value in flat.items()}
    try:
        tracker = {"mlflow": _mlflow, "wandb": _wandb}[name](known.get(name), logs, title, plain)
    except Exception as error:  # of many types
        reason = str(error).strip().partition("\n")[0]
        hint = f"If the run of {state} is gone, delete that file." if known.get(name) else "See docs/tracking.md."
        raise UserError(f"--train.tracker {name} cannot open a run: {reason} {hint}") from error
    files.write_json(state, {**known, name: tracker.ident})
    with tracker.context:
        yield tracker


def final_metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of metrics.json by split and name, such as test_auc, with the ends of their 95 % intervals."""
    out: dict[str, float] = {}
    for split in ("validation", "test"):
        summary = found.get(split) or {}
        for key, value in summary.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                out[f"{split}_{key}"] = float(value)
        for key, ends in (summary.get("intervals") or {}).items():
            if ends and f"{split}_{key}" in out:
                out[f"{split}_{key}_low"], out[f"{split}_{key}_high"] = map(float, ends)
    return {re.sub(r"[^\w./ -]", "_", key): value for key, value in out.items()}


def _mlflow(ident: str | None, logs: Path, title: str, settings: Mapping[str, Any]) -> Tracker:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow.keras import MlflowCallback

    experiment = None  # the one that the environment names
    if not (ident or {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"} & os.environ.keys()):
        found = mlflow.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else mlflow.create_experiment(PROJECT)
    run = mlflow.start_run(run_id=ident, experiment_id=experiment, run_name=None if ident else title)
    new = [(key, str(value)[:MAX_VALUE]) for key, value in settings.items() if key not in run.data.params]  # none may change
    for start in range(0, len(new), PARAMETERS_PER_CALL):
        mlflow.log_params(dict(new[start : start + PARAMETERS_PER_CALL]))

    class Epochs(MlflowCallback):  # type: ignore[misc]
        """Log the optimizer's settings only once: MLflow lets none change, as they do from one training phase to the next."""

        def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
            if "optimizer_name" not in mlflow.get_run(run.info.run_id).data.params:
                super().on_train_begin(logs)

    def finish(found: Mapping[str, Any], paths: Sequence[Path]) -> None:
        mlflow.flush_async_logging()
        mlflow.log_metrics(final_metrics(found))
        for path in paths:
            mlflow.log_artifact(str(path))

    where = f"MLflow run {run.info.run_id} at {mlflow.get_tracking_uri()}\n"
    return Tracker(run.info.run_id, run, where, (Epochs(),), finish)


def _wandb(ident: str | None, logs: Path, title: str, settings: Mapping[str, Any]) -> Tracker:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    is_online = {"WANDB_MODE", "WANDB_API_KEY"} & os.environ.keys()
    folder = os.environ.get("WANDB_DIR") or str(logs)
    run = wandb.init(project=os.environ.get("WANDB_PROJECT") or PROJECT, name=title, id=ident or uuid.uuid4().hex, resume="allow",
                     dir=folder, mode=None if is_online else "offline")  # fmt: skip
    run.config.update(dict(settings), allow_val_change=True)
    from wandb.integration.keras import WandbMetricsLogger

    def finish(found: Mapping[str, Any], paths: Sequence[Path]) -> None:
        run.summary.update(final_metrics(found))
        artifact = wandb.Artifact(f"report-{run.id}", type="report")
        for path in paths:
            artifact.add_file(str(path))
        run.log_artifact(artifact)

    where = f"Weights & Biases run {run.id}{'' if is_online else f', offline: wandb sync {folder}/wandb/offline-run-*'}\n"
    return Tracker(run.id, run, where, (WandbMetricsLogger(),), finish)
