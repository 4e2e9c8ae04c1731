"""Equalised files count as their originals, a prepared folder replaces them, copies share a split, and printed commands work."""

import json
import re
import shlex
import shutil

import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.data import manifest

pytestmark = pytest.mark.usefixtures("light")
TINY = ["--data.size", "16", "--train.epochs", "0", "--train.batch", "8", "--detector.width", "4"]


@pytest.fixture(scope="module")
def root(tmp_path_factory, images):
    """Folder with the class folders `set` of 20 + 20 images, and `alike`, the same equalised."""
    root = tmp_path_factory.mktemp("originals")
    shutil.copytree(images, root / "set")
    (root / "set" / "manifest.csv").unlink()
    assert cli.main(["prepare", str(root / "set"), "--out", str(root / "alike"), "--equalise", "--data.size", "16"]) == 0
    return root


def train(root, data, name):
    flags = [*TINY, "--data.cache_dir", str(root / "cache"), "--out", str(root / "runs"), "--name", name]
    assert cli.main(["train", "cnn", "--data.path", str(data), *flags]) == 0
    return Artifact(root / "runs" / name)


@pytest.fixture(scope="module")
def equalised(root):
    return train(root, root / "alike", "equalised")


def evaluate(run, data, capsys):
    """Return how many files `evaluate` scores, and its output."""
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(data), "--out", str(run.folder / "other")]) == 0
    return json.loads((run.folder / "other" / "metrics.json").read_text())["test"]["n"], capsys.readouterr().out


def test_evaluate_drops_originals_of_equalised_training_files_and_vice_versa(root, equalised, capsys):
    plain = train(root, root / "set", "plain")
    for run, data in ((equalised, root / "set"), (plain, root / "alike"), (equalised, root / "alike")):
        table = manifest.read_unchecked(run.manifest)
        tests = int((table["split"] == "test").sum())
        count, output = evaluate(run, data, capsys)
        assert count == tests and f"{40 - tests} of 40 files were used to train" in output


def test_training_groups_are_dropped_if_a_training_file_is_recognised(root, equalised, tmp_path, capsys):
    """In a copy of the set with other bytes, a single unchanged file proves that the groups are those of training."""
    run = manifest.read_unchecked(equalised.manifest)
    shutil.copytree(root / "set", tmp_path / "again")
    known = run.loc[run["split"] == "train", "original"].iloc[0].rpartition("/set/")[2]
    for path in (tmp_path / "again").rglob("*.*"):
        if not path.match(known):
            path.write_bytes(path.read_bytes() + b"\0")  # other bytes, the same image
    count, output = evaluate(equalised, tmp_path / "again", capsys)
    assert count == (run["split"] == "test").sum() and "1 of 40 files were used to train" in output
    (tmp_path / "again" / known).write_bytes((tmp_path / "again" / known).read_bytes() + b"\0")
    assert evaluate(equalised, tmp_path / "again", capsys)[0] == 40, "equal group names alone prove nothing"


def commands(output):
    """Return the commands in the output as argument lists for cli.main."""
    matches = re.findall(r"^  tfdetect (\w+) (.*)$", output, re.M)
    return [[verb, *shlex.split(rest, comments=True)] for verb, rest in matches]


