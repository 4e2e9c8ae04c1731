"""CONTRIBUTING's walk-through, followed to the letter, and plugins from files and installed packages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DETECTOR, LAYOUT = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
SMALL = ("--train.epochs", "1", "--data.size", "32", "--data.frames", "1", "--data.workers", "1")


def run(*argv, cwd, path=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "tfdetect.cli", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(DETECTOR)
    (folder / "scanned.py").write_text(LAYOUT)
    return folder


@pytest.fixture(scope="module")
def trained(place, images):
    done = run("train", "tiny", "--plugin", "tiny.py", "--data.path", images, *SMALL, "--detector.filters", "4", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "saved_models" / "tiny"


def test_the_detector_is_trained_and_its_figure_is_in_report_and_tensorboard(trained):
    assert "Weights of the score" in (trained / "report.html").read_text()
    assert b"Weights of the score" in b"".join(file.read_bytes() for file in (trained / "logs" / "test").iterdir())


def test_a_run_finds_its_plugin_again(trained, place, images, tmp_path):
    assert yaml.safe_load((trained / "config.yaml").read_text())["plugins"] == [str(place / "tiny.py")]
    file = next((images / "real").iterdir())
    done = run("predict", trained, file, cwd=tmp_path)
    assert done.returncode == 0 and "1 judged" in done.stdout, done.stdout + done.stderr
    moved = tmp_path / "elsewhere" / "tiny.py"
    moved.parent.mkdir()
    text = (trained / "config.yaml").read_text()
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text.replace(str(place / "tiny.py"), "/gone/tiny.py"))
    done = run("predict", "run", file, cwd=tmp_path)
    assert done.returncode == 2 and "needs the plugin /gone/tiny.py" in done.stderr
    shutil.copy(place / "tiny.py", moved)
    assert run("predict", "run", file, f"--plugin={moved}", cwd=tmp_path).returncode == 0


def test_pasted_into_the_package_it_is_a_sub_command(tmp_path):
    shutil.copytree(ROOT / "tfdetect", tmp_path / "tfdetect")
    detectors = tmp_path / "tfdetect" / "models" / "detectors"
    (detectors / "tiny.py").write_text(DETECTOR)
    (detectors / "broken.py").write_text(DETECTOR.replace("import dataclass", "import datacls"))
    done = run("train", "--help", cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0 and "tiny " in done.stdout and "One convolution on single frames." in done.stdout
    assert "detectors/broken.py cannot be imported and is left out: ImportError: cannot import name 'datacls'" in done.stderr
    assert "Channels of the convolution." in run("train", "tiny", "--help", cwd=tmp_path, path=tmp_path).stdout


def test_a_layout_of_a_plugin_is_recognised(place, images, tmp_path):
    for scanner in ("a", "b"):
        for name, label in (("genuine", "real"), ("forged", "fake")):
            shutil.copytree(images / label, tmp_path / "set" / scanner / name)
    done = run("audit", tmp_path / "set", "--plugin", place / "scanned.py", "--data.workers", "1", cwd=tmp_path)
    assert "scanned_documents" in done.stdout, done.stdout + done.stderr


def test_installed_plugins_are_found_by_their_entry_points(place, tmp_path):
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[tfdetect.detectors]\ntiny = mine_tiny\ngone = mine_gone\n")
    shutil.copy(place / "tiny.py", tmp_path / "mine_tiny.py")
    done = run("train", "--help", cwd=tmp_path, path=f"{ROOT}{os.pathsep}{tmp_path}")
    assert done.returncode == 0 and "One convolution on single frames." in done.stdout
    assert "the plugin gone (mine_gone) cannot be imported and is left out: ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("words, message", [
    (["--plugin"], "--plugin needs the path of a Python file"),
    (["--plugin", "none.py"], "There is no plugin"),
    (["--plugin", "bad.py"], "cannot be imported: NameError: name 'x' is not defined (line 2)"),
    (["--plugin", "note.txt"], "its name must end in .py"),
])  # fmt: skip
def test_a_wrong_plugin_is_one_sentence(tmp_path, words, message):
    (tmp_path / "bad.py").write_text("\nx\n")
    (tmp_path / "note.txt").write_text("text")
    done = run("train", "cnn", *words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
