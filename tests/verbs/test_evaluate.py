"""evaluate: a trained run on its own test files, other files, some sources, and corrupted files."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.evaluation import predictions

pytestmark = pytest.mark.usefixtures("light")


def evaluate(run, *flags):
    """Evaluate into evaluations/ of the run, or where --out says; return the metrics and the results."""
    known = {*run.folder.glob("evaluations/*")}
    assert cli.main(["evaluate", str(run.folder), *map(str, flags)]) == 0
    [folder] = [flags[flags.index("--out") + 1]] if "--out" in flags else {*run.folder.glob("evaluations/*")} - known
    target = Artifact(folder)
    return json.loads(target.metrics.read_text()), target


def refusal(run, capsys, *flags):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(run.folder), *flags])
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_own_test_files_have_the_figures_of_the_training_and_stress_measures_what_corrupt_does(cnn, tmp_path, capsys):
    own, target = evaluate(cnn, "--stress", "100")
    assert target.folder.name == "own_test" and "AUC of 8 test files: as they are" in capsys.readouterr().out
    trained = json.loads(cnn.metrics.read_text())
    assert own["test"]["auc"] == trained["test"]["auc"] and own["validation"] == trained["validation"]
    page = target.report.read_text()
    assert "Altered test files" in page and "Nearest training files" not in page
    corrupted, other = evaluate(cnn, "--data.corrupt", "resize(0.5)")
    assert own["stress"]["resize(0.5)"]["auc"] == corrupted["test"]["auc"] and "stress" not in corrupted
    assert other.folder.name == "own_test-resize_0.5"
    assert "corrupted before they were scored: resize(0.5)." in other.report.read_text()
    plain, scores = (predictions.read(run.predictions).query("split == 'test'")["score"] for run in (cnn, other))
    assert len(plain) == len(scores) and not np.allclose(plain, scores, atol=1e-3)


def test_a_corruption_must_keep_the_labels_and_have_a_known_name(cnn, capsys):
    assert "mixup changes labels" in refusal(cnn, capsys, "--data.corrupt", "jpeg(80)|mixup(0.2)")
    assert "perhaps you meant jpeg" in refusal(cnn, capsys, "--robustness", "jpg(80)").lower()


def test_training_files_among_others_are_left_out(cnn, videos, tmp_path, capsys):
    found, _ = evaluate(cnn, "--data.path", videos, "--out", tmp_path / "leak")
    assert "32 of 40 files were used to train" in capsys.readouterr().out and found["test"]["n"] == 8


def test_evaluating_some_sources_writes_another_report(cnn):
    assert cli.main(["evaluate", str(cnn.folder), "--data.sources", "swap"]) == 0
    (folder,) = (cnn.folder / "evaluations").glob("own_test-*-swap")
    assert set(json.loads((folder / "metrics.json").read_text())["test"]["by_source"]) == {"camera", "swap"}


def test_robustness_scores_are_those_of_files_that_a_user_had_compressed(cnn, images, tmp_path, capsys):
    for path in images.rglob("*.jpg"):
        copy = tmp_path / "data" / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy, "jpeg", quality=40)
    found, target = evaluate(cnn, "--data.path", images, "--robustness", "jpeg(40)")
    assert "robustness: AUC 0." in capsys.readouterr().out and target.folder.name.startswith(f"{images.name}-")
    compressed, other = evaluate(cnn, "--data.path", tmp_path / "data", "--out", tmp_path / "out")
    stored = [json.loads(line) for line in (target.folder / "robustness_scores.jsonl").read_text().splitlines()]
    assert len(stored) == 2 * 40 and found["test"]["n"] == 40
    for text, run in (("", target), ("jpeg(40)", other)):
        scores = sorted(score for _, _, other_text, [score] in stored if other_text == text)
        np.testing.assert_allclose(scores, np.sort(predictions.read(run.predictions)["score"]), atol=1e-5)
    assert found["robustness"]["jpeg(40)"]["auc"] == compressed["test"]["auc"]
    assert found["robustness"]["none"]["accuracy"] == found["test"]["accuracy"]
    page = target.report.read_text()
    assert "<h2>Robustness</h2>" in page and "<td>jpeg(40)</td>" in page and (target.plots / "robustness.png").exists()


def test_robustness_of_videos_encodes_them_anew(cnn, tmp_path):
    corruptions = ["h264(51)", "fps(5)|hevc(30)", "flip(p=1)"]
    found, _ = evaluate(cnn, "--out", tmp_path, "--robustness", *corruptions)
    table = pd.read_csv(tmp_path / "robustness.csv").set_index("corruption")
    assert list(table.index) == ["none", *corruptions]
    assert (table["n"] == 8).all() and (table["failed"] == 0).all()
    assert table.loc["none", "auc"] == found["test"]["auc"]
    stored = [json.loads(line) for line in (tmp_path / "robustness_scores.jsonl").read_text().splitlines()]
    plain, encoded = (np.array([scores for _, _, other, scores in sorted(stored) if other == text]) for text in ("", "h264(51)"))
    assert plain.shape == (8, 4) and np.abs(plain - encoded).max() > 1e-4
