"""Sources that a run never saw, from the flags to the report: held out of training, and in other data."""

import json

import pandas as pd
import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.data.sample import Sample, write
from tfdetect.evaluation import seen

pytestmark = pytest.mark.usefixtures("light")
SOURCES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Manifest of 40 scenes, each real and fake; the fakes are of four sources."""
    table = write(Sample("image", count=40, size=32), tmp_path_factory.mktemp("unseen") / "set")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    number = rows["group"].str.removeprefix("scene-").astype(int)
    rows["source"] = [SOURCES[k % 4] if label == "1" else "camera" for k, label in zip(number, rows["label"], strict=True)]
    rows.to_csv(table, index=False)
    return table


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def run(path, name, *flags, code=0):
        argv = ["train", "cnn", "--data.path", str(path), "--name", name, "--data.size", "32", "--train.epochs", "1",
                "--train.batch", "8", "--detector.width", "4", "--data.cache_dir", str(folder / "cache")]  # fmt: skip
        assert cli.main([*argv, "--out", str(folder), *flags]) == code
        return Artifact(folder / name)

    return run


@pytest.fixture(scope="module")
def run(data, train):
    return train(data, "run")


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]


def test_the_report_begins_with_both_figures(run):
    found, (_, held_out) = metrics(run.folder), artifacts.load_config(run).data.hold_out
    assert found["unseen"]["sources"] == [held_out] and sorted(found["seen"]["sources"]) == sorted({*SOURCES} - {held_out})
    assert found["unseen"]["auc"] == found["by_source"][held_out]["auc"]
    text = seen.sentence(found)
    assert f"on those of {held_out}, which it never saw." in text and f'<p class="lead">{text} ' in run.report.read_text()
    assert [name for name, row in found["by_source"].items() if row["in_training"]] == found["seen"]["sources"]
    table = pd.read_csv(run.manifest)
    assert set(table.loc[table["source"] == held_out, "split"]) == {"test"}


def test_evaluating_it_again_says_the_same(run, capsys):
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert " ".join(seen.sentence(metrics(run.folder)).split()) in " ".join(capsys.readouterr().out.split())
    assert metrics(run.folder / "evaluations" / "own_test")["unseen"] == metrics(run.folder)["unseen"]


def test_the_config_repeats_the_run_with_the_same_source_held_out(run):
    again = config.parse(["--config", str(run.config), "--name", "run", "--out", str(run.folder.parent), "--resume"], "t")
    assert artifacts.select_folder(again) == (run, True) and again.data.hold_out[0] == "auto"


def test_sources_of_other_data_are_compared_with_those_of_training(run, tmp_path, capsys):
    other = write(Sample("image", count=12, size=32, seed=5), tmp_path / "other")
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    (_, held_out) = artifacts.load_config(run).data.hold_out
    trained = next(name for name in SOURCES if name != held_out)
    names = [trained.upper(), "omega", "fake"]
    rows["source"] = [names[k // 2 % 3] if label == "1" else "camera" for k, label in enumerate(rows["label"])]
    rows.to_csv(other, index=False)
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(other), "--out", str(tmp_path / "out")]) == 0
    found = metrics(tmp_path / "out")
    assert [found[name]["sources"] for name in ("seen", "unseen", "unknown")] == [[trained.upper()], ["omega"], ["fake"]]
    assert "on those of omega, which it never saw;" in " ".join(capsys.readouterr().out.split())


def test_without_a_source_held_out_the_report_says_so(data, train, capsys):
    page = train(data, "all", "--data.hold_out", "none", "--train.epochs", "0").report.read_text()
    assert "measured only on fakes of sources it was trained on (alpha, beta, delta and gamma)" in page
    assert train(data, "wrong", "--data.hold_out", "alhpa", code=2)
    assert "No fakes have the source 'alhpa'. Perhaps you meant alpha." in capsys.readouterr().err
