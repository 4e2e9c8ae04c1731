"""End-to-end tests on small data: train, evaluate, predict, explain, export."""

import html
import io
import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tensorboard import default, program
from tensorboard.backend.application import TensorBoardWSGIApp
from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
from werkzeug.test import Client

from tfdetect import cli, config, models
from tfdetect.api import explain
from tfdetect.api import train as training
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import evenly_spaced
from tfdetect.data.sample import Scene
from tfdetect.evaluation import predictions
from tfdetect.pages import explanation
from tfdetect.plots import standard
from tfdetect.serving.predictor import Verdict
from tfdetect.workflow import cost, explaining, quick_maps, training_data

pytestmark = pytest.mark.usefixtures("light_test")  # but the two runs are trained without stubs
SETTINGS = ["--data.frames", "4", "--data.size", "32", "--train.epochs", "2", "--train.batch", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="module")
def flags(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_maps, "MAX_SECONDS", float("inf"))  # heat-maps in TensorBoard, however busy the machine is
        yield [*SETTINGS, "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs")]


@pytest.fixture(scope="module")
def cnn(videos, folder, flags):
    """An image detector, trained on videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tfdetect", "train", "cnn", "--data.path", str(videos), "--detector.width", "4", *flags])
        assert cli.main() == 0
    return Artifact(folder / "runs" / "cnn")


@pytest.fixture(scope="module")
def cnn_lstm(videos, folder, flags):
    assert cli.main(["train", "cnn_lstm", "--data.path", str(videos), *flags]) == 0
    return Artifact(folder / "runs" / "cnn_lstm")


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


def test_zero_epochs_evaluate_the_initial_weights(images, flags, folder):
    assert cli.main(["train", "mesonet", "--data.path", str(images), *flags, "--train.epochs", "0"]) == 0
    artifact = Artifact(folder / "runs" / "mesonet")
    assert artifact.is_finished and len(pd.read_csv(artifact.history)) == 0 and artifact.report.exists()


def test_scores_are_those_of_the_exported_model_on_the_files(cnn, capsys):
    table = predictions.by_file(predictions.read(cnn.predictions)).set_index("path")
    paths = list(table.index[:5])
    capsys.readouterr()
    assert cli.main(["predict", str(cnn.folder), "--json", *paths]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == paths and set(rows[0]) >= {"probability", "label", "score", "frames", "error"}
    np.testing.assert_allclose([row["score"] for row in rows], table.loc[paths, "score"], atol=1e-4)
    np.testing.assert_allclose([row["probability"] for row in rows], table.loc[paths, "probability"], atol=0.01)


def test_calibration_comes_from_validation_alone(cnn):
    from tfdetect.evaluation import calibration

    files = predictions.by_file(predictions.read(cnn.predictions))
    validation = files[files["split"] == "validation"]
    fitted = calibration.fit(validation["score"].to_numpy(), validation["label"].to_numpy())
    stored = json.loads(cnn.calibration.read_text())
    assert stored["slope"] == pytest.approx(fitted.slope, rel=1e-2)
    assert stored["threshold"] == pytest.approx(fitted.threshold, abs=1e-2)


def test_predict_counts_failures_and_reads_folders(cnn, images, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    assert cli.main(["predict", str(cnn.folder), str(images / "real"), str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "22 files: 20 scored, 1 failed, 1 left out (1 .txt)" in out and "bad.jpg: not an image or video" in out
    assert cli.main(["predict", str(cnn.folder), str(images / "real")]) == 0
    (tmp_path / "empty").mkdir()
    assert cli.main(["predict", str(cnn.folder), str(tmp_path / "empty")]) == 2
    assert "holds no images or videos" in capsys.readouterr().err


@pytest.mark.parametrize("name, method", [("cnn", "integrated_gradients"), ("cnn_lstm", "integrated_gradients")])
def test_explain_writes_a_page_with_a_map_of_each_frame_shown(name, method, request, images, videos, tmp_path, capsys):
    artifact, out = request.getfixturevalue(name), tmp_path / "out"
    files = [str(next((images / "fake").iterdir())), str(next((videos / "fake").iterdir())), str(tmp_path / "none.jpg")]
    argv = ["explain", str(artifact.folder), *files, "--out", str(out), "--cells", "4", "--frames", "2", "--timeline", "8"]
    assert cli.main([*argv, "--overlay", "2"]) == 1
    printed = capsys.readouterr().out
    page, rows = (out / "explanation.html").read_text(), json.loads((out / "explanation.json").read_text())
    other = sum(row["method"] != method for row in rows)  # a map that fails its check is replaced
    instead = f" ({other} with occlusion, since that map failed its check)" if other else ""
    assert "No such file or directory" in printed and f"2 files explained with method {method}{instead}, 1 failed" in printed
    assert page.count(explaining.INSTEAD.format(method).replace("'", "&#x27;")) == 2 * other  # caption and alternative text
    assert page.count("score by") == 2 * 4 and page.count('<svg class="timeline"') == 1 and "timeline" not in rows[0]
    assert explanation.METHOD_NOTES[method] in html.unescape(page) and 'src="overlay-2.mp4"' in page
    line = rows[1]["timeline"]
    assert (line["frames"], line["frames_per_window"], len(line["points"])) == ((8, 1, 8) if name == "cnn" else (8, 4, 5))
    if name == "cnn":  # predict took four of these frames
        frames = [line["points"][at]["score"] for at in evenly_spaced(8, 4)]
        assert rows[1]["score"] == pytest.approx(np.mean(frames), abs=1e-5)
    assert (out / rows[1]["overlay"]).stat().st_size > 1000
    assert set(rows[0]["areas"]) == {rows[0]["method"], "occlusion", "random"}
    if rows[0]["method"] == "integrated_gradients":
        assert rows[0]["attributed"] == pytest.approx(rows[0]["difference"], rel=0.05, abs=0.02)
    assert [row["path"] for row in rows] == files and rows[2]["error"] and "hottest_tenth" not in rows[2]
    assert cli.main(["predict", str(artifact.folder), files[1], "--json"]) == 0
    assert rows[1]["score"] == pytest.approx(json.loads(capsys.readouterr().out)["score"], abs=1e-6)
    assert all(np.isfinite([row["hottest_tenth"], row["elsewhere"]]).all() for row in rows[:2])


def test_explain_compares_maps_with_masks_and_real_twins(cnn, images, tmp_path, capsys):
    """The masks of a table, whose real files take that of the fake of their group; a fake without one is not measured."""
    rows = pd.read_csv(images / "manifest.csv", keep_default_na=False).iloc[:8]
    rows["path"] = [str(images / path) for path in rows["path"]]
    names = {group: f"{group}.png" for group in rows["group"].unique()[:3]}
    for group, name in names.items():
        scene = Scene.draw(np.random.default_rng([0, int(group[-5:])]), 32)
        keras.utils.save_img(tmp_path / name, 255 * np.repeat(scene.mask(32, np.zeros(2), 1.0), 3, axis=2), scale=False)
    rows["mask"] = [names.get(row.group, "") if row.label else "" for row in rows.itertuples()]
    rows.to_csv(tmp_path / "files.csv", index=False)
    argv = ["explain", str(cnn.folder), str(tmp_path / "files.csv"), "--out", str(tmp_path / "out"), "--method", "occlusion"]
    assert cli.main(argv) == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    expected = [bool(row.label) if row.group in names else None for row in rows.itertuples()]
    assert [row.get("forged") for row in found] == expected
    assert all(0 <= row["pixel_auc"] <= 1 and 0 <= row["pointed"] <= 1 for row in found if "forged" in row)
    page = (tmp_path / "out" / "explanation.html").read_text()
    assert "Do the heat-maps find the forgery?" in page and "real twins" in page


def test_the_caption_of_a_figure_says_how_hiding_changes_the_score():
    verdict = Verdict("a.jpg", 0.75, "fake", 1.25, frames=2, note="damaged")
    text = explain.caption(verdict, {"hottest_tenth": 0.083, "elsewhere": -0.375})
    assert text.startswith("fake, probability 0.750, score 1.250, 2 frames (damaged). Hiding the hottest tenth ")
    assert "lowers the score by 0.083" in text and text.endswith("elsewhere raises the score by 0.375.")


def test_impossible_explanations_are_refused(cnn, images, tmp_path, capsys):
    call = ["explain", str(cnn.folder), "--out", str(tmp_path / "out")]
    assert cli.main([*call, str(images), "--method", "error"]) == 2
    assert "cnn reconstructs nothing: use --method occlusion" in capsys.readouterr().err
    assert cli.main([*call, str(images), "--masks", str(tmp_path / "none")]) == 2
    assert "none is no folder with files" in capsys.readouterr().err
    assert cli.main([*call, *[str(images / "fake")] * 11]) == 2
    assert "220 files are too many for one page; give at most 200" in capsys.readouterr().err
    assert cli.main([*call, str(images), "--cells", "33"]) == 2
    assert "--cells 33 is more than the 32 pixels per side that the run uses" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluate_own_test_other_data_and_no_leak(cnn, images, videos, capsys):
    assert cli.main(["evaluate", str(cnn.folder)]) == 0
    own = json.loads((cnn.folder / "evaluations" / "own_test" / "metrics.json").read_text())
    trained = json.loads(cnn.metrics.read_text())
    assert own["test"]["auc"] == trained["test"]["auc"] and own["validation"] == trained["validation"]
    assert cli.main(["evaluate", str(cnn.folder), "--data.path", str(images)]) == 0
    other = Artifact(next((cnn.folder / "evaluations").glob(f"{images.name}-*")))
    assert json.loads(other.metrics.read_text())["test"]["n"] == 40 and other.report.exists()
    capsys.readouterr()
    assert cli.main(["evaluate", str(cnn.folder), "--data.path", str(videos), "--out", str(cnn.folder / "leak")]) == 0
    assert "32 of 40 files were used to train" in capsys.readouterr().out
    assert json.loads((cnn.folder / "leak" / "metrics.json").read_text())["test"]["n"] == 8


def test_evaluating_some_sources_writes_another_report(cnn):
    assert cli.main(["evaluate", str(cnn.folder), "--data.sources", "swap"]) == 0
    (folder,) = (cnn.folder / "evaluations").glob("own_test-*-swap")
    assert set(json.loads((folder / "metrics.json").read_text())["test"]["by_source"]) == {"camera", "swap"}


def test_evaluate_corrupted_clips(cnn, capsys):
    def scores(text):
        assert cli.main(["evaluate", str(cnn.folder), "--data.corrupt", text]) == 0
        return predictions.read(Artifact(Path(capsys.readouterr().out.split("Report")[-1].strip()).parent).predictions)["score"]

    plain = predictions.read(cnn.predictions).query("split == 'test'")["score"].to_numpy()
    assert np.allclose(scores("blur(0)"), plain, atol=1e-5)
    worse = scores("jpeg(5)")
    assert not np.allclose(worse, plain, atol=1e-3) and worse.equals(scores("jpeg(5)"))
    folder = Artifact(cnn.folder / "evaluations" / "own_test-jpeg_5")
    assert "corrupted before they were scored: jpeg(5)." in folder.report.read_text()
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(cnn.folder), "--data.corrupt", "jpeg(80)|mixup(0.2)"])
    assert "mixup changes labels" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_evaluate_stress_measures_what_corrupt_does(cnn, videos, tmp_path, capsys):
    def metrics(*flags):
        assert cli.main(["evaluate", str(cnn.folder), "--out", str(tmp_path / flags[-1]), *flags]) == 0
        return json.loads((tmp_path / flags[-1] / "metrics.json").read_text())

    stressed, corrupted = metrics("--stress", "100"), metrics("--data.corrupt", "resize(0.5)")
    assert stressed["stress"]["resize(0.5)"]["auc"] == corrupted["test"]["auc"] and "stress" not in corrupted
    assert "AUC of 8 test files: as they are" in capsys.readouterr().out
    page = (tmp_path / "100" / "report.html").read_text()
    assert "Altered test files" in page and "Nearest training files" not in page


def test_robustness_scores_are_those_of_files_that_a_user_had_compressed(cnn, images, tmp_path, capsys):
    for path in images.rglob("*.jpg"):
        copy = tmp_path / "data" / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy, "jpeg", quality=40)

    def evaluate(data, *flags):
        out = tmp_path / "out" / data.name
        assert cli.main(["evaluate", str(cnn.folder), "--data.path", str(data), "--out", str(out), *flags]) == 0
        return predictions.read(out / "predictions.csv"), out

    plain, folder = evaluate(images, "--robustness", "jpeg(40)", "blur(0)")
    assert "robustness: AUC 0." in capsys.readouterr().out
    compressed, other = evaluate(tmp_path / "data")
    stored = [json.loads(line) for line in (folder / "robustness_scores.jsonl").read_text().splitlines()]
    assert len(stored) == 3 * 40
    for text, table in (("", plain), ("blur(0)", plain), ("jpeg(40)", compressed)):
        scores = sorted(score for _, _, other_text, [score] in stored if other_text == text)
        np.testing.assert_allclose(scores, np.sort(table["score"]), atol=1e-5)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["robustness"]["jpeg(40)"]["auc"] == json.loads((other / "metrics.json").read_text())["test"]["auc"]
    assert metrics["robustness"]["none"]["accuracy"] == metrics["test"]["accuracy"]
    page = (folder / "report.html").read_text()
    assert "<h2>Robustness</h2>" in page and "<td>jpeg(40)</td>" in page and (folder / "plots" / "robustness.png").exists()
    evaluate(images, "--robustness", "jpeg(40)", "blur(0)")
    assert len((folder / "robustness_scores.jsonl").read_text().splitlines()) == 3 * 40, "nothing was scored again"


def test_robustness_of_videos_encodes_them_anew(cnn_lstm, capsys):
    assert cli.main(["evaluate", str(cnn_lstm.folder), "--robustness", "h264(51)", "fps(5)|hevc(30)", "flip(p=1)"]) == 0
    folder = cnn_lstm.folder / "evaluations" / "own_test"
    table = pd.read_csv(folder / "robustness.csv").set_index("corruption")
    assert list(table.index) == ["none", "h264(51)", "fps(5)|hevc(30)", "flip(p=1)"]
    assert (table["n"] == 8).all() and (table["failed"] == 0).all()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert table.loc["none", "auc"] == metrics["test"]["auc"]
    stored = [json.loads(line) for line in (folder / "robustness_scores.jsonl").read_text().splitlines()]
    scores = {text: np.array([score for _, _, other, [score] in sorted(stored) if other == text])
              for text in ("", "h264(51)")}  # fmt: skip
    assert np.abs(scores[""] - scores["h264(51)"]).max() > 1e-4
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(cnn_lstm.folder), "--robustness", "jpg(80)"])
    assert "perhaps you meant jpeg" in " ".join(capsys.readouterr().err.replace("│", " ").split()).lower()


def test_export_writes_a_model_with_the_same_scores(cnn, images, capsys):
    path = str(next((images / "fake").iterdir()))

    def scores():
        capsys.readouterr()
        assert cli.main(["predict", str(cnn.folder), "--json", path]) == 0
        return json.loads(capsys.readouterr().out)

    before = scores()
    shutil.rmtree(cnn.saved_model)
    assert scores()["score"] == pytest.approx(before["score"], abs=1e-5), "without a SavedModel, by model.keras"
    assert cli.main(["predict", str(cnn.folder), path]) == 0
    assert "Scored with model.keras on tensorflow, since there is no SavedModel; run export" in capsys.readouterr().err
    assert cli.main(["export", str(cnn.folder)]) == 0
    assert scores() == before


def test_config_repeats_the_run(cnn, folder, capsys):
    argv = ["train", "--config", str(cnn.config), "--out", str(folder / "runs"), "--name", "again", "--stress", "400"]
    assert cli.main(argv) == 0
    again = Artifact(folder / "runs" / "again")
    assert again.history.read_text() == cnn.history.read_text()
    metrics = [json.loads(run.metrics.read_text()) for run in (again, cnn)]
    for found in metrics:
        del found["test"]["shortcut_intervals"]  # `cnn` was trained without the stubs, which fit other trees
    assert metrics[0] == metrics[1]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "--resume" in err and "--overwrite" in err


def test_cnn_lstm_from_a_trained_cnn(cnn, videos, flags, folder):
    frozen = ["--detector.frame_model", str(cnn.folder), "--detector.freeze", "--name", "frozen", "--train.epochs", "1"]
    assert cli.main(["train", "cnn_lstm", "--data.path", str(videos), *flags, *frozen]) == 0
    artifact = Artifact(folder / "runs" / "frozen")
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


def test_devices_are_printed_to_stderr(cnn, videos, capfd):
    file = str(next(videos.glob("real/*")))
    assert cli.main(["predict", str(cnn.folder), file, "--json"]) == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == [file]
    assert "CPU core" in err and "; TensorFlow 2" in err and "Keras" not in err, "a SavedModel is served without Keras"
