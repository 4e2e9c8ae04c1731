"""Equalised files and their originals are the same files: known again by `evaluate`, and not needed any more once prepared.
And what the suite prints as the next command works."""

import json
import re
import shlex
import shutil

import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact
from tfdetect.data import manifest

TINY = ["--data.size", "16", "--train.epochs", "1", "--train.batch", "8", "--detector.width", "4", "--data.workers", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, images):
    """Class folders of 20 + 20 pictures, of which one is too small to be made like the others, and `alike`, equalised."""
    root = tmp_path_factory.mktemp("originals")
    shutil.copytree(images, root / "set")
    (root / "set" / "manifest.csv").unlink()
    assert cli.main(["prepare", str(root / "set"), "--out", str(root / "alike"), "--equalise", "--data.size", "16"]) == 0
    return root


def train(place, data, name):
    flags = [*TINY, "--data.cache_dir", str(place / "cache"), "--out", str(place / "runs"), "--name", name]
    assert cli.main(["train", "cnn", "--data.path", str(data), *flags]) == 0
    return Artifact(place / "runs" / name)


@pytest.fixture(scope="module")
def equalised(place):
    return train(place, place / "alike", "equalised")


def judged(run, data, capsys):
    """How many files evaluate judges, and what it says."""
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.folder), "--data.path", str(data), "--out", str(run.folder / "other")]) == 0
    return json.loads((run.folder / "other" / "metrics.json").read_text())["test"]["n"], capsys.readouterr().out


def test_originals_of_equalised_training_files_are_left_out_and_the_other_way_round(place, equalised, capsys):
    plain = train(place, place / "set", "plain")
    for run, data in ((equalised, place / "set"), (plain, place / "alike"), (equalised, place / "alike")):
        table = manifest.read_unchecked(run.manifest)
        tests = int((table["split"] == "test").sum())
        count, said = judged(run, data, capsys)
        assert count == tests and f"{40 - tests} of 40 files took part in training" in said


def test_groups_named_alike_count_where_a_file_is_known_again(place, equalised, tmp_path, capsys):
    """The same set, of which most files are encoded anew: one that is known shows that its groups are training's."""
    run = manifest.read_unchecked(equalised.manifest)
    shutil.copytree(place / "set", tmp_path / "again")
    known = run.loc[run["split"] == "train", "original"].iloc[0].rpartition("/set/")[2]
    for path in (tmp_path / "again").rglob("*.*"):
        if not path.match(known):
            path.write_bytes(path.read_bytes() + b"\0")  # other bytes, the same picture
    count, said = judged(equalised, tmp_path / "again", capsys)
    assert count == (run["split"] == "test").sum() and "1 of 40 files took part in training" in said
    (tmp_path / "again" / known).write_bytes((tmp_path / "again" / known).read_bytes() + b"\0")
    assert judged(equalised, tmp_path / "again", capsys)[0] == 40, "a name alone proves nothing"


def commands(said):
    """What `said` prints to go on with: argument lists for cli.main."""
    found = re.findall(r"^  python scripts/(\w+)\.py (.*)$", said, re.M)
    return [[verb, *shlex.split(rest, comments=True)] for verb, rest in found]


def test_every_command_that_is_printed_works(images, tmp_path, monkeypatch, capsys):
    """Also where folders are called what shells and terminals take for more than a name."""
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


def test_without_the_originals_a_prepared_folder_is_enough(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    assert cli.main(["prepare", "set", "--out", "ready", "--data.size", "16"]) == 0
    shutil.rmtree("set")
    assert cli.main(["train", "cnn", "--data.path", "ready", *TINY, "--out", "runs"]) == 0
    said = capsys.readouterr().out
    assert "shortcuts: not measured" in said and "predict.py" not in said, "no file is there to predict"
    first = json.loads((tmp_path / "runs" / "cnn" / "metrics.json").read_text())["test"]
    assert cli.main(["evaluate", "runs/cnn"]) == 0
    again = json.loads((tmp_path / "runs" / "cnn" / "evaluations" / "own_test" / "metrics.json").read_text())["test"]
    assert again == first
    shutil.copytree("runs/cnn", "runs/other")
    assert cli.main(["evaluate", "runs/cnn", "runs/other"]) == 0


def test_what_could_not_be_equalised_is_not_trained_on_as_it_is(images, tmp_path, monkeypatch, capsys):
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


def test_copies_and_contradictions_before_the_split(images, tmp_path, monkeypatch, capsys):
    """Each picture three times: no content in two splits; and equal bytes of both classes are left out, however many."""
    monkeypatch.chdir(tmp_path)
    for kind in ("real", "fake"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for n, path in enumerate(sorted((images / kind).iterdir())):
            for name in (f"a{n}", f"copy_of_{7 * n}", f"{kind}-{n}b"):
                shutil.copy(path, tmp_path / "set" / kind / f"{name}.jpg")
    for n, path in enumerate(sorted((images / "fake").iterdir())[:6]):
        shutil.copy(path, tmp_path / "set" / "real" / f"wrong{n}.jpg")
    assert cli.main(["train", "cnn", "--data.path", "set", *TINY, "--out", "runs", "--data.cache_dir", "cache"]) == 0
    said = capsys.readouterr().out
    assert "68 of 126 files are copies of others" in said and "24 of 126 files could not be used" in said
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


def test_audit_tells_copies_and_contradictions(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "set")
    (tmp_path / "set" / "manifest.csv").unlink()
    reals, fakes = (sorted((tmp_path / "set" / kind).iterdir()) for kind in ("real", "fake"))
    for n in range(3):
        shutil.copy(reals[n], reals[n].with_name(f"copy{n}.jpg"))
    shutil.copy(fakes[0], reals[0].with_name("wrong.jpg"))
    assert cli.main(["audit", "set", "--out", "a"]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "a" / "audit.json").read_text())
    assert "3 of 44 files are copies of others" in said and "1 file is labelled both real and fake" in said
    assert "2 of 44 files could not be used" in said and found["leaks"] == [], "they would not leak"
    assert (found["counts"]["copies"], found["counts"]["left_out"]) == (3, 2)
    assert "labelled both real and fake" in (tmp_path / "a" / "audit.html").read_text()


def test_a_table_whose_files_are_elsewhere(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path,label\na.png,0\nb.png,1\n")
    for verb in (["audit", str(tmp_path / "m.csv")], ["prepare", str(tmp_path / "m.csv"), "--out", str(tmp_path / "x")]):
        assert cli.main(verb) == 2
        assert f"None of the 2 files is there. The first was looked for at {tmp_path}/a.png" in capsys.readouterr().err


def test_labels_the_other_way_round_need_a_flag(images, tmp_path, capsys):
    table = manifest.read(images / "manifest.csv").assign(label=lambda rows: 1 - rows["label"])
    manifest.write(table, tmp_path / "m.csv")
    out = ["--out", str(tmp_path / "x"), "--data.size", "16"]
    assert cli.main(["prepare", str(tmp_path / "m.csv"), *out]) == 2
    assert "the other way round" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert cli.main(["prepare", str(tmp_path / "m.csv"), *out, "--data.labels", "as_given"]) == 0
