"""Plugins from files and installed packages, with the example code of the documentation."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfdetect import cli, config, corruption_spec, plugins
from tfdetect.data.layouts import detect  # noqa: F401  (registers the layouts)
from tfdetect.data.layouts.tree import LAYOUTS
from tfdetect.detector import REGISTRY
from tfdetect.errors import UserError

pytestmark = pytest.mark.usefixtures("light")
ROOT = Path(__file__).parents[1]
DOCUMENTATION = "".join((ROOT / name).read_text() for name in ("CONTRIBUTING.md", "docs/augment.md"))
DETECTOR, LAYOUT, CORRUPTION = re.findall(r"```python\n(.*?)```", DOCUMENTATION, re.DOTALL)
SMALL = ("--train.epochs", "1", "--data.size", "32", "--data.frames", "1", "--data.workers", "1")


def run_process(*argv, cwd, path=ROOT):
    """Run the command line in a new process, with `path` as PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "tfdetect.cli", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run(*argv, cwd):
    """Run the command line in this process, which afterwards has forgotten the plugins, and return what `run_process` does."""
    registries = (REGISTRY, LAYOUTS, corruption_spec.CORRUPTIONS, corruption_spec.REGISTERED, sys.modules)
    before = [dict(registry) for registry in registries]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([str(word) for word in argv])
    finally:
        for registry, names in zip(registries, before, strict=True):
            for name in [name for name in registry if name not in names]:
                if registry is not sys.modules or name.startswith(plugins.PREFIX):
                    del registry[name]
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the documented plugins: the detector tiny.py, the layout scanned.py and the corruption vignette.py."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(DETECTOR)
    (folder / "scanned.py").write_text(LAYOUT)
    (folder / "vignette.py").write_text(CORRUPTION)
    return folder


