"""What a training says of groups and of pictures that stand on both sides; noise cannot be told from noise."""

import json

import cv2
import numpy as np
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact


def noise(rng, side=6):
    return cv2.resize(rng.integers(0, 256, (side, side, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def train(root, place, *flags):
    argv = ["train", "cnn", "--data.path", str(root), "--data.size", "32", "--detector.width", "4", "--name", "x", *flags]
    assert cli.main([*argv, "--data.cache_dir", str(place / "cache"), "--out", str(place)]) == 0
    return Artifact(place / "x")


def test_look_alikes_across_the_split_are_said_on_screen_and_in_the_report(tmp_path, rng, capsys):
    for number in range(40):
        label, picture = ("real", "fake")[number % 2], noise(rng)
        for copy in range(3):
            seen = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
            save(tmp_path / "set" / label / f"{rng.integers(10**9)}{'abc'[copy]}.png", seen)
    (tmp_path / "set" / "notes.txt").write_text("")
    run = train(tmp_path / "set", tmp_path, "--train.epochs", "1")
    said = capsys.readouterr().out
    assert "look like training files of other groups, e.g. " in said and "audit.py DIR --write_groups" in said
    assert "121 files: 120 used, 0 failed, 1 left out" in said
    page = run.report.read_text()
    assert "look like training files of other groups" in page and "Groups: none given; each file is a group" in page


def test_pictures_of_one_group_are_no_leak(tmp_path, rng, capsys):
    for label in ("real", "fake"):
        for video in range(14):
            picture = noise(rng)
            for k in range(3):
                seen = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
                save(tmp_path / "set" / label / f"{label[0]}{video}" / f"{k:04d}.png", seen)
    train(tmp_path / "set", tmp_path, "--train.epochs", "0")
    said = capsys.readouterr().out
    assert "84 images in 28 groups: frames of 28 folders." in said and "look like training files" not in said


def test_reals_alone_are_told_what_learns_from_them(tmp_path, rng, capsys):
    for number in range(4):
        save(tmp_path / "set" / "real" / f"{number}.png", noise(rng))
        save(tmp_path / "set" / "generated" / f"{number}.png", noise(rng))
    assert cli.main(["train", "cnn", "--data.path", str(tmp_path / "set"), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "Left out: 4 files in generated/: a class folder is called real or fake" in said.out
    assert "To take generated in as fake: --data.fake fake generated; all other folders are then real" in said.out
    told = ("All 4 files are real, none is fake", "generated/ (4 files)", "feature_oneclass")
    assert all(words in said.err for words in told)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["{video}/{k:04d}.png", "{video}_{k:04d}.png"])
def test_videos_of_noise_are_not_told_apart(tmp_path, rng, shape):
    for label in ("real", "fake"):
        for number in range(40):  # of which 16 are in the test: with fewer, an interval means little
            picture = noise(rng).astype(int)
            for k in range(6):
                frame = np.clip(picture + rng.normal(0, 6, picture.shape) + k, 0, 255).astype(np.uint8)
                save(tmp_path / "set" / label / shape.format(video=f"{label[0]}vid{number:02d}", k=k), frame)
    found = json.loads(train(tmp_path / "set", tmp_path, "--train.epochs", "3").metrics.read_text())["test"]
    low, high = found["auc_interval"]
    assert low <= 0.5 <= high
