"""Runs that are interrupted, killed, finished or named, and trained further."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config
from tfdetect.artifact import Artifact

pytestmark = pytest.mark.usefixtures("light")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def train(videos, tmp_path_factory):
    """A function that trains a run of a name and returns it; `code` is the exit code that is expected."""
    folder = tmp_path_factory.mktemp("folder")

    def run(name, *more, code=0):
        assert cli.main([*command(folder), "--name", name, *more]) == code
        return Artifact(folder / "runs" / name)

    def command(out):
        return ["train", "cnn_lstm", "--data.path", str(videos), "--data.frames", "4", "--data.size", "32", "--train.batch", "8",
                "--train.epochs", "2", "--data.cache_dir", str(folder / "cache"), "--out", str(out / "runs")]  # fmt: skip

    run.command = command
    return run


@pytest.fixture(scope="module")
def two(train):
    """A run of two epochs."""
    return train("two")


@pytest.fixture(scope="module")
def six(train):
    """A run of six epochs."""
    return train("six", "--train.epochs", "6")


def is_same(run, other):
    """Return whether two runs have the same history, metrics and calibration."""
    pairs = [(getattr(run, part).read_text(), getattr(other, part).read_text()) for part in ("metrics", "calibration")]
    return run.history.read_text() == other.history.read_text() and all(json.loads(a) == json.loads(b) for a, b in pairs)


def test_names(tmp_path):
    def run(*argv):
        return config.parse(["cnn", "--out", str(tmp_path), *argv], "t")

    def finish(artifact):
        artifact.report.write_text("")

    first, resuming = artifacts.select_folder(run())
    assert (first.folder.name, resuming) == ("cnn", False)
    artifacts.reset_folder(first, run())
    first.manifest.write_text("")
    assert artifacts.select_folder(run()) == (first, True), "the same command resumes an interrupted run"
    with artifacts.lock(first):
        assert artifacts.select_folder(run())[0].folder.name == "cnn-2", "but not one that another process is training"
        with pytest.raises(BlockingIOError, match="another process"), artifacts.lock(first):
            pass
    assert artifacts.select_folder(run("--data.size", "64"))[0].folder.name == "cnn-2", "nor with other settings"
    for flags in (("--data.workers", "1"), ("--train.tracker", "mlflow")):
        assert artifacts.select_folder(run(*flags)) == (first, True), "which do not change the result"
    assert artifacts.select_folder(run("--name", "cnn")) == (first, True)
    with pytest.raises(FileExistsError, match="--resume.*--overwrite"):
        artifacts.select_folder(run("--name", "cnn", "--data.size", "64"))
    with pytest.raises(ValueError, match="no run .*cn to resume. Perhaps you meant"):
        artifacts.select_folder(run("--name", "cn", "--resume"))
    finish(first)
    assert artifacts.select_folder(run())[0].folder.name == "cnn-2"
    with pytest.raises(FileExistsError):
        artifacts.select_folder(run("--name", "cnn"))
    assert artifacts.select_folder(run("--name", "cnn", "--overwrite")) == (first, False)
    assert artifacts.select_folder(run("--name", "cnn", "--resume")) == (first, True)
    for more in (["--train.epochs", "40"], ["--train.patience", "9"], ["--train.epochs", "40", "--train.patience", "9"]):
        assert artifacts.select_folder(run("--name", "cnn", "--resume", *more)) == (first, True)
    for flag, value, output in (("--data.size", "64", "--data.size was 256 and is now 64"),
                              ("--train.xla", None, "--train.xla was off and is now on"),
                              ("--data.fake", "x y", "--data.fake was fake and is now x y")):  # fmt: skip
        with pytest.raises(ValueError, match=output):
            longer = ("--train.epochs", "40", flag, *(value.split() if value else ()))
            artifacts.select_folder(run("--name", "cnn", "--resume", *longer))
    with pytest.raises(ValueError, match="settings: detector was cnn and is now mesonet"):
        artifacts.select_folder(config.parse(["mesonet", "--out", str(tmp_path), "--name", "cnn", "--resume"], "t"))


def test_a_finished_run_is_trained_further(train, two, six, capsys):
    longer = Artifact(Path(shutil.copytree(two.folder, two.folder.with_name("longer"))))
    train("longer", "--resume")
    assert "to train it further, raise --train.epochs" in capsys.readouterr().out
    before = longer.report.read_text()
    train("longer", "--resume", "--train.epochs", "6")
    output = capsys.readouterr().out
    assert "Epoch 3/6" in output and "Epoch 2/6" not in output
    assert is_same(longer, six), "the optimizer state was kept"
    assert config.parse(["--config", str(longer.config)], "t").train.epochs == 6 and longer.report.read_text() != before
    train("longer", "--resume", "--train.epochs", "5")
    assert "finished" in capsys.readouterr().out, "fewer epochs than are done"
    shutil.rmtree(longer.checkpoints)
    train("longer", "--resume", "--train.epochs", "7")
    output = capsys.readouterr().out
    assert "continues from the best epoch with a new one" in output and "Epoch 7/7" in output and "Epoch 6/7" not in output
    assert artifacts.find(longer.folder) and artifacts.find(two.folder), "the hashes are those of their files"
    assert longer.history.read_text().startswith(six.history.read_text())


def test_a_run_whose_files_changed_splits_is_not_resumed(train, two, capsys):
    moved = Artifact(Path(shutil.copytree(two.folder, two.folder.with_name("moved"))))
    table = pd.read_csv(moved.manifest)
    table.assign(split=table["split"].replace({"train": "test", "test": "train"})).to_csv(moved.manifest, index=False)
    train("moved", "--resume", "--train.epochs", "3", code=2)
    assert "in another split" in capsys.readouterr().err


def test_a_head_trained_without_epochs_cannot_be_trained_further(images, tmp_path, capsys):
    argv = ["train", "clip", "--data.path", str(images), "--detector.preset", "tiny", "--detector.head", "logistic",
            "--data.size", "32", "--data.cache_dir", str(tmp_path / "cache"), "--out", str(tmp_path), "--name", "x"]  # fmt: skip
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--resume", "--train.epochs", "5"]) == 0
    assert "was not trained in epochs" in capsys.readouterr().out


def test_a_killed_training_resumes_to_the_same_result(train, six, tmp_path, capsys):
    argv = [*train.command(tmp_path), "--train.epochs", "6"]
    state = tmp_path / "runs" / "cnn_lstm" / "checkpoints" / "worker-0" / "state.json"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *argv[1:]]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(json.loads(state.read_text())["history"]) < 6
    assert cli.main(argv) == 0
    output = capsys.readouterr().out
    assert "Resuming" in output and "Epoch 1/6" not in output
    assert is_same(Artifact(tmp_path / "runs" / "cnn_lstm"), six)
