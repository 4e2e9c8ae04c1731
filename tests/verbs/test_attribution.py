"""Attribution: a run that also names the source of a fake, from the flags to the report, SavedModel and verdict."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfdetect import artifact as artifacts
from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.evaluation import metrics, predictions

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attribution")
    flags = ["--data.path", str(images), "--data.size", "32", "--data.cache_dir", str(folder / "cache"), "--out", str(folder)]
    flags += ["--train.epochs", "1", "--train.batch", "8", "--detector.weights", "none", "--detector.attribute", "source"]
    assert cli.main(["train", "squeezenet", *flags]) == 0
    return Artifact(folder / "squeezenet")


def test_the_classes_are_the_sources_of_the_training_fakes(run, images):
    sources = sorted(set(detect.read(images)["source"]) - {"camera"})
    table = predictions.read(run.predictions)
    assert metrics.attributed_sources(table) == sources
    probabilities = table[[f"is {name}" for name in sources]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (table["source_class"] == table["source"].where(table["label"] == 1, "")).all()


def test_metrics_and_plots_cover_detection_and_attribution(run):
    attribution = json.loads(run.metrics.read_text())["test"]["attribution"]
    test = predictions.read(run.predictions).query("split == 'test' and label == 1")
    assert attribution["n"] == len(test) == np.sum(attribution["confusion"])
    columns = [f"is {name}" for name in attribution["classes"]]
    called = test[columns].idxmax(axis=1).str.removeprefix("is ")
    assert attribution["accuracy"] == pytest.approx((called == test["source"]).mean())
    assert {"confusion.png", "attribution.png"} <= {path.name for path in run.plots.iterdir()}


def test_the_saved_model_names_the_sources(run, rng):
    serve = tf.saved_model.load(str(run.saved_model)).signatures["serving_default"]
    out = serve(clip=tf.constant(rng.integers(0, 256, (2, 3, 40, 50, 3), np.uint8)))
    assert out["source"].shape == (2, 2) and out["score"].shape == (2,)
    names = metrics.attributed_sources(predictions.read(run.predictions))
    assert out["source_name"].numpy().astype(str).tolist() == [names, names], "one row for each clip, as servers need it"


def test_predict_and_evaluate_print_the_source(run, images, capsys):
    calibration = run.calibration.read_bytes()
    run.calibration.write_text(json.dumps({**json.loads(calibration), "threshold": 0.0}))  # all are called fake
    try:
        assert cli.main(["predict", str(run.folder), str(next(images.rglob("*.jpg"))), "--trust"]) == 0
    finally:
        run.calibration.write_bytes(calibration)
    assert "most likely " in capsys.readouterr().out
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert "source of the 4 fakes: accuracy" in capsys.readouterr().out


def test_an_interrupted_run_is_recognised(run, images):
    """The classes in config.yaml, which the flags lack, do not make it another run."""
    parsed = config.parse(["--config", str(run.config), "--name", "squeezenet", "--out", str(run.folder.parent), "--resume"], "t")
    bare = dataclasses.replace(parsed, detector=dataclasses.replace(parsed.detector, classes=()))
    assert artifacts.select_folder(bare) == (run, True)


@pytest.mark.parametrize(("families", "message"), [((), "needs a column family"), (("swap=face", "x=y"), "at least two kinds")])
def test_families_that_cannot_be_attributed_are_refused(images, tmp_path, families, message, capsys):
    flags = ["--detector.attribute", "family", "--detector.weights", "none", "--data.cache_dir", str(tmp_path / "c")]
    flags += ["--detector.families", *families] if families else []
    flags += ["--data.path", str(images), "--data.size", "32", "--out", str(tmp_path)]
    assert cli.main(["train", "squeezenet", *flags]) == 2
    assert message in capsys.readouterr().err


def test_families_come_from_the_flag_or_from_the_manifest(tmp_path):
    columns = {"source": ["camera", "sd", "stylegan"], "family": ["", "d", "g"]}
    rows = pd.DataFrame({"path": list("abc"), "label": [0, 1, 1], **columns})
    rows.to_csv(tmp_path / "m.csv", index=False)
    table = manifest.read(tmp_path / "m.csv")
    assert list(manifest.attribution_classes(table, "family")) == ["", "d", "g"]
    assert list(manifest.attribution_classes(table, "family", ("sd=diffusion",))) == ["", "diffusion", ""]
    assert list(manifest.attribution_classes(table, "source")) == ["", "sd", "stylegan"]


def test_augmentation_that_changes_labels_is_refused_with_attribution(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "resnet50", "--detector.attribute", "source", "--train.augment", "mixup(0.3)"])
    assert "mixup" in capsys.readouterr().err
