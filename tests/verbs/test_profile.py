"""--profile prints where the time went, and writes what TensorBoard shows."""

import re

import pytest

from tfdetect import cli

pytestmark = pytest.mark.usefixtures("light")


def stages_in(text):
    """Return the seconds of each stage in a table of stages, which is followed by their sum."""
    rows = re.findall(r"^ *(\d+\.\d\d) +\d+ % +(\w+)", text, re.M)
    assert re.search(r"^\d+\.\d s in \d+\.\d s, all processes and threads added up$", text, re.M)
    return {name: float(seconds) for seconds, name in rows}


def test_prepare_train_and_predict_say_where_their_time_goes(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["prepare", str(images), "--out", "x", "--data.size", "16", "--profile"]) == 0
    assert set(stages_in(capsys.readouterr().out)) >= {"read", "decode", "resize", "describe", "write"}
    assert list((tmp_path / "x" / "logs").glob("events*"))

    small = ["--train.epochs", "3", "--train.batch", "4", "--detector.width", "4", "--train.augment", "flip"]
    assert cli.main(["train", "cnn", "--data.path", "x", "--name", "run", *small, "--profile"]) == 0
    found = stages_in(capsys.readouterr().out)
    assert set(found) >= {"copy", "augment", "step", "wait"} and "decode" not in found and found["step"] > 0
    assert list((tmp_path / "saved_models" / "run" / "logs" / "profile").rglob("*.xplane.pb"))

    assert cli.main(["predict", "saved_models/run", str(images / "real"), "--profile"]) == 0
    found = stages_in(capsys.readouterr().out)
    assert set(found) >= {"decode", "step", "wait"} and found["step"] > 0
    assert list((tmp_path / "saved_models" / "run" / "logs" / "predict").rglob("*.xplane.pb"))
