"""Runs in MLflow's file store and, offline, in Weights & Biases: settings, epochs, results, and that resuming goes on in them."""

import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import keras
import numpy as np
import pytest

from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.training import trackers

FOUND = {"test": {"auc": 0.9, "n": 40, "f1": None, "tpr_at_fpr_1e-2": 0.5, "few_files": [], "by_source": {},
                  "intervals": {"auc": [0.8, 0.95], "f1": None, "per_class.fake.recall": [0.1, 0.2]}}}  # fmt: skip
FINAL = {"test_auc": 0.9, "test_auc_low": 0.8, "test_auc_high": 0.95, "test_n": 40.0, "test_tpr_at_fpr_1e-2": 0.5}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No settings of the user's own, and what a tracker sets does not outlive the test."""
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("WANDB_ERROR_REPORTING", "false"), ("WANDB_SILENT", "true"),
                        ("MLFLOW_ALLOW_FILE_STORE", "true"), ("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def train_a_layer(callbacks, first, epochs):
    """Train a model of one layer from an epoch on, at a learning rate that differs from one call to the next."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(10.0 ** -(first + 2)), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=list(callbacks), initial_epoch=first, epochs=epochs, verbose=0)


def test_a_run_goes_on_in_the_same_run_of_mlflow(images, tmp_path, light_test, capsys):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'tfdetect[mlflow]'")
    argv = ["train", "cnn", "--data.path", str(images), "--data.size", "32", "--detector.width", "4", "--train.batch", "8",
            "--data.cache_dir", str(tmp_path / "cache"), "--out", str(tmp_path / "runs"), "--name", "a"]  # fmt: skip
    assert cli.main([*argv, "--train.epochs", "1", "--train.tracker", "mlflow"]) == 0
    assert "MLflow run" in capsys.readouterr().out
    assert cli.main([*argv, "--train.epochs", "2", "--train.tracker", "mlflow", "--resume"]) == 0
    [run] = mlflow.search_runs(experiment_names=[trackers.PROJECT], output_format="list")
    artifact, client = Artifact(tmp_path / "runs" / "a"), mlflow.MlflowClient()
    assert json.loads((artifact.logs / "tracker.json").read_text()) == {"mlflow": run.info.run_id}
    assert run.info.status == "FINISHED" and run.info.run_name.endswith("/a")
    assert run.data.params["data.size"] == "32" and run.data.params["optimizer_name"].startswith("adam")
    settings = config.run_to_dict(config.parse(["--config", str(artifact.config)], "t"))
    assert {f"{part}.{key}" for part in settings for key in settings[part]} <= set(run.data.params)
    history = {row.step: row.value for row in client.get_metric_history(run.info.run_id, "val_loss")}
    losses = [float(line.split(",")[3]) for line in artifact.history.read_text().splitlines()[1:]]
    assert history == pytest.approx(dict(enumerate(losses)))
    metrics = trackers.final_metrics(json.loads(artifact.metrics.read_text()))
    assert {"test_auc", "test_auc_low", "test_auc_high"} <= set(metrics) and metrics.items() <= run.data.metrics.items()
    stored = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "config.yaml", "model_summary.txt"} <= stored
    path = Path(client.download_artifacts(run.info.run_id, "report.html", str(tmp_path)))
    assert path.read_bytes() == artifact.report.read_bytes()


def test_mlflow_is_told_of_failures_and_a_store_that_is_gone(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'tfdetect[mlflow]'")
    logs = tmp_path / "logs"
    settings = {"data": {"size": 32, "path": "\udcff"}, "train": {f"key{i}": "x" * 9000 for i in range(120)}}
    for first in (0, 1):  # two training phases, or a run that is resumed
        with trackers.tracking("mlflow", logs, "a", settings) as tracker:
            train_a_layer(tracker.callbacks, first, first + 1)
    with pytest.raises(KeyboardInterrupt), trackers.tracking("mlflow", logs, "a", settings):
        raise KeyboardInterrupt
    [run] = mlflow.search_runs(experiment_names=[trackers.PROJECT], output_format="list")
    assert run.info.status == "FAILED" and len(run.data.params) >= 122
    assert float(run.data.params["optimizer_learning_rate"]) == pytest.approx(0.01), "that of the first phase"
    mlflow.set_tracking_uri((tmp_path / "other").as_uri())
    with pytest.raises(UserError, match=r"cannot open a run: .*tracker\.json"), trackers.tracking("mlflow", logs, "a", settings):
        pass
    mlflow.set_tracking_uri(None)


@pytest.fixture
def stand_in(monkeypatch):
    """A module that takes the place of wandb and notes the calls."""
    calls = []

    class Run:
        def __init__(self, **settings):
            self.id, self.config, self.summary = settings["id"], self, {}
            calls.append(("init", settings))

        def update(self, values, allow_val_change):
            calls.append(("config", values))

        def log_artifact(self, artifact):
            calls.append(("artifact", artifact.paths))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            calls.append(("end", error[0], self.summary))

    class Artifact:
        def __init__(self, name, type):
            self.paths = []
            self.add_file = self.paths.append

    class WandbMetricsLogger(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            calls.append(("epoch", epoch))

    modules = {name: types.ModuleType(name) for name in ("wandb", "wandb.integration", "wandb.integration.keras")}
    modules["wandb"].__spec__ = ModuleSpec("wandb", None)
    modules["wandb"].init, modules["wandb"].Artifact = Run, Artifact
    modules["wandb.integration.keras"].WandbMetricsLogger = WandbMetricsLogger
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_weights_and_biases_by_a_stand_in(stand_in, tmp_path, monkeypatch):
    trackers.require("wandb")
    for first in (0, 1):
        with trackers.tracking("wandb", tmp_path, "a", {"data": {"size": 32}}) as tracker:
            train_a_layer(tracker.callbacks, first, first + 1)
            tracker.finish(FOUND, [tmp_path / "report.html"])
    names = [call[0] for call in stand_in]
    assert names == ["init", "config", "epoch", "artifact", "end"] * 2 and ("epoch", 1) in stand_in
    first, second = (settings for name, settings in (call for call in stand_in if call[0] == "init"))
    assert first["id"] == second["id"] and (first["resume"], first["mode"], first["dir"]) == ("allow", "offline", str(tmp_path))
    assert stand_in[4] == ("end", None, FINAL) and stand_in[1] == ("config", {"data.size": 32}) and "offline" in tracker.where
    monkeypatch.setenv("WANDB_API_KEY", "key")
    with pytest.raises(ZeroDivisionError), trackers.tracking("wandb", tmp_path, "a", {}):
        raise ZeroDivisionError
    assert stand_in[-1][:2] == ("end", ZeroDivisionError) and stand_in[-3][1]["mode"] is None, "as the environment says"


def test_weights_and_biases_offline(tmp_path):
    wandb = pytest.importorskip("wandb", reason="pip install 'tfdetect[wandb]'")
    (tmp_path / "report.html").write_text("report")
    for first in (0, 1):
        with trackers.tracking("wandb", tmp_path, "a", {"data": {"size": 32}}) as tracker:
            assert wandb.run.settings.mode == "offline" and wandb.run.project == trackers.PROJECT
            train_a_layer(tracker.callbacks, first, first + 1)
            tracker.finish(FOUND, [tmp_path / "report.html"])
            assert wandb.run.config["data.size"] == 32 and FINAL.items() <= dict(wandb.run.summary).items()
    assert {path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")} == {tracker.ident}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["train", "cnn", "--train.tracker", name]) == 2
    assert f"--train.tracker {name} needs the package {name}, which is not installed: pip install" in capsys.readouterr().err
    trackers.require("none")
    with trackers.tracking("none", Path("nowhere"), "", {}) as tracker:
        assert tracker.callbacks == () and tracker.finish({}, []) is None
