"""Sources that a run never saw, from the flags to the report: held out of training, and in other data."""

import json
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.data.sample import Sample, write
from tfdetect.errors import UserError
from tfdetect.evaluation import seen
from tfdetect.workflow import dataset, overlap, training_data

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


@pytest.fixture
def other(tmp_path):
    """Manifest of 12 other scenes, each real and fake."""
    return write(Sample("image", count=12, size=32, seed=5), tmp_path / "other")


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


def test_evaluating_it_again_says_the_same_and_compares_no_clips(run, monkeypatch, capsys):
    monkeypatch.setattr("tfdetect.data.audit.duplicates.find_near_pairs_across_splits", None)
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert " ".join(seen.sentence(metrics(run.folder)).split()) in " ".join(capsys.readouterr().out.split())
    own = run.folder / "evaluations" / "own_test"
    assert metrics(own)["unseen"] == metrics(run.folder)["unseen"] and not (own / "training_overlap.csv").exists()


def test_the_config_repeats_the_run_with_the_same_source_held_out(run):
    again = config.parse(["--config", str(run.config), "--name", "run", "--out", str(run.folder.parent), "--resume"], "t")
    assert artifacts.select_folder(again) == (run, True) and again.data.hold_out[0] == "auto"


def test_sources_of_other_data_are_compared_with_those_of_training(run, other, tmp_path, capsys):
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


def test_an_unknown_source_is_refused(data, train, capsys):
    assert train(data, "wrong", "--data.hold_out", "alhpa", code=2)
    assert "No fakes have the source 'alhpa'. Perhaps you meant alpha." in capsys.readouterr().err


def add_file(table, name, path, quality=None):
    """Add to the data set of a manifest a copy of an image under another name, or with a quality another encoding of it."""
    target = table.parent / name
    target.write_bytes(path.read_bytes()) if quality is None else cv2.imwrite(str(target), cv2.imread(str(path)), [1, quality])
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    added = {"path": name, "label": str(int("/fake/" in str(path))), "group": name, "source": "found"}
    pd.concat([rows, pd.DataFrame([added])]).fillna("").to_csv(table, index=False)


def training_files(run, count):
    table = pd.read_csv(run.manifest)
    return [Path(path) for path in table.loc[table["split"] == "train", "path"][:count]]


