"""Training on one manipulation and testing on another; and tests with fakes only."""

import json
import shutil

import pandas as pd
import pytest

from tfdetect import artifact, cli, config
from tfdetect.artifact import Artifact
from tfdetect.data.sample import Sample, write
from tfdetect.evaluation import predictions

pytestmark = pytest.mark.usefixtures("light")
FLAGS = ["--data.size", "32", "--train.epochs", "1", "--train.batch", "8", "--detector.width", "4"]


@pytest.fixture(scope="module")
def two_manipulations(tmp_path_factory):
    """Folder of a manifest of 20 scenes: each real, swapped and upsampled."""
    folder = tmp_path_factory.mktemp("two_manipulations")
    parts = []
    for source in ("swap", "upsample"):
        rows = pd.read_csv(write(Sample("image", count=20, size=32, sources=(source,)), folder / source), dtype=str)
        parts.append(rows.assign(path=source + "/" + rows["path"]))
    table = pd.concat([parts[0], parts[1].query("label == '1'")])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    place = tmp_path_factory.mktemp("across")

    def run(path, name, *flags):
        argv = ["train", "cnn", "--data.path", str(path), "--name", name, *FLAGS, "--data.cache_dir", str(place / "cache")]
        assert cli.main([*argv, "--out", str(place), *flags]) == 0
        return Artifact(place / name)

    return run


@pytest.fixture(scope="module")
def crossed(two_manipulations, train):
    return train(two_manipulations, "crossed", "--data.train_sources", "Swap", "--data.test_sources", "upsample")


@pytest.fixture(scope="module")
def fakes_only(two_manipulations, train):
    """A run whose test has fakes only."""
    table = pd.read_csv(two_manipulations / "manifest.csv", dtype=str, keep_default_na=False)
    number = table["group"].str.removeprefix("scene-").astype(int)
    table["split"] = pd.cut(number, [-1, 12, 15, 19], labels=["train", "val", "test"]).astype(str)
    table = table[(table["split"] != "test") | (table["label"] == "1")]
    table.to_csv(two_manipulations / "fakes_only.csv", index=False)
    return train(two_manipulations / "fakes_only.csv", "fakes_only", "--data.test_sources", "swap,upsample")


def test_each_split_has_its_sources_and_groups_stay_together(crossed):
    table = pd.read_csv(crossed.manifest, dtype={"label": int})
    fakes = table[table["label"] == 1]
    for split, source, count in (("train", "swap", 14), ("validation", "swap", 2), ("test", "upsample", 4)):
        rows = fakes[fakes["split"] == split]
        assert set(rows["source"]) == {source} and len(rows) == count
        assert (table[table["split"] == split]["label"] == 0).sum() == count, "reals are not restricted"
    assert table.groupby("group")["split"].nunique().max() == 1
    scored = predictions.read(crossed.predictions).query("split == 'test' and label == 1")
    assert set(scored["source"]) == {"upsample"} and len(scored) == 4


def test_results_and_final_prediction(crossed):
    metrics = json.loads(crossed.metrics.read_text())["test"]
    table = predictions.read(crossed.predictions).query("split == 'test'").set_index("path")
    results = pd.read_csv(crossed.results)
    assert list(results.columns) == ["file", "probability", "verdict"] and set(results["file"]) == set(table.index)
    assert list(results["probability"]) == list(table.loc[results["file"], "probability"])
    assert list(results["verdict"] == "fake") == list(results["probability"] >= metrics["threshold"])
    lines = crossed.final_prediction.read_text().splitlines()
    assert lines[:4] == ["Run: crossed", "Trained on fakes from: Swap", "Tested on fakes from: upsample",
                        "Test files: 8, 4 real and 4 fake"]  # fmt: skip
    assert lines[4] == f"Accuracy: {metrics['accuracy']:.3f}" and lines[8].startswith(f"AUC: {metrics['auc']:.3f} (95 % interval")


