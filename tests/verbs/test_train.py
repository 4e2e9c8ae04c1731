"""train: what it writes, what TensorBoard shows of it, and that its config repeats it. Two runs are trained without stubs."""

import io
import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tensorboard import default, program
from tensorboard.backend.application import TensorBoardWSGIApp
from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
from werkzeug.test import Client

from tfdetect import cli, config, models
from tfdetect.api import train as training
from tfdetect.artifact import Artifact
from tfdetect.evaluation import calibration, predictions
from tfdetect.plots import standard
from tfdetect.workflow import cost, quick_maps, training_data

pytestmark = pytest.mark.usefixtures("light_test")  # but the two runs are trained without stubs


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def flags(settings, out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_maps, "MAX_SECONDS", float("inf"))  # heat-maps in TensorBoard, however busy the machine is
        yield [*settings, "--out", str(out)]


@pytest.fixture(scope="module")
def cnn(videos, out, flags):
    """An image detector, trained on videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tfdetect", "train", "cnn", "--data.path", str(videos), "--detector.width", "4", *flags])
        assert cli.main() == 0
    return Artifact(out / "cnn")


@pytest.fixture(scope="module")
def cnn_lstm(videos, out, flags):
    assert cli.main(["train", "cnn_lstm", "--data.path", str(videos), *flags]) == 0
    return Artifact(out / "cnn_lstm")


@pytest.fixture(scope="module", autouse=True)
def without_stubs(cnn, cnn_lstm):
    """Train both before the first test begins with its stubs."""


@pytest.mark.parametrize("name", ["cnn", "cnn_lstm"])
def test_a_run_writes_all_its_files(name, request):
    artifact = request.getfixturevalue(name)
    names = {path.name for path in artifact.folder.iterdir()}
    assert names == {"1", "config.yaml", "model.keras", "calibration.json", "metrics.json", "predictions.csv", "history.csv",
                     "report.html", "report.md", "README.md", "plots", "logs", "manifest.csv", "failures.csv", "SERVING.md",
                     "shortcuts.json", "checkpoints", "cost.json", "SHA256SUMS", "models.config", "monitoring.config",
                     "batching.config"}  # fmt: skip
    spent = json.loads((artifact.folder / "cost.json").read_text())
    assert 0 < spent["training_seconds"] < 600 and "CPU" in spent["device"]
    assert cost.count_parameters(artifact.model) == models.load(artifact.model).count_params()
    metrics = json.loads(artifact.metrics.read_text())
    keys = {"n", "auc", "ap", "eer", "accuracy", "balanced_accuracy", "f1", "log_loss", "confusion", "by_source", "by_frame"}
    assert set(metrics) == {"validation", "test", "scored_with", "threshold_rule", "stress"} and keys <= set(metrics["test"])
    assert (metrics["scored_with"], metrics["threshold_rule"]) == ("saved_model", "youden")
    manifest = pd.read_csv(artifact.manifest)
    assert metrics["test"]["n"] == (manifest["split"] == "test").sum() == 8
    assert metrics["test"]["by_frame"]["n"] == 8 * (4 if name == "cnn" else 1)
    table = predictions.read(artifact.predictions)
    assert set(table["path"]) == set(manifest[manifest["split"] != "train"]["path"]), "training files are not scored"
    page = artifact.report.read_text()
    shortcut = json.loads(artifact.shortcuts.read_text())["all"]
    assert f"<b>{shortcut:.3f}</b><span>shortcut AUC" in page and (artifact.plots / "shortcuts.png").stat().st_size > 10_000
    assert "<h2>What it learnt</h2>" in page and "Measured on 8 of 8 test files" in page
    assert (artifact.plots / "stress.png").stat().st_size > 10_000
    assert metrics["stress"]["none"]["auc"] == metrics["test"]["auc"] and set(metrics["stress"]) == set(standard.STRESS_NAMES)
    assert "training files, by the model&#x27;s layer" in page or "No test file is misjudged." in page
    assert ("<pre>tfdetect train cnn --data.path" in page) == (name == "cnn"), "the command line, if there was one"
    assert len(list(artifact.logs.rglob("events*"))) >= 3


def test_tensorboard_shows_the_run(cnn, cnn_lstm):
    """Asked as its page asks it: through the HTTP API of the whole application."""
    flags, plugins = configure_tensorboard(cnn.folder.parent)
    ingester = LocalDataIngester(flags)
    ingester.start()
    application = TensorBoardWSGIApp(flags, plugins, ingester.data_provider, None, ingester.deprecated_multiplexer)
    client = Client(application)

    def get(route, **query):
        response = client.get(f"/data/{route}", query_string=query or None)
        assert response.status_code == 200, response.text
        return response

    def ask(plugin, **query):
        return get(f"plugin/{plugin}", **query).json

    active = {name for name, plugin in get("plugins_listing").json.items() if plugin["enabled"]}
    assert {"scalars", "pr_curves", "hparams", "images", "graphs"} <= active
    for name in ("cnn", "cnn_lstm"):
        run = f"{name}/logs/test"
        epochs = ask("scalars/scalars", run=f"{name}/logs/train", tag="epoch_loss")
        assert [step for _, step, _ in epochs] == [0, 1]
        [(_, _, auc)] = ask("scalars/scalars", run=run, tag="test_auc")
        metrics = json.loads((cnn.folder.parent / name / "metrics.json").read_text())["test"]
        assert auc == pytest.approx(metrics["auc"])
        [tag] = ask("pr_curves/tags")[run]
        [curve] = ask("pr_curves/pr_curves", run=run, tag=tag)[run]
        assert len(curve["precision"]) == len(curve["recall"]) > 2 and curve["true_positives"][0] == metrics["n_fake"]
        images = ask("images/tags")[run]
        maps = {tag for tag in images if tag.startswith("heat-maps/")}
        assert {tag.split("/")[1] for tag in maps} == {"real", "fake"} and len(maps) == 4 and maps < set(images)
        for tag in sorted(maps):
            assert "Hiding the hottest tenth" in images[tag]["description"]
            [shown] = ask("images/images", run=run, tag=tag, sample=0)
            picture = Image.open(io.BytesIO(get("plugin/images/individualImage?" + shown["query"]).data))
            assert len(np.unique(np.asarray(picture))) > 100, "a drawn figure"
    request = {"colParams": [], "startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_RUNNING"]}
    groups = client.post("/data/plugin/hparams/session_groups", json=request).json["sessionGroups"]
    assert {group["hparams"]["detector.name"]: group["hparams"]["data.size"] for group in groups} == {"cnn": 32, "cnn_lstm": 32}


def configure_tensorboard(folder):
    """Return the flags and plugins of `tensorboard --logdir folder`, which reads the events once, at its start."""
    board = program.TensorBoard(plugins=default.get_plugins())
    board.configure(argv=["", "--logdir", str(folder), "--reload_interval", "0", "--reload_task", "blocking",
                          "--load_fast", "false"])  # fmt: skip
    return board.flags, board.plugin_loaders


def test_calibration_comes_from_validation_alone(cnn):
    files = predictions.by_file(predictions.read(cnn.predictions))
    validation = files[files["split"] == "validation"]
    fitted = calibration.fit(validation["score"].to_numpy(), validation["label"].to_numpy())
    stored = json.loads(cnn.calibration.read_text())
    assert stored["slope"] == pytest.approx(fitted.slope, rel=1e-5)
    assert stored["threshold"] == pytest.approx(fitted.threshold, abs=1e-6)


def test_zero_epochs_evaluate_the_initial_weights(images, flags, out):
    assert cli.main(["train", "mesonet", "--data.path", str(images), *flags, "--train.epochs", "0"]) == 0
    artifact = Artifact(out / "mesonet")
    assert artifact.is_finished and len(pd.read_csv(artifact.history)) == 0 and artifact.report.exists()


def test_config_repeats_the_run(cnn, out, capsys):
    argv = ["train", "--config", str(cnn.config), "--out", str(out), "--name", "again", "--stress", "400"]
    assert cli.main(argv) == 0
    again = Artifact(out / "again")
    assert again.history.read_text() == cnn.history.read_text()
    metrics = [json.loads(run.metrics.read_text()) for run in (again, cnn)]
    for found in metrics:
        del found["test"]["shortcut_intervals"]  # `cnn` was trained without the stubs, which fit other trees
    assert metrics[0] == metrics[1]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "--resume" in err and "--overwrite" in err


def test_cnn_lstm_from_a_trained_cnn(cnn, videos, flags, out):
    frozen = ["--detector.frame_model", str(cnn.folder), "--detector.freeze", "--name", "frozen", "--train.epochs", "1"]
    assert cli.main(["train", "cnn_lstm", "--data.path", str(videos), *flags, *frozen]) == 0
    artifact = Artifact(out / "frozen")
    assert artifact.report.exists() and len(pd.read_csv(artifact.predictions)) < 40, "a score per file"
    assert json.loads(artifact.metrics.read_text())["features_against_pixels"]["score"] < 1e-3


def test_too_few_files_for_a_batch_or_for_choosing_an_epoch_give_a_warning():
    def output(reals, fakes, batch, name="cnn"):
        rows = [("train", 0, 3)] * 4 + [("train", 1, 3)] * 4 + [("validation", 0, 3)] * reals + [("validation", 1, 3)] * fakes
        table = pd.DataFrame(rows, columns=["split", "label", "frames"])
        return training_data.warnings(config.parse([name, "--train.batch", str(batch)], "t"), table)

    assert output(5, 5, 24) == ()
    assert "--train.batch 25 is more than the 24 training frames" in output(5, 5, 25)[0]
    assert output(5, 5, 8, "cnn_lstm") == () and "the 8 training clips" in output(5, 5, 9, "cnn_lstm")[0]
    assert "Validation has only 1 real and 7 fake files" in output(1, 7, 8)[0]
    assert output(5, 0, 8, "oc_ae") == (), "a one-class detector needs no fakes there"


class ResourceExhaustedError(Exception):
    """Has the name of TensorFlow's."""


@pytest.mark.parametrize("error", [MemoryError(), ResourceExhaustedError("OOM"), RuntimeError("RESOURCE_EXHAUSTED: x")])
def test_out_of_memory_names_the_settings_to_lower(error):
    run = config.parse(["cnn", "--train.batch", "64"], "t")
    with pytest.raises(ValueError, match="lower --train.batch \\(64\\)"), training.explain_out_of_memory(run):
        raise error
    with pytest.raises(RuntimeError, match="another"), training.explain_out_of_memory(run):
        raise RuntimeError("another")
