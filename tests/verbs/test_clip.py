"""The clip detector from flags to report, SavedModel and verdict, on a tiny random backbone."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.data.media.read import read_media
from tfdetect.evaluation import predictions
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.pretrained import backbones, presets
from tfdetect.workflow import feature_report

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """48 PNG images; fakes are so much brighter that random features separate them. Both classes show cats and dogs."""
    folder, rng = tmp_path_factory.mktemp("bright"), np.random.default_rng(0)
    rows = []
    for number in range(48):
        label, path = number % 2, folder / f"{number}.png"
        keras.utils.save_img(path, rng.integers(0, 60, (32, 32, 3)) + 150 * label, scale=False)
        shown = {"source": ["camera", "gan"][label], "category": ["cat", "dog"][number // 2 % 2]}
        rows.append({"path": path.name, "label": label, **shown})
    pd.DataFrame(rows).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


@pytest.fixture(scope="module")
def triplets(manifest):
    """A run with a triplet head and texts."""
    return train(manifest, "triplet_svm", "--detector.text", "product", "--detector.template", "the {category}")


def train(manifest, head, *flags):
    folder = manifest.parent
    common = ["--data.path", str(manifest), "--data.size", "32", "--data.cache_dir", str(folder / "cache"), "--out", str(folder)]
    common += ["--train.epochs", "40", "--train.batch", "8", "--train.learning_rate", "1e-2", "--detector.preset", "tiny"]
    assert cli.main(["train", "clip", "--detector.head", head, *common, "--name", head, *flags]) == 0
    return Artifact(folder / head)


def test_views_are_trained_on_and_the_saved_model_gives_the_scores(manifest, monkeypatch):
    monkeypatch.setattr("tfdetect.workflow.stress.STRESS_NAMES", ("none", "jpeg(70)", "blur(1)"))
    artifact = train(manifest, "linear", "--detector.views", "3", "--train.augment", "flip|noise(0,10)", "--stress", "8")
    metrics = json.loads(artifact.metrics.read_text())
    assert metrics["stress"]["none"]["auc"] == metrics["stress"]["blur(1)"]["auc"] == 1.0  # brightness survives blur
    assert metrics["test"]["auc"] == 1.0 and metrics["features_against_pixels"]["score"] < 1e-4
    test = predictions.read(artifact.predictions).query("split == 'test'")
    signature = tf.saved_model.load(str(artifact.saved_model)).signatures["serve_bytes"]
    out = signature(image=tf.constant([(manifest.parent / path).read_bytes() for path in test["path"]]))
    np.testing.assert_allclose(out["score"], test["score"], atol=1e-5, rtol=1e-5)


def test_the_report_says_that_the_backbone_is_random_and_shows_its_features(triplets):
    page = triplets.report.read_text()
    assert "THE BACKBONE IS RANDOM" in page
    for words in ("Principal components of the embedding", "Variance that the components", "t-SNE of the embedding",
                  "Distances of anchors", "Confusion in each split", "Splits and classes",
                  "Accuracy, precision, recall and F1 in each split", "Principal components, test files"):  # fmt: skip
        assert words in page
    plots = {path.name for path in triplets.plots.iterdir()}
    assert {"history.png", "t-SNE_of_the_embedding_test_files.png", "Confusion_in_each_split.png"} <= plots
    assert list(pd.read_csv(triplets.history)) == ["epoch", "loss", "val_loss"]
    assert "projector_config.pbtxt" in {path.name for path in (triplets.logs / "test").iterdir()}


def test_a_detector_on_stored_features_is_scored_whole_in_a_robustness_sweep(triplets, manifest):
    assert cli.main(["evaluate", str(triplets.folder), "--robustness", "brightness(-255)", "jpeg(90)"]) == 0
    folder = triplets.folder / "evaluations" / "own_test"
    found = json.loads((folder / "metrics.json").read_text())
    rows, test = found["robustness"], found["test"]
    assert rows["none"]["auc"] == test["auc"] == 1.0 and rows["none"]["accuracy"] == test["accuracy"]
    assert rows["jpeg(90)"]["auc"] == 1.0, "brightness survives compression"
    assert rows["brightness(-255)"]["accuracy"] == 0.5, "all files are black and get one verdict"


def test_the_closest_text_is_in_the_saved_model_and_in_predict(triplets, manifest, capsys):
    capsys.readouterr()
    assert cli.main(["predict", str(triplets.folder), str(manifest.parent / "0.png"), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["text"] in ("the cat", "the dog") and verdict["label"] in ("real", "fake")
    signature = tf.saved_model.load(str(triplets.saved_model)).signatures["serving_default"]
    frames = np.stack([read_media(manifest.parent / f"{number}.png", 1, size=32).frames for number in range(4)])
    out = signature(clip=tf.constant(frames))
    assert out["text"].numpy()[0].decode() == verdict["text"]
    assert out["score"].numpy()[0] == pytest.approx(verdict["score"], rel=1e-5, abs=1e-5)


def test_texts_that_give_the_label_away_are_reported(triplets):
    assert "occurs with only real or only fake images" not in triplets.report.read_text()
    rows = pd.DataFrame({"text": ["a", "a", "b", "c"], "label": [0, 1, 1, 0]})
    assert feature_report.share_of_telling_texts(rows) == 0.5
    calm = {"score": 0.0, "probability": 0.0, "frames": 16}
    assert not feature_report.warnings(calm, 0.5) and "75% of the training images" in feature_report.warnings(calm, 0.75)[0]
    assert "differ" in feature_report.warnings({**calm, "score": 0.02})[0]


def test_prompts_need_no_training():
    detector = Clip(preset="tiny", head="prompts", real_prompts=("dark",), fake_prompts=("bright", "very bright"))
    model = detector.build((1, 32, 32, 3))
    rows = backbones.text_encoder(presets.load("tiny"))(["dark", "bright", "very bright"])
    dark, bright, very = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    both = (bright + very) / np.linalg.norm(bright + very)
    kernel = keras.ops.convert_to_numpy(model.get_layer("score").kernel)
    np.testing.assert_allclose(kernel[:, 0], 100 * (both - dark), rtol=1e-4, atol=1e-4)
    assert detector.fit_head(model, None) is model


def test_images_without_text_are_refused(images, tmp_path, capsys):
    flags = ["--detector.preset", "tiny", "--data.size", "32", "--data.cache_dir", str(tmp_path / "c"), "--out", str(tmp_path)]
    table = pd.read_csv(images / "manifest.csv").drop(columns="category")
    table.assign(path=[images / path for path in table["path"]]).to_csv(tmp_path / "m.csv", index=False)
    assert cli.main(["train", "clip", "--detector.text", "sum", "--data.path", str(tmp_path / "m.csv"), *flags]) == 2
    output = capsys.readouterr().err
    assert "neither text nor category" in output and "Traceback" not in output


@pytest.mark.parametrize("flags", [["--detector.views", "3"], ["--train.augment", "flip"]])
def test_views_and_augmentation_need_each_other(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "clip", "--detector.preset", "tiny", *flags])
    assert stop.value.code == 2 and "--train.augment" in capsys.readouterr().err
