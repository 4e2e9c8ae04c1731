"""The folder of a run: reserved before any work, locked by one process, and deleted only if it is a run."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from tfdetect import artifact as artifacts
from tfdetect import cli, config, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError


@pytest.fixture
def parse(tmp_path):
    return lambda *argv: config.parse(["cnn", "--out", str(tmp_path / "runs"), *argv], "t")


def finish(artifact):
    for path in (artifact.manifest, artifact.calibration, artifact.report):
        path.write_text("{}")


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/", "a/b", "/a", ".hidden", "-x", "a\\b", "../a"])
def test_a_name_that_is_not_a_plain_folder_name_is_refused_and_nothing_is_deleted(tmp_path, name, capsys):
    other = tmp_path / "runs" / "other" / "model.keras"
    other.parent.mkdir(parents=True)
    other.write_text("")
    with contextlib.suppress(SystemExit):
        assert cli.main(["train", "cnn", f"--name={name}", "--overwrite", "--out", str(tmp_path / "runs")]) == 2
    assert "plain folder name" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert other.exists()


def test_unnamed_runs_started_together_get_different_folders(parse):
    barrier, names, run = threading.Barrier(8, timeout=30), [], parse()

    def train():
        barrier.wait()
        with artifacts.reserve_folder(run) as (artifact, resumes):
            assert not resumes and config.read_yaml(artifact.config)
            artifact.manifest.write_text(str(threading.get_ident()))
            names.append(artifact.folder.name)
            barrier.wait()
            assert artifact.manifest.read_text() == str(threading.get_ident())

    threads = [threading.Thread(target=train) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8 and "cnn" in names


def test_a_reserved_folder_without_results_is_deleted(parse, tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), artifacts.reserve_folder(parse()):
            raise error
        assert not (tmp_path / "runs").exists()


def test_a_folder_reserved_by_a_killed_process_is_reused(parse, tmp_path):
    abandoned = Artifact(tmp_path / "runs" / "cnn")
    artifacts.reset_folder(abandoned, parse())
    with artifacts.reserve_folder(parse()) as (artifact, resumes):
        assert (artifact, resumes) == (abandoned, True)
    artifacts.reset_folder(abandoned, parse())
    with artifacts.reserve_folder(parse("--name", "cnn", "--data.size", "64")) as (artifact, resumes):
        assert (artifact, resumes) == (abandoned, False) and "size: 64" in abandoned.config.read_text()


def test_overwrite_deletes_only_a_run_and_only_when_the_new_one_begins(parse):
    with artifacts.reserve_folder(parse("--name", "a")) as (old, _):
        finish(old)
    new_run = parse("--name", "a", "--overwrite", "--data.size", "64")
    with pytest.raises(ZeroDivisionError), artifacts.reserve_folder(new_run):
        raise ZeroDivisionError  # while decoding
    assert old.report.exists() and "size: 64" not in old.config.read_text()
    with artifacts.lock(old), pytest.raises(BlockingIOError, match="being trained"), artifacts.reserve_folder(new_run):
        pass
    assert old.report.exists()
    with artifacts.reserve_folder(new_run) as (artifact, resumes):
        artifacts.reset_folder(artifact, new_run)
        assert not resumes and os.listdir(artifact.folder) == ["config.yaml"]


def test_overwrite_replaces_a_run_of_an_older_version(parse):
    with artifacts.reserve_folder(parse("--name", "a")) as (old, _):
        finish(old)
    old.config.write_text(old.config.read_text().replace("version: 2", "version: 1"))
    with pytest.raises(UserError, match="was written by an older tfdetect"):
        artifacts.load_config(old)
    with artifacts.reserve_folder(parse("--name", "a", "--overwrite")) as (artifact, resumes):
        assert (artifact, resumes) == (old, False)


@pytest.mark.parametrize("text", [None, "site: mine", "detector: {name: cnn}"])
def test_overwrite_does_not_delete_a_folder_that_is_not_a_run(parse, tmp_path, text):
    folder = tmp_path / "runs" / "mine"
    (folder / "cnn").mkdir(parents=True)
    (folder / "cnn" / "config.yaml").write_text("")
    if text:
        (folder / "config.yaml").write_text(text)
    run = parse("--name", "mine", "--overwrite")
    with pytest.raises(ValueError, match="nothing was deleted"), artifacts.reserve_folder(run):
        pass
    with pytest.raises(ValueError, match="nothing was deleted"):
        artifacts.reset_folder(Artifact(folder), run)
    assert (folder / "cnn" / "config.yaml").exists()


def test_a_run_cannot_be_used_while_it_is_being_trained(parse):
    with artifacts.reserve_folder(parse("--name", "a")) as (artifact, _):
        finish(artifact)
        with pytest.raises(BlockingIOError, match="being trained by another process; wait"):
            artifacts.find(artifact.folder)
    assert artifacts.find(artifact.folder) == artifact


def test_an_unnamed_run_lists_the_folder_once(parse, tmp_path, monkeypatch):
    for name in ("cnn", "cnn-2", "cnn-3"):
        artifacts.reset_folder(Artifact(tmp_path / "runs" / name), parse("--data.size", "64"))
    calls, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: calls.append(path) or stat(path, **options))
    assert artifacts.select_folder(parse())[0].folder.name == "cnn-4"
    assert len(calls) < 20


def test_a_misspelt_run_is_answered_with_the_existing_runs(parse, tmp_path, monkeypatch):
    for name in ("residual", "cnn"):
        artifacts.reset_folder(Artifact(tmp_path / "saved_models" / name), parse())
    monkeypatch.chdir(tmp_path)
    for path in ("residul", "saved_models/residul"):
        message = r"Perhaps you meant saved_models/residual\. Runs in saved_models: cnn, residual"
        with pytest.raises(FileNotFoundError, match=message):
            artifacts.find(Path(path))
