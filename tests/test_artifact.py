"""The folder of a run: claimed before any work, taken by one process alone, and only ever deleted when it is a run."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact


@pytest.fixture
def run(tmp_path):
    return lambda *argv: config.parse(["cnn", "--out", str(tmp_path / "runs"), *argv], "t")


def finished(artifact):
    for path in (artifact.manifest, artifact.calibration, artifact.report):
        path.write_text("{}")


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/", "a/b", "/a", ".hidden", "-x", "a\\b", "../a"])
def test_a_name_that_is_no_plain_folder_is_refused_and_nothing_is_deleted(tmp_path, name, capsys):
    kept = tmp_path / "runs" / "other" / "model.keras"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    with contextlib.suppress(SystemExit):
        assert cli.main(["train", "cnn", f"--name={name}", "--overwrite", "--out", str(tmp_path / "runs")]) == 2
    assert "plain folder name" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert kept.exists()


def test_two_unnamed_runs_started_together_take_two_folders(run):
    together, taken, asked = threading.Barrier(8, timeout=30), [], run()

    def train():
        together.wait()
        with artifacts.reserve_folder(asked) as (artifact, going_on):
            assert not going_on and config.read_yaml(artifact.config)
            artifact.manifest.write_text(str(threading.get_ident()))
            taken.append(artifact.folder.name)
            together.wait()
            assert artifact.manifest.read_text() == str(threading.get_ident())

    threads = [threading.Thread(target=train) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 8 and "cnn" in taken


def test_a_claim_without_results_goes_again(run, tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), artifacts.reserve_folder(run()):
            raise error
        assert not (tmp_path / "runs").exists()


def test_a_claim_that_a_killed_process_left_is_taken_over(run, tmp_path):
    left = Artifact(tmp_path / "runs" / "cnn")
    artifacts.reset_folder(left, run())
    with artifacts.reserve_folder(run()) as (artifact, going_on):
        assert (artifact, going_on) == (left, True)
    artifacts.reset_folder(left, run())
    with artifacts.reserve_folder(run("--name", "cnn", "--data.size", "64")) as (artifact, going_on):
        assert (artifact, going_on) == (left, False) and "size: 64" in left.config.read_text()


def test_overwrite_deletes_no_more_than_a_run_and_not_before_the_new_one_begins(run, tmp_path):
    with artifacts.reserve_folder(run("--name", "a")) as (old, _):
        finished(old)
    again = run("--name", "a", "--overwrite", "--data.size", "64")
    with pytest.raises(ZeroDivisionError), artifacts.reserve_folder(again):
        raise ZeroDivisionError  # in decoding
    assert old.report.exists() and "size: 64" not in old.config.read_text()
    with artifacts.lock(old), pytest.raises(BlockingIOError, match="being trained"), artifacts.reserve_folder(again):
        pass
    assert old.report.exists()
    with artifacts.reserve_folder(again) as (artifact, going_on):
        artifacts.reset_folder(artifact, again)
        assert not going_on and os.listdir(artifact.folder) == ["config.yaml"]


@pytest.mark.parametrize("text", [None, "site: mine", "detector: {name: cnn}"])
def test_overwrite_leaves_what_is_no_run(run, tmp_path, text):
    folder = tmp_path / "runs" / "mine"
    (folder / "cnn").mkdir(parents=True)
    (folder / "cnn" / "config.yaml").write_text("")
    if text:
        (folder / "config.yaml").write_text(text)
    asked = run("--name", "mine", "--overwrite")
    with pytest.raises(ValueError, match="left as it is"), artifacts.reserve_folder(asked):
        pass
    with pytest.raises(ValueError, match="left as it is"):
        artifacts.reset_folder(Artifact(folder), asked)
    assert (folder / "cnn" / "config.yaml").exists()


def test_a_run_that_is_being_trained_is_not_judged_yet(run, tmp_path):
    with artifacts.reserve_folder(run("--name", "a")) as (artifact, _):
        finished(artifact)
        with pytest.raises(BlockingIOError, match="being trained by another process; wait"):
            artifacts.find(artifact.folder)
    assert artifacts.find(artifact.folder) == artifact


def test_an_unnamed_start_looks_at_the_folder_once(run, tmp_path, monkeypatch):
    for number in range(1, 4):
        artifacts.reset_folder(Artifact(tmp_path / "runs" / ("cnn" if number == 1 else f"cnn-{number}")), run("--data.size", "64"))
    asked, real = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: asked.append(path) or real(path, **how))
    assert artifacts.select_folder(run())[0].folder.name == "cnn-4"
    assert len(asked) < 20


def test_a_misspelt_run_is_answered_with_those_that_are_there(run, tmp_path, monkeypatch):
    for name in ("residual", "cnn"):
        artifacts.reset_folder(Artifact(tmp_path / "saved_models" / name), run())
    monkeypatch.chdir(tmp_path)
    for asked in ("residul", "saved_models/residul"):
        said = r"Perhaps you meant saved_models/residual\. Runs in saved_models: cnn, residual"
        with pytest.raises(FileNotFoundError, match=said):
            artifacts.find(Path(asked))
