"""What is familiar to other kinds of detectors: on stored features, trained on real files alone, on the frames of videos."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.data.sample import Sample, write
from tfdetect.evaluation import predictions
from tfdetect.evaluation.familiarity import DISTANCES, Familiarity

pytestmark = [pytest.mark.usefixtures("light"), pytest.mark.slow]


def train(folder, detector, data, *flags):
    argv = ["train", detector, "--data.path", str(data), "--stress", "0", "--out", str(folder)]
    argv += ["--data.cache_dir", str(folder / "cache")]
    assert cli.main([*argv, *flags]) == 0
    return Artifact(folder / detector)


def predict(run, capsys, *paths):
    capsys.readouterr()
    assert cli.main(["predict", str(run.folder), *map(str, paths), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    """A one-class detector on stored features of 200 real images; there are no fakes at all."""
    folder = tmp_path_factory.mktemp("one_class")
    write(Sample("image", count=200, size=32), folder / "set")
    shutil.rmtree(folder / "set" / "fake")
    for table in (folder / "set").glob("*.csv"):
        table.unlink()
    flags = ["--data.size", "32", "--detector.backbone", "cosines"]
    return train(folder, "feature_oneclass", folder / "set", *flags)


def test_stored_features_and_predict_give_the_same_distances_without_any_fake(one_class, capsys):
    table = predictions.read(one_class.predictions)
    assert set(table["label"]) == {0} and table[list(DISTANCES)].notna().all().all()
    test = table[table["split"] == "test"]
    known = Familiarity.load(one_class.familiarity)
    rows = predict(one_class, capsys, *test["path"])
    expected = known.p_values(*(test[name] for name in DISTANCES))
    np.testing.assert_allclose([row["familiarity"] for row in rows], expected, atol=1e-6)
    black = one_class.folder.parent / "black.png"
    cv2.imwrite(str(black), np.zeros((32, 32, 3)))
    assert predict(one_class, capsys, black)[0]["verdict"] == "inconclusive"


def test_videos_of_a_frame_detector_are_judged_by_the_mean_over_their_frames(tmp_path, capsys):
    write(Sample("video", count=200, size=32, frames=6), tmp_path / "set")
    flags = ["--data.size", "32", "--data.frames", "4", "--train.epochs", "1", "--detector.width", "4"]
    run = train(tmp_path, "cnn", tmp_path / "set", *flags)
    frames = predictions.read(run.predictions)
    test = predictions.by_file(frames).query("split == 'test'").head(10)
    assert (frames.groupby("path").size() == 4).all()
    known = Familiarity.load(run.familiarity)
    rows = predict(run, capsys, *test["path"])
    means = [frames.groupby("path")[name].mean()[test["path"]] for name in DISTANCES]
    np.testing.assert_allclose([row["familiarity"] for row in rows], known.p_values(*means), atol=1e-6)
    assert [row["unfamiliar_reason"] or "" for row in rows] == known.reasons(*means).tolist()
