"""Leaks in training: groups, near copies across splits, and noise that no detector may learn to separate."""

import json

import cv2
import numpy as np
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact

pytestmark = pytest.mark.usefixtures("light")


def noise(rng, side=6):
    return cv2.resize(rng.integers(0, 256, (side, side, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def train(root, folder, *flags):
    argv = ["train", "cnn", "--data.path", str(root), "--data.size", "32", "--detector.width", "4", "--name", "x", *flags]
    assert cli.main([*argv, "--data.cache_dir", str(folder / "cache"), "--out", str(folder)]) == 0
    return Artifact(folder / "x")


def test_lookalikes_across_splits_are_printed_and_reported(tmp_path, rng, capsys):
    for number in range(40):
        label, image = ("real", "fake")[number % 2], noise(rng)
        for copy in range(3):
            seen = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
            save(tmp_path / "set" / label / f"{rng.integers(10**9)}{'abc'[copy]}.png", seen)
    (tmp_path / "set" / "notes.txt").write_text("")
    run = train(tmp_path / "set", tmp_path, "--train.epochs", "1")
    output = capsys.readouterr().out
    assert "look like training files of other groups, e.g. " in output and "tfdetect audit DIR --write_groups" in output
    assert "121 files: 120 used, 0 failed, 1 left out" in output
    page = run.report.read_text()
    assert "look like training files of other groups" in page and "Groups: none given; each file is a group" in page


def test_images_of_one_group_are_no_leak(tmp_path, rng, capsys):
    for label in ("real", "fake"):
        for video in range(14):
            image = noise(rng)
            for k in range(3):
                seen = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
                save(tmp_path / "set" / label / f"{label[0]}{video}" / f"{k:04d}.png", seen)
    train(tmp_path / "set", tmp_path, "--train.epochs", "0")
    output = capsys.readouterr().out
    assert "84 images in 28 groups: frames of 28 folders." in output and "look like training files" not in output


def test_reals_only_get_advice_about_one_class_detectors(tmp_path, rng, capsys):
    for number in range(4):
        save(tmp_path / "set" / "real" / f"{number}.png", noise(rng))
        save(tmp_path / "set" / "generated" / f"{number}.png", noise(rng))
    assert cli.main(["train", "cnn", "--data.path", str(tmp_path / "set"), "--out", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "Left out: 4 files in generated/: a class folder must be called real or fake" in output.out
    assert "To include generated as fake: --data.fake fake generated; all other folders are then real" in output.out
    messages = ("All 4 files are real, none is fake", "generated/ (4 files)", "feature_oneclass")
    assert all(words in output.err for words in messages)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["{video}/{k:04d}.png", "{video}_{k:04d}.png"])
def test_videos_of_noise_cannot_be_separated(tmp_path, rng, shape):
    for label in ("real", "fake"):
        for number in range(40):  # 16 of them in the test: with fewer, an interval means little
            image = noise(rng).astype(int)
            for k in range(6):
                frame = np.clip(image + rng.normal(0, 6, image.shape) + k, 0, 255).astype(np.uint8)
                save(tmp_path / "set" / label / shape.format(video=f"{label[0]}vid{number:02d}", k=k), frame)
    metrics = json.loads(train(tmp_path / "set", tmp_path, "--train.epochs", "3").metrics.read_text())["test"]
    low, high = metrics["auc_interval"]
    assert low <= 0.5 <= high