def test_every_printed_command_works(images, tmp_path, monkeypatch, capsys):
    """Even with folder names that a shell or Rich would interpret."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "my [bold] set's")
    (tmp_path / "my [bold] set's" / "manifest.csv").unlink()
    todo = [["prepare", "my [bold] set's", "--out", "a [v2] b", "--data.size", "16"],
            ["manifest", "my [bold] set's", "--out", "m 1.csv"]]  # fmt: skip
    done = []
    while todo:
        argv = [word.replace("YOUR_FOLDER", "my [bold] set's") for word in todo.pop(0)]
        if argv not in done:
            capsys.readouterr()
            assert cli.main([*argv, *([*TINY, "--out", "runs"] if argv[0] == "train" else [])]) == 0, argv
            todo += commands(capsys.readouterr().out)
            done.append(argv)
    assert {verb for verb, *_ in done} == {"prepare", "manifest", "audit", "train", "predict"}


def test_a_prepared_folder_is_enough_without_the_originals(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    assert cli.main(["prepare", "set", "--out", "ready", "--data.size", "16"]) == 0
    shutil.rmtree("set")
    assert cli.main(["train", "cnn", "--data.path", "ready", *TINY, "--out", "runs"]) == 0
    output = capsys.readouterr().out
    assert "file size, format and the like alone reach AUC" in output, "the properties of the originals are kept with the clips"
    assert "predict.py" not in output, "no original is left to predict"
    first = json.loads((tmp_path / "runs" / "cnn" / "metrics.json").read_text())["test"]
    assert cli.main(["evaluate", "runs/cnn"]) == 0
    again = json.loads((tmp_path / "runs" / "cnn" / "evaluations" / "own_test" / "metrics.json").read_text())["test"]
    for found in (first, again):  # fitted to training files, and across folds of the test files
        del found["shortcut_intervals"]
    assert again == first
    shutil.copytree("runs/cnn", "runs/other")
    assert cli.main(["evaluate", "runs/cnn", "runs/other"]) == 0


def test_files_that_cannot_be_equalised_are_not_trained_on(images, tmp_path, monkeypatch, capsys):
    import cv2

    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    small = tmp_path / "set" / "real" / "small.png"
    cv2.imwrite(str(small), cv2.imread(str(next((images / "real").iterdir())))[:8, :8])
    assert cli.main(["prepare", "set", "--out", "alike", "--equalise", "--data.size", "16"]) == 0
    assert cli.main(["train", "cnn", "--data.path", "alike", *TINY, "--out", "runs"]) == 0
    table = manifest.read_unchecked(tmp_path / "runs" / "cnn" / "manifest.csv").set_index("path")
    assert "smaller than the" in table.loc[str(small), "error"] and (table["error"] != "").sum() == 1


def test_copies_share_a_split_and_contradictions_are_excluded(images, tmp_path, monkeypatch, capsys):
    """With each image three times, no content is in two splits; content with both labels is excluded, with all its copies."""
    monkeypatch.chdir(tmp_path)
    for kind in ("real", "fake"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for n, path in enumerate(sorted((images / kind).iterdir())):
            for name in (f"a{n}", f"copy_of_{7 * n}", f"{kind}-{n}b"):
                shutil.copy(path, tmp_path / "set" / kind / f"{name}.jpg")
    for n, path in enumerate(sorted((images / "fake").iterdir())[:6]):
        shutil.copy(path, tmp_path / "set" / "real" / f"wrong{n}.jpg")
    assert cli.main(["train", "cnn", "--data.path", "set", *TINY, "--out", "runs", "--data.cache_dir", "cache"]) == 0
    output = capsys.readouterr().out
    assert "68 of 126 files are copies of others" in output and "24 of 126 files could not be used" in output
    table = manifest.read_unchecked(tmp_path / "runs" / "cnn" / "manifest.csv")
    good = table[table["error"] == ""]
    assert len(table) == 126 and len(good) == 102 and good.groupby("sha")["split"].nunique().max() == 1
    assert good.groupby("sha")["group"].nunique().max() == 1
    assert len(pd.read_csv(tmp_path / "runs" / "cnn" / "failures.csv")) == 24
    assert "68 of 126 files are copies" in (tmp_path / "runs" / "cnn" / "report.html").read_text()

    assert cli.main(["prepare", "set", "--out", "ready", "--data.size", "16"]) == 0
    assert "126 files: 102 cached, 24 failed" in capsys.readouterr().out
    shutil.rmtree("set")
    assert cli.main(["train", "cnn", "--data.path", "ready", *TINY, "--out", "runs", "--name", "ready"]) == 0
    again = manifest.read_unchecked(tmp_path / "runs" / "ready" / "manifest.csv")
    assert again["error"].str.contains("the same bytes are labelled").sum() == 24


def test_audit_reports_copies_and_contradictions(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    reals, fakes = (sorted((tmp_path / "set" / kind).iterdir()) for kind in ("real", "fake"))
    for n in range(3):
        shutil.copy(reals[n], reals[n].with_name(f"copy{n}.jpg"))
    shutil.copy(fakes[0], reals[0].with_name("wrong.jpg"))
    assert cli.main(["audit", "set", "--out", "a"]) == 0
    output, matches = capsys.readouterr().out, json.loads((tmp_path / "a" / "audit.json").read_text())
    assert "3 of 44 files are copies of others" in output and "1 set of identical files is labelled both real and fake" in output
    assert "2 of 44 files could not be used" in output and matches["leaks"] == [], "copies get one group in training"
    assert (matches["counts"]["copies"], matches["counts"]["left_out"]) == (3, 2)
    assert "labelled both real and fake" in (tmp_path / "a" / "audit.html").read_text()


def test_a_table_of_missing_files_is_refused(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path,label\na.png,0\nb.png,1\n")
    for verb in (["audit", str(tmp_path / "m.csv")], ["prepare", str(tmp_path / "m.csv"), "--out", str(tmp_path / "x")]):
        assert cli.main(verb) == 2
        assert f"None of the 2 files exists. The first was looked for at {tmp_path}/a.png" in capsys.readouterr().err


def test_swapped_labels_need_a_flag(images, tmp_path, capsys):
    table = manifest.read(images / "manifest.csv").assign(label=lambda rows: 1 - rows["label"])
    manifest.write(table, tmp_path / "m.csv")
    out = ["--out", str(tmp_path / "x"), "--data.size", "16"]
    assert cli.main(["prepare", str(tmp_path / "m.csv"), *out]) == 2
    assert "the labels seem to be swapped" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert cli.main(["prepare", str(tmp_path / "m.csv"), *out, "--data.labels", "as_given"]) == 0