@pytest.fixture(scope="module")
def trained(folder, images):
    """Folder of a run of the detector `tiny`, trained on corrupted images."""
    plugins = ("--plugin", "tiny.py", "--plugin=vignette.py")
    options = ("--data.path", images, *SMALL, "--detector.filters", "4", "--train.augment", "vignette(0.2)")
    result = run("train", "tiny", *plugins, *options, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "saved_models" / "tiny"


def test_plugin_detector_trains_and_its_figure_is_in_report_and_tensorboard(trained):
    assert "Weights of the score" in (trained / "report.html").read_text()
    assert b"Weights of the score" in b"".join(file.read_bytes() for file in (trained / "logs" / "test").iterdir())


def test_run_loads_its_plugin_again(trained, folder, images, tmp_path):
    plugins = [str(folder / "tiny.py"), str(folder / "vignette.py")]
    assert yaml.safe_load((trained / "config.yaml").read_text())["plugins"] == plugins
    file = next((images / "real").iterdir())
    result = run_process("predict", trained, file, cwd=tmp_path)
    assert result.returncode == 0 and "1 scored" in result.stdout, result.stdout + result.stderr
    moved = tmp_path / "elsewhere" / "tiny.py"
    moved.parent.mkdir()
    text = (trained / "config.yaml").read_text()
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    (tmp_path / "run" / "config.yaml").write_text(text.replace(str(folder / "tiny.py"), "/gone/tiny.py"))
    result = run("predict", "run", file, cwd=tmp_path)
    assert result.returncode == 2 and "needs the plugin /gone/tiny.py" in result.stderr
    shutil.copy(folder / "tiny.py", moved)
    assert run("predict", "run", file, f"--plugin={moved}", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("place", ["tiny.py", "../tiny.py", "{}/run/tiny.py"])
def test_a_plugin_that_came_with_a_run_is_not_imported_by_itself(place, folder, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / place.format(tmp_path)
    file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n" + (folder / "tiny.py").read_text())
    settings = {"version": config.VERSION, "plugins": [place.format(tmp_path)], "detector": {"name": "tiny"}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "run" / "calibration.json").write_text("{}")
    result = run("predict", "run", "x.jpg", cwd=tmp_path)
    assert result.returncode == 2 and "which came with it: program code of whoever made the run" in result.stderr
    assert not (tmp_path / "executed").exists()
    assert "which came with it" not in run("predict", "run", "x.jpg", "--plugin", file, cwd=tmp_path).stderr
    assert (tmp_path / "executed").exists()


def test_detector_file_inside_the_package_becomes_a_subcommand(tmp_path):
    shutil.copytree(ROOT / "tfdetect", tmp_path / "tfdetect")
    detectors = tmp_path / "tfdetect" / "models" / "detectors"
    (detectors / "tiny.py").write_text(DETECTOR)
    (detectors / "broken.py").write_text(DETECTOR.replace("import dataclass", "import datacls"))
    result = run_process("train", "--help", cwd=tmp_path, path=tmp_path)
    assert result.returncode == 0 and "tiny " in result.stdout and "One convolution on single frames." in result.stdout
    assert "detectors/broken.py cannot be imported and is left out: ImportError: cannot import name 'datacls'" in result.stderr
    assert "Channels of the convolution." in run_process("train", "tiny", "--help", cwd=tmp_path, path=tmp_path).stdout


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
    result = run_process("train", "--help", cwd=tmp_path, path=f"{ROOT}{os.pathsep}{tmp_path}")
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


BUILT_IN = DETECTOR.replace('@register("tiny")', '@register("cnn")')
REQUIRED = DETECTOR.replace("filters: int = 8", "filters: int")
UNKNOWN_SETTING = DETECTOR.replace('"train.batch": 32', '"train.size": 32')


@pytest.mark.parametrize("code, message", [
    (BUILT_IN, "cannot be imported: UserError: Two detectors are named 'cnn': tfdetect.models.detectors.cnn and"),
    (REQUIRED, "The detector tiny needs defaults for its field filters"),
    (UNKNOWN_SETTING, "default_overrides of the detector tiny sets 'train.size', which is not a setting of a run"),
    (DETECTOR.replace('@register("tiny")', '@register("Tiny net")'), "A detector's name consists of a-z, 0-9 and _"),
    (DETECTOR.replace("def build", "def built"), "The detector tiny lacks build"),
    (DETECTOR.replace("filters: int = 8", "caches_features: bool = True"), "caches_features and therefore needs fit_head"),
    (DETECTOR.replace("filters: int = 8", 'attribute: str = "source"'), "declares attribute and therefore needs with_classes"),
    ("raise SystemExit('bye')", "cannot be imported: SystemExit: bye (line 1)"),
    ("def broken(:", "cannot be imported: SyntaxError"),
], ids=["built-in name", "no default", "unknown setting", "odd name", "no build", "no fit_head", "no with_classes", "exit",
        "syntax"])  # fmt: skip
def test_faulty_plugin_detector_gives_one_sentence(tmp_path, code, message):
    (tmp_path / "faulty.py").write_text(code)
    result = run("train", "tiny", "--plugin", "faulty.py", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr, result.stderr


FAULTY_EXTRAS = DETECTOR.replace("figure = Figure()", "raise RuntimeError('no figure')")
ODD_EXTRAS = DETECTOR.replace(
    'return ReportExtras(figures={"Weights of the score": figure})',
    """import numpy as np
        import pandas as pd

        return ReportExtras({"roc": figure, "a b": Figure(), "a/b": Figure()}, {"<b>": pd.DataFrame({"x": []})}, ("Odd <i>",),
                            {"threshold_rule": "mine", "size": np.float32(2), "rows": np.arange(2), "none": np.nan})""")


def test_training_survives_a_faulty_report_and_odd_extras_stay_apart(tmp_path, images):
    options = ("--plugin", "mine.py", "--data.path", images, *SMALL, "--name", "run")
    (tmp_path / "mine.py").write_text(FAULTY_EXTRAS)
    result = run("train", "tiny", *options, cwd=tmp_path)
    assert result.returncode == 2 and f"an error in the plugin {tmp_path}/mine.py (RuntimeError: no figure)" in result.stderr
    (tmp_path / "mine.py").write_text(ODD_EXTRAS)
    result = run("train", "tiny", *options, cwd=tmp_path)
    assert result.returncode == 0 and "Epoch" not in result.stdout, result.stdout + result.stderr
    folder = tmp_path / "saved_models" / "run"
    assert {"roc.png", "roc_2.png", "a_b.png", "a_b_2.png"} <= {path.name for path in (folder / "plots").iterdir()}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["threshold_rule"], metrics["size"], metrics["rows"], metrics["none"]) == ("youden", 2.0, [0, 1], None)
    assert "&lt;b&gt;" in (page := (folder / "report.html").read_text()) and "Odd &lt;i&gt;" in page


INNER_LAYER = """
        class Halve(keras.layers.Layer):
            def call(self, x):
                return x / 2

        x = Halve()(x)
        return keras.Model"""


@pytest.mark.parametrize("code, message", [
    (DETECTOR.replace("score_layer(x)", "keras.layers.Dense(2)(x)"),
     "tiny: build must return a keras.Model with outputs (batch, 1), got outputs (None, 2)."),
    (DETECTOR.replace("\n        return keras.Model", INNER_LAYER), "cannot be saved and loaded again"),
], ids=["two outputs", "layer inside build"])  # fmt: skip
def test_unusable_model_is_refused_before_training(tmp_path, images, code, message):
    (tmp_path / "mine.py").write_text(code)
    result = run("train", "tiny", "--plugin", "mine.py", "--data.path", images, *SMALL, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and "Epoch" not in result.stdout, result.stdout + result.stderr


def test_plugin_that_became_part_of_the_suite_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("tfdetect.plugins.loaded_files", list)
    plugins.load_saved([Path("/gone/mine.py")], registered=True)
    with pytest.raises(UserError, match="needs the plugin /gone/mine.py"):
        plugins.load_saved([Path("/gone/mine.py")], registered=False)
