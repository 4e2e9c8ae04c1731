"""Plugins from files and installed packages, with the example code of CONTRIBUTING.md."""

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
    """Run the command line in a new process, with `path` as PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "tfdetect.cli", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the plugins of CONTRIBUTING.md: the detector tiny.py and the layout scanned.py."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(DETECTOR)
    (folder / "scanned.py").write_text(LAYOUT)
    return folder


@pytest.fixture(scope="module")
def trained(folder, images):
    """Folder of a run of the detector `tiny`."""
    result = run("train", "tiny", "--plugin", "tiny.py", "--data.path", images, *SMALL, "--detector.filters", "4", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "saved_models" / "tiny"


def test_plugin_detector_trains_and_its_figure_is_in_report_and_tensorboard(trained):
    assert "Weights of the score" in (trained / "report.html").read_text()
    assert b"Weights of the score" in b"".join(file.read_bytes() for file in (trained / "logs" / "test").iterdir())


def test_run_loads_its_plugin_again(trained, folder, images, tmp_path):
    assert yaml.safe_load((trained / "config.yaml").read_text())["plugins"] == [str(folder / "tiny.py")]
    file = next((images / "real").iterdir())
    result = run("predict", trained, file, cwd=tmp_path)
    assert result.returncode == 0 and "1 scored" in result.stdout, result.stdout + result.stderr
    moved = tmp_path / "elsewhere" / "tiny.py"
    moved.parent.mkdir()
    text = (trained / "config.yaml").read_text()
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text.replace(str(folder / "tiny.py"), "/gone/tiny.py"))
    result = run("predict", "run", file, cwd=tmp_path)
    assert result.returncode == 2 and "needs the plugin /gone/tiny.py" in result.stderr
    shutil.copy(folder / "tiny.py", moved)
    assert run("predict", "run", file, f"--plugin={moved}", cwd=tmp_path).returncode == 0


def test_detector_file_inside_the_package_becomes_a_subcommand(tmp_path):
    shutil.copytree(ROOT / "tfdetect", tmp_path / "tfdetect")
    detectors = tmp_path / "tfdetect" / "models" / "detectors"
    (detectors / "tiny.py").write_text(DETECTOR)
    (detectors / "broken.py").write_text(DETECTOR.replace("import dataclass", "import datacls"))
    result = run("train", "--help", cwd=tmp_path, path=tmp_path)
    assert result.returncode == 0 and "tiny " in result.stdout and "One convolution on single frames." in result.stdout
    assert "detectors/broken.py cannot be imported and is left out: ImportError: cannot import name 'datacls'" in result.stderr
    assert "Channels of the convolution." in run("train", "tiny", "--help", cwd=tmp_path, path=tmp_path).stdout


def test_plugin_layout_is_recognised(folder, images, tmp_path):
    for scanner in ("a", "b"):
        for name, label in (("genuine", "real"), ("forged", "fake")):
            shutil.copytree(images / label, tmp_path / "set" / scanner / name)
    result = run("audit", tmp_path / "set", "--plugin", folder / "scanned.py", "--data.workers", "1", cwd=tmp_path)
    assert "scanned_documents" in result.stdout, result.stdout + result.stderr


def test_installed_plugins_are_found_by_entry_points(folder, tmp_path):
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[tfdetect.detectors]\ntiny = mine_tiny\ngone = mine_gone\n")
    shutil.copy(folder / "tiny.py", tmp_path / "mine_tiny.py")
    result = run("train", "--help", cwd=tmp_path, path=f"{ROOT}{os.pathsep}{tmp_path}")
    assert result.returncode == 0 and "One convolution on single frames." in result.stdout
    assert "the plugin gone (mine_gone) cannot be imported and is left out: ModuleNotFoundError" in result.stderr


@pytest.mark.parametrize("arguments, message", [
    (["--plugin"], "--plugin needs the path of a Python file"),
    (["--plugin", "none.py"], "There is no plugin"),
    (["--plugin", "bad.py"], "cannot be imported: NameError: name 'x' is not defined (line 2)"),
    (["--plugin", "note.txt"], "its name must end in .py"),
])  # fmt: skip
def test_invalid_plugin_is_reported_without_traceback(tmp_path, arguments, message):
    (tmp_path / "bad.py").write_text("\nx\n")
    (tmp_path / "note.txt").write_text("text")
    result = run("train", "cnn", *arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
