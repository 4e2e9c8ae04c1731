"""File names that are not UTF-8, or that TensorFlow or Rich could read as patterns or markup; and damaged files of a run."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tfdetect import cli, hashes
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.evaluation import predictions
from tfdetect.files import shell_quote

pytestmark = pytest.mark.usefixtures("light")
NAMES = [b"caf\xe9 %d.jpg", b"a[b]%d.jpg", b"clips[/x]%d.jpg", b"[bold]%d.jpg", b"n\nl%d.jpg", b"cr\r%d.jpg", b"q\"'$%d.jpg",
         "e😀%d.jpg".encode(), b"-x%d.jpg", b"%%s%d.jpg", b"*?%d.jpg", b"x" * 240 + b"%d.jpg", b"co,mma;%d.jpg", b":smile:%d.jpg",
         b"\x1b[31m%d.jpg"]  # fmt: skip


def odd(name):
    return os.fsdecode(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root") / odd(b"proj [v2]*?{a}\xff%d")


@pytest.fixture(scope="module")
def data(root, images):
    for kind in ("real", "fake"):
        for number, path in enumerate(sorted((images / kind).iterdir())):
            target = root / odd(b"data \xfe[x]") / kind / odd(NAMES[number % len(NAMES)] % number)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root / odd(b"data \xfe[x]")


@pytest.fixture(scope="module")
def run(root, data):
    argv = ["train", "cnn", "--data.path", str(data), "--data.size", "32", "--train.epochs", "1", "--detector.width", "4",
            "--name", odd(b"r[1]*\xfd"), "--out", str(root / "runs"), "--data.cache_dir", str(root / "cache[")]  # fmt: skip
    assert cli.main(argv) == 0
    return Artifact(root / "runs" / odd(b"r[1]*\xfd"))


def files(data):
    return {str(path) for path in data.rglob("*.jpg")}


def test_a_run_with_odd_names_is_complete(run, data):
    assert {*manifest.read(run.manifest)["path"]} == files(data)
    scored = predictions.read(run.predictions)
    assert len(scored) == 12 and set(scored["path"]) <= files(data)
    assert "\\udc" in run.report.read_text() and list((run.logs / "test").glob("events*"))


def test_evaluate_gives_the_same_scores_and_predict_prints_one_line_per_file(run, data, capfd):
    assert cli.main(["evaluate", str(run.folder)]) == 0
    again = predictions.read(run.folder / "evaluations" / "own_test" / "predictions.csv")
    pd.testing.assert_frame_equal(again, predictions.read(run.predictions).query("split == 'test'").reset_index(drop=True))
    capfd.readouterr()
    assert cli.main(["predict", str(run.folder), str(data)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 + 40 + 1 and "40 files: 40 scored, 0 failed" in lines[-1]
    assert all(name in "".join(lines) for name in ("[bold]", ":smile:", "clips[/x]", r"n\nl", r"\x1b[31m", "e😀", r"caf\udce9"))


def test_predict_reads_the_files_of_a_table(run, data, capfd):
    assert cli.main(["predict", str(run.folder), str(run.manifest), "--json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {row["path"] for row in rows} == files(data) and not any(row["error"] for row in rows)


def test_a_table_without_paths_or_files_is_refused(run, tmp_path, capsys):
    cases = {"name,label\na,0\n": "has no column path; it has the columns name, label",
             "path,label\n": "lists no images or videos"}  # fmt: skip
    for text, message in cases.items():
        (tmp_path / "t.csv").write_text(text)
        assert cli.main(["predict", str(run.folder), str(tmp_path / "t.csv")]) == 2
        assert message in capsys.readouterr().err


def test_the_summary_of_one_file_is_singular(run, data, capsys):
    assert cli.main(["predict", str(run.folder), sorted(files(data))[0]]) == 0
    assert "\n1 file: 1 scored, 0 failed" in capsys.readouterr().out


def test_explain_and_audit_show_odd_names(run, data, root, capfd):
    assert cli.main(["explain", str(run.folder), str(data / "real" / "clips["), "--out", str(root / "ex[")]) == 0
    assert "clips[/x]" in (root / "ex[" / "explanation.html").read_text()
    assert cli.main(["audit", str(data), "--out", str(root / "audit[")]) == 0
    assert "[bold]" not in capfd.readouterr().err and (root / "audit[" / "audit.json").exists()


@pytest.fixture
def training_only(monkeypatch):
    """Leave out what follows the training."""
    monkeypatch.setattr("tfdetect.api.train.finish", lambda *args: None)
    monkeypatch.setattr("tfdetect.verbs.train.print_next_steps", lambda *args: None)


@pytest.mark.parametrize("cache", ["npy", "tfrecord"])
def test_a_prepared_folder_with_an_odd_name_can_be_trained_on(data, root, cache, capfd, training_only):
    out = root / odd(b"pre\xfd[*") / cache
    assert cli.main(["prepare", str(data), "--out", str(out), "--data.size", "32", "--data.cache", cache]) == 0
    assert f"tfdetect train cnn --data.path {shell_quote(out)}" in capfd.readouterr().out
    argv = ["--data.path", str(out), "--train.epochs", "1", "--detector.width", "4", "--out", str(root / "runs"), "--name", cache]
    assert cli.main(["train", "cnn", *argv]) == 0


@pytest.fixture
def copy(run, tmp_path):
    copy = Artifact(Path(shutil.copytree(run.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(hashes.NAME))))
    assert run.folder.joinpath(hashes.NAME).exists(), "which would be what is wrong"
    return copy


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "part, verb, message",
    [
        ("calibration", "predict", "calibration.json is damaged"),
        ("calibration", "export", "calibration.json is damaged"),
        ("metrics", "evaluate", "metrics.json is damaged"),
        ("config", "predict", "config.yaml is not valid YAML"),
        ("model", "export", "model.keras cannot be loaded"),
        ("saved_model", "predict", "is not a complete SavedModel; re-export it with tfdetect export"),
        ("manifest", "evaluate", "manifest.csv"),
    ],
)
def test_damaged_files_are_named_with_a_fix(copy, part, verb, message, capsys, images):
    path = getattr(copy, part)
    cut(path / "saved_model.pb") if path.is_dir() else cut(path) if path.suffix == ".keras" else path.write_text("[")
    assert cli.main([verb, str(copy.folder), *([str(images)] if verb == "predict" else [])]) == 2
    err = capsys.readouterr().err
    assert message in err.strip().splitlines()[-1] and "Traceback" not in err, err


def test_an_invalid_config_is_named(copy, capsys, images):
    copy.config.write_text(copy.config.read_text().replace("size: 32", "size: large"))
    assert cli.main(["predict", str(copy.folder), str(images)]) == 2
    err = capsys.readouterr().err
    assert "large" in err and f"{copy.config} is not valid, see above" in err


def test_clips_that_a_damaged_cache_lacks_are_decoded_again(run, root, data, training_only):
    (shard,) = (root / "cache[").rglob("*.npy")
    cut(shard)
    argv = ["train", "cnn", "--data.path", str(data), "--data.size", "32", "--train.epochs", "0", "--detector.width", "4",
            "--name", "again", "--out", str(root / "runs"), "--data.cache_dir", str(root / "cache[")]  # fmt: skip
    assert cli.main(argv) == 0
    table, cache = manifest.read_unchecked(root / "runs" / "again" / "manifest.csv"), Cache(root / "cache[", ClipSpec(8, 32))
    assert all((cache.load(row.sha) == cache.spec.read(row.path).frames).all() for row in table.itertuples())