def test_test_files_that_were_in_training_are_refused_with_the_list(run, other, tmp_path, capsys):
    first, second = training_files(run, 2)
    add_file(other, "copy.jpg", first)
    add_file(other, "again.jpg", second, 90)
    argv = ["evaluate", str(run.folder), "--data.path", str(other), "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "1 of 26 files were used to train this run, and 1 more look like such files" in message
    assert f"copy.jpg (same content as {first})" in message and "--overlap drop" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["training_overlap.csv"]
    rows = pd.read_csv(tmp_path / "out" / "training_overlap.csv").set_index("path")
    assert dict(rows["reason"]) == {str(other.parent / name): reason for name, reason in
                                    (("copy.jpg", "same content"), ("again.jpg", "near duplicate"))}  # fmt: skip
    assert list(rows["training_file"]) == [str(first), str(second)]
    assert cli.main([*argv, "--overlap", "drop"]) == 0
    assert metrics(tmp_path / "out")["n"] == 24 and "they are left out here, and listed in" in capsys.readouterr().out
    assert "1 of 26 files were used to train this run" in (tmp_path / "out" / "report.html").read_text()
    assert len(pd.read_csv(tmp_path / "out" / "training_overlap.csv")) == 2


def test_without_the_clips_of_the_training_a_warning_says_what_was_not_compared(run, other, monkeypatch):
    settings = artifacts.load_config(run)
    trained = overlap.Trained(run, settings, dataset.cache_for(settings.data, settings.detector))
    table = pd.read_csv(run.manifest, keep_default_na=False)
    used, others = table[table["split"] == "train"], table[table["split"] == "test"]
    near, warnings = overlap.find_near(others, used, trained)
    assert near.empty and not warnings
    monkeypatch.setattr("tfdetect.data.prepare.clip_cache.Cache.find", lambda cache, shas: set())
    (warning,) = overlap.find_near(others, used, trained)[1]
    assert warning.startswith(f"Near duplicates of {len(used)} of {len(used)} training files were not looked for")


def test_a_group_of_the_training_is_recognised_in_a_table_beside_its_own_and_a_path_anywhere(run, tmp_path):
    settings = artifacts.load_config(run)
    trained = overlap.Trained(run, settings, dataset.cache_for(settings.data, settings.detector))
    used = pd.read_csv(run.manifest, keep_default_na=False).query("split == 'train'")
    columns = {"path": ["new.jpg", "other.jpg", used["path"].iloc[0]], "group": [used["group"].iloc[1], "nobody", "who"]}
    table = pd.DataFrame({**columns, "sha": ["1", "2", "3"], "error": "gone", "split": "test"})
    beside = settings.data.path.with_name("test.csv")
    beside.write_text("")
    found = [overlap.match_training(table, trained, path)[0] for path in (beside, tmp_path / "test.csv")]
    assert [dict(rows["reason"]) for rows in found] == [{0: "same group", 2: "same path"}, {2: "same path"}]
    assert list(found[0]["training_file"]) == [used["path"].iloc[1], used["path"].iloc[0]]


def test_near_duplicates_across_given_splits_are_refused_with_the_list(other, tmp_path, capsys):
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    original = other.parent / rows["path"][0]
    add_file(other, "again.jpg", original, 90)
    rows = pd.read_csv(other, dtype=str, keep_default_na=False)
    number = rows["group"].str.extract(r"scene-(\d+)")[0].fillna("11").astype(int)
    rows.assign(split=["train" if k < 7 else "val" if k < 9 else "test" for k in number]).to_csv(other, index=False)
    flags = ["--data.path", str(other), "--data.size", "32", "--data.cache_dir", str(tmp_path / "cache"), "--out", str(tmp_path)]

    def prepare(*more):
        return training_data.prepare(config.parse(["cnn", *flags, *more], "t"))[1]

    with pytest.raises(UserError, match="1 test file looks like training files of other groups, e.g. ") as caught:
        prepare()
    assert f"{other.parent / 'again.jpg'} and {original}. All are listed in " in str(caught.value)
    listed = Path(str(caught.value).partition("All are listed in ")[2].partition(".csv")[0] + ".csv")
    assert list(pd.read_csv(listed)["training_file"]) == [str(original)]
    dropped = prepare("--data.near_duplicates", "drop")
    assert len(dropped) == 23 and "scene-00000" not in set(dropped["group"]) and "again.jpg" in set(dropped["group"])
    assert dropped.attrs["left_out"]["near duplicates"] == 2 and not dataset.data_warnings(dropped)
    kept = prepare("--data.near_duplicates", "keep")
    assert len(kept) == 25 and "the result on them may be memorised" in " ".join(dataset.data_warnings(kept))
    table = pd.read_csv(other, dtype=str, keep_default_na=False)
    table.assign(split="").to_csv(other, index=False)
    assert len(prepare()) == 25, "splits that are made here are reported, not refused"


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory):
    """Manifest of 12 scenes, a folder of reals, and a folder without media."""
    folder = tmp_path_factory.mktemp("data sets")
    table = write(Sample("image", count=12, size=32, seed=5), folder / "scenes")
    shutil.copytree(folder / "scenes" / "real", folder / "reals" / "real")
    (folder / "empty").mkdir()
    return [table, folder / "reals", folder / "empty"]


def test_a_matrix_has_a_full_evaluation_of_each_data_set(run, data, data_sets, tmp_path, capsys):
    flags = [word for path in (*data_sets, data) for word in ("--data.path", str(path))]
    assert cli.main(["evaluate", str(run.folder), *flags, "--out", str(tmp_path / "out")]) == 0
    assert "4 cells: 2 with an AUC, 1 without, 1 failed" in capsys.readouterr().out
    cells = {cell["data"]: cell for cell in json.loads((tmp_path / "out" / "matrix.json").read_text())["cells"]}
    alone = metrics((tmp_path / "out" / cells["manifest"]["report"]).parent)
    for key in ("auc", "auc_interval", "balanced_accuracy", "n", "threshold"):
        assert cells["manifest"][key] == alone[key]
    assert cells["reals"]["reason"] == "only real files, so there is no AUC" and cells["reals"]["report"]
    assert "no image or video" in cells["empty"]["reason"] and cells["empty"]["report"] is None
    assert cells["manifest_2"]["auc"] == metrics(run.folder)["auc"], "of its own data, the test files"
    left_out = pd.read_csv((tmp_path / "out" / cells["manifest_2"]["report"]).with_name("training_overlap.csv"))
    assert cells["manifest_2"]["in_training"] == len(left_out) == 80 - metrics(run.folder)["n"]
    assert set(left_out["reason"]) == {"same content", "same group"}
