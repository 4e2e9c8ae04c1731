"""--data.fit and --data.crops from training to prediction; runs and prepared folders that do not have them are squeezed."""

import json

import numpy as np
import pytest
import yaml

import tfdetect
from tfdetect import cli, config
from tfdetect.artifact import Artifact, load_config
from tfdetect.evaluation import predictions

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory, light):
    """A detector trained on five crops of each image of 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("fit")
    flags = ["--data.size", "16", "--data.fit", "crop", "--data.crops", "5", "--train.epochs", "1", "--detector.width", "2",
             "--data.cache_dir", str(folder / "cache"), "--out", str(folder)]  # fmt: skip
    assert cli.main(["train", "cnn", "--data.path", str(images), *flags]) == 0
    return Artifact(folder / "cnn")


def test_a_run_scores_each_crop_and_averages_them_per_file(run):
    table = predictions.read(run.predictions)
    assert (table.groupby("path")["frame"].apply(list).map(len) == 5).all() and set(table["frame"]) == {0, 1, 2, 3, 4}
    assert json.loads(run.metrics.read_text())["test"]["n"] == len(table[table["split"] == "test"]) / 5
    assert table.groupby("path")["score"].std().min() > 0, "crops of an image differ"


def test_predict_evaluate_and_frames_agree(run, tmp_path):
    trained = tfdetect.load(run.folder)
    again = trained.evaluate(out=tmp_path / "again").predictions
    by_file = predictions.by_file(again)
    found = trained.predict(list(by_file["path"]))
    np.testing.assert_allclose(found["score"], by_file["score"], atol=1e-6)
    np.testing.assert_allclose(found["probability"], by_file["probability"], atol=1e-6)
    assert set(found["frames"]) == {5}
    from tfdetect.data.media.read import read_media

    native = np.stack([read_media(path).frames for path in by_file["path"]])
    np.testing.assert_allclose(trained.score(native)["score"], by_file["score"], atol=1e-5)


def test_explain_shows_the_crops(run, images, tmp_path):
    path = next(images.glob("real/*"))
    assert tfdetect.load(run.folder).explain(path, out=tmp_path).table["frames"][0] == 5


def test_the_settings_are_kept_and_old_runs_are_squeezed(run, tmp_path, monkeypatch):
    assert (load_config(run).data.fit, load_config(run).data.crops) == ("crop", 5)
    content = yaml.safe_load(run.config.read_text())
    del content["data"]["fit"], content["data"]["crops"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(type(load_config(run).detector), "default_overrides", {"data.fit": "crop"})
    assert config.parse(["cnn"], "t").data.fit == "crop"
    old = config.parse(["--config", str(tmp_path / "config.yaml")], "t")
    assert (old.data.fit, old.data.crops) == ("squeeze", 1), "not what has become the detector's default since"


def test_a_prepared_folder_brings_its_fit(images, tmp_path):
    folder = tmp_path / "x"
    assert cli.main(["prepare", str(images), "--out", str(folder), "--data.size", "20", "--data.fit", "pad"]) == 0
    assert config.parse(["cnn", "--data.path", str(folder)], "t").data.fit == "pad"
    content = json.loads((folder / "prepared.json").read_text())
    del content["data"]["fit"], content["data"]["crops"]
    (folder / "prepared.json").write_text(json.dumps(content))
    assert config.parse(["cnn", "--data.path", str(folder)], "t").data.fit == "squeeze", "one that an older version made"


@pytest.mark.parametrize("detector, flags, sentence", [
    ("cnn", "--data.crops 5", "--data.crops 5 needs --data.fit crop"),
    ("cnn", "--data.fit crop --data.crops 5 --data.faces yunet", "needs --data.faces none"),
    ("cnn_lstm", "--data.fit crop --data.crops 5", "cnn_lstm takes clips"),
    ("cnn", "--data.fit crop --data.crops 0", "--data.crops must be at least 1"),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_in_one_sentence(detector, flags, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        config.parse([detector, *flags.split()], "train")
    assert stop.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
