"""One-class detectors from flags to report: they learn from reals only, and show their reconstructions."""

import json
import shutil

import keras
import light
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfdetect import artifact as artifacts
from tfdetect import cli, models
from tfdetect.api import train as training
from tfdetect.artifact import Artifact
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.detector import REGISTRY
from tfdetect.evaluation import calibration, predictions
from tfdetect.models import autoencoder
from tfdetect.models.detectors.feature_oneclass import FeatureOneClass
from tfdetect.serving.predictor import Predictor
from tfdetect.training import fit, fit_head
from tfdetect.workflow import reconstruction_report

pytestmark = pytest.mark.usefixtures("light")
SMALL = ["--data.size", "32", "--train.batch", "8", "--train.epochs", "4", "--train.eval_every", "1"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """60 PNG images: reals are a wave on grey, fakes are the same with noise."""
    folder, rng = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    rows = []
    for number in range(60):
        label, path = number % 2, folder / f"{number}.png"
        wave = 128 + 60 * np.sin(np.arange(32) / rng.uniform(2, 6) + rng.uniform(0, 6))
        image = np.repeat(np.tile(wave, (32, 1))[..., None], 3, axis=-1) + label * rng.normal(0, 40, (32, 32, 3))
        keras.utils.save_img(path, np.clip(image, 0, 255), scale=False)
        rows.append({"path": path.name, "label": label, "source": ["camera", "gan"][label]})
    pd.DataFrame(rows).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def train(manifest, name, *flags, code=0):
    folder = manifest.parent
    common = ["--data.path", str(manifest), "--data.cache_dir", str(folder / "cache"), "--out", str(folder), "--overwrite"]
    run = "-".join([name, *(flag.strip("-").replace(":", "-") for flag in flags if "/" not in flag)])
    try:
        exit_code = cli.main(["train", name, *common, *SMALL, "--name", run, *flags])
    except SystemExit as stop:  # raised by tyro
        exit_code = stop.code
    assert exit_code == code
    return Artifact(folder / run)


@pytest.fixture(scope="module")
def run(manifest):
    """A variational autoencoder, validated every other epoch."""
    with light.eager():
        flags = ["--train.eval_every", "2", "--train.epochs", "5", "--train.threshold", "quantile:0.8"]
        return train(manifest, "oc_fakedect", *flags)


def test_scores_errors_and_epochs_are_in_the_report(run):
    page = run.report.read_text()
    for title in ("Scores, test files", "Real test files and their reconstructions", "Fake test files and their reconstructions",
                  "Spectrum of the error, test files", "t-SNE of the latent, test files", "F1 by threshold",
                  "Precision and recall by epoch, validation files",
                  "KL of the latent, real validation files"):  # fmt: skip
        assert title in page, title
    assert "precision (real)" in page and "precision (fake)" in page
    assert json.loads(run.metrics.read_text())["test"]["auc"] > 0.9, "noise is not reconstructed"


def test_eval_every_validates_some_epochs(run):
    history = pd.read_csv(run.history)
    assert list(history["epoch"][history["val_ap"].notna()]) == [2, 4, 5]
    assert {"reconstruction", "kl", "val_reconstruction", "val_kl"} <= set(history)
    np.testing.assert_allclose(history["loss"], history["reconstruction"] + history["kl"], rtol=1e-3)


def test_reals_below_the_quantile_pass(run):
    validation = predictions.by_file(predictions.read(run.predictions).query("split == 'validation' and label == 0"))
    threshold = json.loads(run.calibration.read_text())["threshold"]
    passed = (validation["probability"] < threshold).mean()
    assert 0.8 <= passed < 0.8 + 1 / len(validation) + 1e-9


def test_the_saved_model_serves_reconstructions(run, rng):
    served = tf.saved_model.load(str(run.saved_model)).signatures
    clips = rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
    outputs = {name: value.numpy() for name, value in served["serve_reconstruction"](clip=tf.constant(clips)).items()}
    model = models.load(run.model)
    _, again, *_ = autoencoder.reconstruction_model(model).predict(clips.reshape(6, 1, 32, 32, 3), verbose=0)
    again = autoencoder.to_pixels(model, again).reshape(clips.shape)
    np.testing.assert_allclose(outputs["reconstruction"], np.clip(again, 0, 255), atol=0.51)
    np.testing.assert_allclose(outputs["error"], np.abs(again - clips).mean(-1), rtol=1e-5, atol=1e-4)
    score = served["serving_default"](clip=tf.constant(clips))["score"].numpy()
    rmse = np.sqrt((((again - clips) / 127.5) ** 2).reshape(2, 3, -1).mean(-1)).mean(-1)
    np.testing.assert_allclose(score, rmse, rtol=1e-4, err_msg="root mean square over channels, pixels")


def test_explain_shows_the_reconstruction_error(run, manifest, tmp_path, capsys):
    """For a wave with noise on its right half."""
    image = keras.utils.img_to_array(keras.utils.load_img(manifest.parent / "0.png"))
    image[:, 16:] += np.random.default_rng(1).normal(0, 60, (32, 16, 3))
    keras.utils.save_img(tmp_path / "half.png", np.clip(image, 0, 255), scale=False)
    detector, out = artifacts.load_config(run).detector, tmp_path / "out"
    predictor = Predictor(run, ClipSpec(8, 32), detector)
    clip = predictor.spec.read(tmp_path / "half.png").frames
    error = predictor.reconstruction_errors(clip[None])[0]
    assert error.shape == (1, 32, 32) and error[..., 16:].mean() > 1.2 * error[..., :16].mean()
    model = models.load(run.model)
    images = autoencoder.reconstruction_model(model).predict_on_batch(clip[None])[:2]
    before, after = (autoencoder.to_pixels(model, np.asarray(image))[0] for image in images)
    np.testing.assert_allclose(error[0], np.abs(before - after).mean(axis=-1), atol=1e-3)
    shutil.copytree(run.folder, tmp_path / "bare", ignore=shutil.ignore_patterns("1"))
    bare = Predictor(Artifact(tmp_path / "bare"), ClipSpec(8, 32), detector)
    assert bare.scored_with.startswith("model.keras")
    errors = bare.reconstruction_errors(clip[None])[0]
    np.testing.assert_allclose(errors, error, atol=1e-3, err_msg="without a SavedModel, as on other backends")
    argv = ["explain", str(run.folder), str(tmp_path / "half.png"), "--out", str(out), "--method", "error"]
    assert cli.main(argv) == 0
    assert "1 file explained with method error" in capsys.readouterr().out
    assert "The reconstruction error of each region" in (out / "explanation.html").read_text()


def test_the_same_file_gets_the_same_score_every_time(run, manifest, capsys):
    output = []
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(["predict", str(run.folder), str(manifest.parent / "1.png"), "--json"]) == 0
        output.append(json.loads(capsys.readouterr().out.splitlines()[-1])["score"])
    assert output[0] == output[1]


ALONE = [(name, ()) for name, cls in REGISTRY.items() if cls.trains_on == "real" and name != "resnet_vae"]


@pytest.mark.parametrize("name, flags", [*ALONE, ("feature_oneclass", ("--detector.model", "vae"))])
def test_no_fake_is_ever_trained_on(manifest, monkeypatch, name, flags, eager):
    """Neither by gradients nor by a fit without them; nor is a fake in the validation loss."""
    labels = {"train": [], "loss": []}
    training_batches, feature_batches = dataset.training_batches, dataset.feature_batches
    fit_head_of, fit_by_gradient = FeatureOneClass.fit_head, keras.Model.fit

    def record(data, which):
        labels[which] += [label for batch in data for label in batch[1][:, 0].numpy()]
        return data

    def recording_fit(model, data, validation_data, **how):
        is_dataset = isinstance(validation_data, tf.data.Dataset)
        record(validation_data if is_dataset else [(0, tf.constant(validation_data[1]))], "loss")
        return fit_by_gradient(model, data, validation_data=validation_data, **how)

    monkeypatch.setattr(dataset, "training_batches", lambda *args: record(training_batches(*args), "train"))
    monkeypatch.setattr(dataset, "feature_batches", lambda *args: record(feature_batches(*args), "train"))
    monkeypatch.setattr(FeatureOneClass, "fit_head", lambda self, model, context: (
        labels["train"].extend(context.train.labels), fit_head_of(self, model, context))[-1])
    monkeypatch.setattr(keras.Model, "fit", recording_fit)
    monkeypatch.setattr(training, "finish", lambda *args: None)  # what follows the training learns nothing
    monkeypatch.setattr("tfdetect.verbs.train.print_next_steps", lambda *args: None)
    train(manifest, name, "--train.epochs", "1", *flags)
    assert len(labels["train"]) >= 16 and not any(labels["train"]), "16: an epoch of the 21 real training files in batches of 8"
    assert not any(labels["loss"]) and (labels["loss"] or (name == "feature_oneclass" and not flags)), "the bank has no gradients"
    assert fit_head.dataset is dataset, "the patched functions are those that train"


@pytest.fixture(scope="module")
def reals(manifest):
    """The same images, with fakes in the test only."""
    table = pd.read_csv(manifest)
    table["split"] = np.where(table["label"] == 1, "test", np.where(table.index % 10 == 0, "test", ""))
    table.loc[(table["split"] == "") & (table.index % 4 == 0), "split"] = "validation"
    table["split"] = table["split"].replace("", "train")
    table.to_csv(manifest.parent / "reals.csv", index=False)
    return manifest.parent / "reals.csv"


def test_without_fakes_in_validation_loss_picks_the_epoch_and_a_quantile_the_threshold(reals, eager):
    artifact = train(reals, "oc_ae", "--train.epochs", "2")
    history = pd.read_csv(artifact.history)
    assert "val_auc" not in history and "Validation holds only real files" in artifact.report.read_text()
    validation = predictions.by_file(predictions.read(artifact.predictions).query("split == 'validation'"))
    assert (validation["probability"] < json.loads(artifact.calibration.read_text())["threshold"]).mean() >= 0.9


def test_without_fakes_in_validation_f1_is_refused_before_any_training(reals, monkeypatch, capsys):
    monkeypatch.setattr(fit, "fit", None)
    train(reals, "oc_ae", "--train.threshold", "f1", code=2)
    assert "needs real and fake validation files, but validation holds only real files" in capsys.readouterr().err
    calibration.check_rule("f1", [0, 1])


@pytest.mark.parametrize("wrong, message", [
    (("oc_ae", "--detector.score", "kl"), "needs a latent with a variance"),
    (("oc_fakedect", "--detector.variant", "2", "--detector.score", "rmse"), "--detector.variant 2 scores latents"),
    (("oc_ae", "--train.balance", "focal"), "has no classes to balance"),
    (("oc_ae", "--data.size", "34"), "multiple of 4"),
    (("resnet_vae", "--detector.weights", "/nowhere"), "could not open a keras-hub preset of ResNet-18"),
    (("oc_fakedect", "--detector.free_bits", "-1"), "at least 0, got -1"),
])  # fmt: skip
def test_impossible_settings_are_refused(manifest, capsys, wrong, message):
    train(manifest, *wrong, code=2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_posterior_collapse_is_reported():
    assert not reconstruction_report.collapse_warning(np.array([0.0, 0.5]))
    assert "POSTERIOR COLLAPSE: 0 of 4" in reconstruction_report.collapse_warning(np.full(4, 1e-5))[0]
    mean, log_variance = np.array([[1.0, 0.0]]), np.log([[1.0, 1.0]])
    np.testing.assert_allclose(reconstruction_report.latent_kl(mean, log_variance), [0.5, 0.0])
