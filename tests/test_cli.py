"""The command line: fast help, one sentence for each mistake, and no partial output."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfdetect import cli

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "keras_hub", "keras_cv", "torch", "pandas", "sklearn", "matplotlib")


def call(capsys, *argv):
    """Run `tfdetect ARGV` and return its exit code, stdout and stderr."""
    try:
        code = cli.main([str(word) for word in argv])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("argv", [[verb, "--help"] for verb in cli.VERBS] + [["train", "cnn", "--help"], ["--help"]])
def test_help_imports_nothing_heavy(argv):
    code = f"import sys\nfrom tfdetect import cli\ntry:\n    cli.main({argv})\nexcept SystemExit:\n    pass\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:]
    assert "Traceback" not in done.stderr and time.monotonic() - start < 10, "generous: it is imports that are tested"


def test_there_is_one_script_per_verb():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert scripts == set(cli.VERBS)
    done = subprocess.run([sys.executable, ROOT / "scripts" / "predict.py", "--help"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0 and f"usage: python {ROOT / 'scripts' / 'predict.py'}" in done.stdout


@pytest.mark.parametrize(
    "argv, message",
    [
        (["trian"], "unknown verb 'trian'. Perhaps you meant train"),
        (["train", "cnn_lstn"], "Perhaps you meant cnn_lstm"),
        (["train", "cnn", "--data.pth", "x"], "--data.path"),
        (["train", "cnn", "--data.path", "nowhere"], "nowhere does not exist; expected a folder or a manifest"),
        (["train", "--config"], "--config needs the path"),
        (["train", "cnn", "--data.path", ""], "--data.path is empty"),
        (["train", "cnn", "--out="], "--out is empty"),
        (["explain", "x", "y", "--out", ""], "--out is empty"),
        (["audit", ""], "Got an empty argument; expected a path"),
        (["predict", "", "a.jpg"], "Got an empty argument"),
        (["train", "--config", "none.yaml"], "No such file or directory: none.yaml"),
        (["evaluate", "nowhere"], "No run folder 'nowhere': it has no config.yaml"),
        (["predict", "nowhere", "a.jpg"], "No run folder 'nowhere': it has no config.yaml"),
        (["export", "nowhere"], "No run folder 'nowhere': it has no config.yaml"),
        (["sample", "--out", "x", "--size", "7"], "size is 7"),
        (["train", "cnn_lstm", "--detector.frame_model", "nowhere"], "No run folder 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *argv)
    assert code == 2 and message in re.sub(r"[│\s]+", " ", err) and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "no files are left behind"


def train(capsys, path, out, *flags):
    argv = ["train", "cnn", "--data.path", path, "--data.size", 32, "--data.cache_dir", out / "cache", "--out", out / "runs"]
    return call(capsys, *argv, *flags)


def test_unusable_data_are_refused_in_one_sentence(capsys, tmp_path, images):
    def folder(name, real, fake):
        for kind, count in (("real", real), ("fake", fake)):
            (tmp_path / name / kind).mkdir(parents=True)
            for file in sorted((images / kind).iterdir())[:count]:
                shutil.copy(file, tmp_path / name / kind / file.name)
        return tmp_path / name

    cases = {
        folder("empty", 0, 0): "has no image or video in a folder named real or fake. It contains fake/",
        folder("one_class", 20, 0): "All 20 files are real, none is fake",
        folder("two_images", 1, 1): "both classes are needed",
    }
    broken = folder("broken", 0, 0)
    for kind in ("real", "fake"):
        for number in range(20):
            (broken / kind / f"{number}.jpg").write_bytes(b"\xff\xd8\xff")
    cases[broken] = "None of the 40 files could be used"
    for path, message in cases.items():
        code, _, err = train(capsys, path, tmp_path)
        assert code == 2 and re.search(message, err) and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_without_read_permission_is_refused(capsys, tmp_path):
    (tmp_path / "d" / "real").mkdir(parents=True)
    (tmp_path / "d" / "real").chmod(0)
    code, _, err = train(capsys, tmp_path / "d", tmp_path)
    assert code == 2 and "Permission denied" in err


def test_prepare_refuses_an_output_folder_with_other_files(capsys, tmp_path, images):
    for name in ("manifest.csv", "set.csv"):
        shutil.copy(images / "manifest.csv", tmp_path / name)
    before = (tmp_path / "manifest.csv").read_bytes()
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(tmp_path / "set.csv", tmp_path / "alone" / "manifest.csv")
    cases = ((images, images), (images, tmp_path), (alone, tmp_path / "alone"), (tmp_path / "alone", tmp_path / "alone"))
    for path, out in cases:
        code, _, err = call(capsys, "prepare", path, "--out", out)
        assert code == 2 and "give a folder that is new" in err, err
    assert (tmp_path / "manifest.csv").read_bytes() == before


def test_missing_permission_and_a_full_disk_are_one_sentence():
    assert cli.format_error(PermissionError(13, "Permission denied", "/x/real")) == "Permission denied: /x/real."
    assert "the disk is full" in cli.format_error(OSError(28, "No space left on device", "/x/a.npy"))


AFTER_INTERRUPT = {"train": "resumes where it stopped", "audit": "resumes where it stopped", "explain": "starts over",
                   "export": "starts over",
                   "evaluate": "decodes only the remaining files, then evaluates all of them"}  # fmt: skip


@pytest.mark.parametrize("verb, effect", AFTER_INTERRUPT.items())
def test_an_interrupt_says_what_the_same_command_will_do(capsys, monkeypatch, verb, effect):
    def stop(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"tfdetect.verbs.{verb}.main", stop)
    code, _, err = call(capsys, verb)
    assert (code, err) == (130, f"\ntfdetect {verb}: interrupted; the same command {effect}.\n")


@pytest.fixture
def failing_predict(monkeypatch, tmp_path):
    def fail(argv):
        return {}["\udcff missing"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfdetect.verbs.predict.main", fail)


def test_a_bug_is_reported_as_such_and_its_traceback_is_logged(failing_predict, capsys, tmp_path):
    code, out, err = call(capsys, "predict", "a", "b")
    (log,) = tmp_path.glob("tfdetect-error-*.log")
    assert (code, out) == (70, "") and "a bug in tfdetect" in err and "KeyError" in err and str(log) in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert 'in fail' in log.read_text() and "['predict', 'a', 'b']" in log.read_text()


def test_a_crash_log_goes_to_the_temporary_folder_if_the_current_one_is_gone(failing_predict, capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = call(capsys, "predict")
    (log,) = (tmp_path / "temporary").glob("tfdetect-error-*.log")
    assert code == 70 and str(log) in err


def test_debug_mode_raises_a_bug(failing_predict, capsys, monkeypatch):
    monkeypatch.setenv("TFDETECT_DEBUG", "1")
    with pytest.raises(KeyError):
        call(capsys, "predict")


def test_windows_is_refused_in_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(cli.sys, "platform", "win32")
    code, _, err = call(capsys, "audit", "x")
    assert code == 2 and "runs on Linux and macOS" in err and len(err.strip().splitlines()) == 1
