"""predict and export: the scores of a trained run on files and folders."""

import json
import shutil

import numpy as np
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.evaluation import predictions

pytestmark = pytest.mark.usefixtures("light")


def test_scores_are_those_of_the_exported_model_on_the_files(cnn, capsys):
    table = predictions.by_file(predictions.read(cnn.predictions)).set_index("path")
    paths = list(table.index[:5])
    capsys.readouterr()
    assert cli.main(["predict", str(cnn.folder), "--json", *paths]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == paths and set(rows[0]) >= {"probability", "label", "score", "frames", "error"}
    np.testing.assert_allclose([row["score"] for row in rows], table.loc[paths, "score"], atol=1e-5)
    np.testing.assert_allclose([row["probability"] for row in rows], table.loc[paths, "probability"], atol=1e-6)


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


def test_devices_are_printed_to_stderr(cnn, videos, capfd):
    file = str(next(videos.glob("real/*")))
    assert cli.main(["predict", str(cnn.folder), file, "--json"]) == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == [file]
    assert "CPU core" in err and "; TensorFlow 2" in err and "Keras" not in err, "a SavedModel is served without Keras"


def test_export_writes_a_model_with_the_same_scores(cnn, images, tmp_path, capsys):
    run, path = Artifact(shutil.copytree(cnn.folder, tmp_path / "cnn")), str(next((images / "fake").iterdir()))

    def scores():
        capsys.readouterr()
        assert cli.main(["predict", str(run.folder), "--json", path]) == 0
        return json.loads(capsys.readouterr().out)

    before = scores()
    shutil.rmtree(run.saved_model)
    assert scores()["score"] == pytest.approx(before["score"], abs=1e-5), "without a SavedModel, by model.keras"
    assert cli.main(["predict", str(run.folder), path]) == 0
    assert "Scored with model.keras on tensorflow, since there is no SavedModel; run export" in capsys.readouterr().err
    assert cli.main(["export", str(run.folder)]) == 0
    assert scores() == before
