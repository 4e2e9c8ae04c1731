"""prepare: every file is accounted for, and the folder can be trained on."""

import json
import os
import re
import shutil
import socket

import pandas as pd
import pytest

from tfdetect import cli, config
from tfdetect.data.media.read import READER_VERSION
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.sample import Sample, write

pytestmark = pytest.mark.usefixtures("light")
ODD = ["empty.jpg", "cut.jpg", "folder.mp4", "dangling.mp4", "pipe.mp4", "socket.png", "text.png", "no\nframe.mp4"]


@pytest.fixture
def mixed(tmp_path, images):
    """20 + 20 images, some with odd names, and 8 paths that are no readable image or video."""
    root = tmp_path / "set"
    shutil.copytree(images, root)
    (root / "manifest.csv").unlink()
    fake = root / "fake"
    one, two, three, four, *_ = sorted(fake.iterdir())
    one.rename(fake / "with space and ünïcode 🙂.jpg")
    two.rename(fake / "line\nbreak.jpg")
    three.rename(fake / "jpeg bytes.png")
    os.rename(four, os.fsencode(fake) + b"/no\xfftext.jpg")
    (fake / "empty.jpg").touch()
    (fake / "cut.jpg").write_bytes((root / "real").joinpath(next(iter(os.listdir(root / "real")))).read_bytes()[:200])
    (fake / "folder.mp4").mkdir()
    (fake / "dangling.mp4").symlink_to("nowhere")
    os.mkfifo(fake / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        where = os.getcwd()
        os.chdir(fake)  # the path of a socket must be short
        server.bind("socket.png")
        os.chdir(where)
    (fake / "text.png").write_text("hello")
    (fake / "no\nframe.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 12)
    return root


def test_every_file_is_accounted_for(mixed, tmp_path, capsys):
    out = tmp_path / "x"
    argv = ["prepare", str(mixed), "--out", str(out), "--data.size", "16"]
    assert cli.main(argv) == 0
    output = capsys.readouterr().out
    table = pd.read_csv(out / "manifest.csv", keep_default_na=False, encoding_errors="surrogateescape")
    failures = pd.read_csv(out / "failures.csv", keep_default_na=False, encoding_errors="surrogateescape")
    assert len(table) == 48 and set(failures["path"]) == {str(mixed / "fake" / name) for name in ODD}
    assert (failures["error"] != "").all() and (table["error"] != "").sum() == 8
    assert json.loads((out / "prepared.json").read_text())["counts"] == {"rows": 48, "cached": 40, "failed": 8}
    assert "49 files: 40 cached, 8 failed, 1 left out" in output and "8 of 48 files could not be used" in output
    assert "empty file" in output and re.search("not a file", output)
    assert re.search(r"The clips will take about .* kB in .*; .* are free", output) and re.search(r"x takes \d+ kB", output)

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cli.main(argv) == 0, "a second time, which changes nothing"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_thirty_bad_files_of_three_hundred_are_listed(videos, tmp_path, capsys):
    """250 good images, 20 good videos, and 30 bad files of five kinds, in both classes."""
    root = write(Sample("image", count=125, size=32), tmp_path / "set").parent
    (root / "manifest.csv").unlink()
    for kind in ("real", "fake"):
        image, clip = sorted((root / kind).iterdir())[0].read_bytes(), sorted((videos / kind).iterdir())[0].read_bytes()
        for number, path in enumerate(sorted((videos / kind).iterdir())[:10]):
            shutil.copy(path, root / kind / f"clip{number}.mp4")
        bad = {"empty.jpg": b"", "cut.jpg": image[: len(image) // 2], "cut.mp4": clip[: len(clip) // 2],
               "page.png": b"<html>", "list.mp4": b"#EXTM3U\nhttp://127.0.0.1:9/x.ts"}  # fmt: skip
        for number in range(3):
            for name, content in bad.items():
                (root / kind / f"{number}{name}").write_bytes(content)
    assert cli.main(["prepare", str(root), "--out", str(tmp_path / "x"), "--data.size", "32", "--data.frames", "2"]) == 0
    output = capsys.readouterr().out
    assert "301 files: 270 cached, 30 failed, 1 left out" in output and "30 of 300 files could not be used" in output
    assert len(pd.read_csv(tmp_path / "x" / "failures.csv")) == 30
    counts = [int(count) for count in re.findall(r"│ (\d+) ", output)]
    assert sum(counts) == 30 and len(counts) >= 4, "the table of reasons"


def test_a_prepared_folder_can_be_trained_on_and_brings_its_settings(videos, tmp_path, monkeypatch):
    out = tmp_path / "x"
    assert cli.main(["prepare", str(videos), "--out", str(out), "--data.size", "32", "--data.frames", "4"]) == 0
    run = config.parse(["cnn", "--data.path", str(out)], "train.py")
    assert (run.data.size, run.data.frames) == (32, 4)
    assert config.parse(["cnn", f"--data.path={out}", "--data.size", "16"], "train.py").data.size == 16
    monkeypatch.setattr(Cache, "decode_file", None)  # nothing is decoded again
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    flags = ["--train.epochs", "1", "--detector.width", "4", "--out", str(runs), "--data.cache_dir", str(cache)]
    assert cli.main(["train", "cnn", "--data.path", str(out), *flags]) == 0
    again = config.parse(["--config", str(runs / "cnn" / "config.yaml")], "train.py")
    assert (again.data.size, again.data.path) == (32, out) and not cache.exists()


def test_a_dry_run_says_what_it_takes_and_writes_nothing(videos, tmp_path, capsys):
    size = ["--data.size", "16", "--data.frames", "4"]
    argv = ["prepare", str(videos), "--out", str(tmp_path / "x"), *size, "--data.workers", "1"]
    assert cli.main([*argv, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"40 of 40 files would be decoded, on 1 core in about \d+ s\.", said) and "Next:" not in said
    assert f"take 123 kB in 1 file in {tmp_path / 'x'};" in said and not (tmp_path / "x").exists()
    assert cli.main(argv) == 0
    assert (tmp_path / "x" / f"v{READER_VERSION}-npy-4x16" / "00000.npy").stat().st_size == 40 * 4 * 16 * 16 * 3 + 128
    assert cli.main([*argv, "--dry_run"]) == 0
    assert "0 of 40 files would be decoded" in capsys.readouterr().out


def test_other_settings_are_refused(images, tmp_path, capsys):
    argv = ["prepare", str(images), "--out", str(tmp_path / "x"), "--data.size"]
    assert cli.main([*argv, "16"]) == 0
    assert cli.main([*argv, "8"]) == 2
    assert "was prepared with other settings" in capsys.readouterr().err
    (tmp_path / "x" / "prepared.json").write_text("{")
    assert cli.main(["train", "cnn", "--data.path", str(tmp_path / "x")]) == 2
    assert "prepared.json is damaged" in capsys.readouterr().err


def test_unknown_flags_are_refused_without_beam(images, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", str(images), "--out", str(tmp_path / "x"), "--flink_master", "here"])
    assert stop.value.code == 2 and "flink_master" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_too_many_failures_stop_training_before_it_starts(mixed, tmp_path, capsys):
    flags = ["--data.size", "16", "--data.cache_dir", str(tmp_path / "cache"), "--out", str(tmp_path / "runs")]
    assert cli.main(["train", "cnn", "--data.path", str(mixed), *flags]) == 2
    assert "8 of 48 files could not be used, more than --data.max_failed 0.1 allows" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    quick = ["--train.epochs", "1", "--train.batch", "4", "--detector.width", "4", "--data.max_failed", "0.2"]
    assert cli.main(["train", "cnn", "--data.path", str(mixed), *flags, *quick]) == 0
    failures = pd.read_csv(tmp_path / "runs" / "cnn" / "failures.csv")
    assert len(failures) == 8