def test_excluded_files_are_counted_but_not_decoded(two_manipulations, train, capsys):
    """An unreadable fake of an excluded source is no failure."""
    table = pd.read_csv(two_manipulations / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[(table["source"] == "upsample"), "path"] = "nothing/" + table["path"]
    table.to_csv(two_manipulations / "broken.csv", index=False)
    sides = ["--data.train_sources", "swap", "--data.test_sources", "swap"]
    run = train(two_manipulations / "broken.csv", "broken", *sides, "--data.max_failed", "0", "--train.epochs", "0")
    assert "Left out as fakes of other sources: 14 of train, 2 of validation, 4 of test." in capsys.readouterr().out
    assert len(pd.read_csv(run.failures)) == 0


def test_evaluating_the_whole_set_drops_other_fakes_of_the_training_groups(crossed, two_manipulations, capsys):
    assert cli.main(["evaluate", str(crossed.folder), "--data.path", str(two_manipulations)]) == 0
    assert "32 of 60 files were used to train this run, and 16 more belong to their groups" in capsys.readouterr().out
    scored = predictions.read(next((crossed.folder / "evaluations").glob(f"{two_manipulations.name}-*")) / "predictions.csv")
    table = pd.read_csv(crossed.manifest)
    assert not set(scored["group"]) & set(table.query("split != 'test'")["group"]) and len(scored) == 12


def test_evaluating_its_own_test_again_gives_the_same_result(crossed):
    assert cli.main(["evaluate", str(crossed.folder)]) == 0
    again = Artifact(crossed.folder / "evaluations" / "own_test")
    assert len(pd.read_csv(again.results)) == 8
    assert json.loads(again.metrics.read_text())["test"]["auc"] == json.loads(crossed.metrics.read_text())["test"]["auc"]


def test_the_same_sources_resume_the_run(crossed):
    argv = ["--config", str(crossed.config), "--name", "crossed", "--out", str(crossed.folder.parent), "--resume"]
    run = config.parse(argv, "t")
    assert run.data.train_sources == ("Swap",) and artifact.select_folder(run) == (crossed, True)


def test_unknown_sources_are_refused(two_manipulations, tmp_path, capsys):
    argv = ["train", "cnn", "--data.path", str(two_manipulations), "--data.test_sources", "swop", "--out", str(tmp_path), *FLAGS]
    assert cli.main([*argv, "--data.cache_dir", str(tmp_path / "cache")]) == 2
    assert "'swop'. Perhaps you meant swap. The sources of fakes are swap, upsample." in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was decoded"


def test_a_test_with_fakes_only_is_evaluated_with_a_warning(fakes_only):
    metrics = json.loads(fakes_only.metrics.read_text())["test"]
    assert (metrics["n_real"], metrics["n_fake"], metrics["auc"], metrics["auc_interval"]) == (0, 8, None, None)
    assert metrics["accuracy"] == metrics["per_class"]["fake"]["recall"]
    page = fakes_only.report.read_text()
    assert "The test set holds only fake files (8): AUC is undefined" in page and "That alone says little" in page
    assert "AUC: none, the test set holds only fake files" in fakes_only.final_prediction.read_text()
    assert "Trained on fakes from: all sources" in fakes_only.final_prediction.read_text()
    assert {"roc.png", "confusion.png", "sources.png"} <= {path.name for path in fakes_only.plots.iterdir()}
    assert list((fakes_only.logs / "test").glob("events*"))


def test_evaluate_accepts_one_class(fakes_only, crossed, two_manipulations, capsys):
    assert cli.main(["evaluate", str(fakes_only.folder)]) == 0
    assert "only fake files" in capsys.readouterr().out
    other = shutil.copytree(fakes_only.folder, fakes_only.folder.parent / "other")
    assert cli.main(["evaluate", str(fakes_only.folder), str(other)]) == 0
    assert "mean: AUC none" in capsys.readouterr().out
    alone = two_manipulations / "alone"
    shutil.copytree(two_manipulations / "swap" / "real", alone / "real")
    assert cli.main(["evaluate", str(crossed.folder), "--data.path", str(alone)]) == 0
    assert "only real files" in capsys.readouterr().out
