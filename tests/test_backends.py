"""The torch and jax backends: runs from training to prediction, and equal scores of the same .keras files.

Keras chooses its backend on import, so each backend runs in a separate process.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectors import LARGE, clip_shape, make_detector

from tfdetect import cli
from tfdetect.detector import REGISTRY
from tfdetect.errors import UserError
from tfdetect.workflow import console

ROOT = Path(__file__).parents[1]
INSTALLED = [pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
          for name in ("torch", "jax")]  # fmt: skip
SETTINGS = ["--data.frames", "2", "--data.size", "32", "--train.epochs", "1", "--train.batch", "8"]
SCORES = """
import json, pathlib, sys
import numpy as np
from tfdetect import models
clips = np.load(sys.argv[1])
out = {}
for path in pathlib.Path(sys.argv[2]).glob("*.keras"):
    model = models.load(path)
    frames, size = model.input_shape[1:3]
    out[path.stem] = model.predict(clips[:, :frames, :size, :size], verbose=0)[:, 0].tolist()
print("SCORES " + json.dumps(out))
"""
CORRUPTED = """
import zlib
import tensorflow as tf
from tfdetect.data.input_pipeline.corruptions import parse
steps = "posterize(1,8)|solarize(100,256)|autocontrast|saturation(0,2)|hue(-9,9)|sharpness(0,3)|grid_mask(0.3)|fourier_mix(0.4)"
clips = tf.cast(tf.random.stateless_uniform((3, 2, 30, 37, 3), (1, 2), 20, 230), tf.uint8)
data = tf.data.Dataset.from_tensors((clips, [[0.0], [1.0], [0.0]])).map(lambda *batch: parse(steps)(*batch, tf.constant([3, 4])))
print("CORRUPTED", zlib.crc32(next(iter(data))[0].numpy()))
"""


RUN = """
import json, sys
from tfdetect import cli
for arguments in json.loads(sys.argv[1]):
    code = cli.main(arguments)
    for stream in (sys.stdout, sys.stderr):
        print(f"\\nEND {code}", file=stream, flush=True)
"""


def run(backend, script, *arguments):
    """Run Python code in a process on this backend and return its outputs."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout, process.stderr


def tfdetect(backend, *commands):
    """Run commands in a single process on this backend and return (exit code, stdout, stderr) of each."""
    out, err = run(backend, RUN, json.dumps([[str(part) for part in command] for command in commands]))
    parts = [re.split(r"\nEND (\d+)\n", stream) for stream in (out, err)]
    return [(int(parts[0][2 * i + 1]), parts[0][2 * i], parts[1][2 * i]) for i in range(len(commands))]


SMALL = [name for name in REGISTRY if name not in LARGE]


@pytest.fixture(scope="module", params=[SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def saved(request, tmp_path_factory):
    """A folder with clips of noise and detectors, with random weights, as .keras; and their scores on TensorFlow."""
    folder, expected = tmp_path_factory.mktemp("saved"), {}
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96, 3), np.uint8)
    np.save(folder / "clips.npy", clips)
    for name in request.param:
        cls = REGISTRY[name]
        frames, size = clip_shape(cls)[:2]
        model = make_detector(cls).build(clip_shape(cls))
        model.save(folder / f"{name}.keras")
        expected[name] = model.predict(clips[:, :frames, :size, :size], verbose=0)[:, 0]
    return folder, expected


@pytest.mark.parametrize("backend", INSTALLED)
def test_the_same_files_give_the_same_scores_and_steps_of_keras_cv_the_same_pixels(backend, saved, capsys):
    """In one process, of which each takes seconds to start."""
    folder, expected = saved
    out, _ = run(backend, SCORES + CORRUPTED, folder / "clips.npy", folder)
    actual = json.loads(out.split("SCORES ")[1].splitlines()[0])
    assert set(actual) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-4, rtol=1e-5, err_msg=name)
    exec(CORRUPTED, {})  # on TensorFlow
    pixels = [json.loads(text.split("CORRUPTED ")[1]) for text in (out, capsys.readouterr().out)]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_run_without_tensorflow_can_be_exported_later(backend, videos, tmp_path, capsys):
    name = {"torch": "cnn_lstm", "jax": "cnn"}[backend]
    folder = tmp_path / "runs" / "trained"
    flags = ["--data.path", videos, *SETTINGS, "--data.cache_dir", tmp_path / "cache", "--out", tmp_path / "runs"]
    mirrored, trained, refused, predicted = tfdetect(
        backend, ["train", name, *flags, "--train.strategy", "mirrored"], ["train", name, *flags, "--name", "trained"],
        ["export", folder], ["predict", folder, videos, "--json"])  # fmt: skip
    assert mirrored[0] == 2 and f"--train.strategy mirrored needs TensorFlow, but Keras runs on {backend}" in mirrored[2]
    assert trained[0] == 0 and "KERAS_BACKEND=tensorflow tfdetect export" in trained[1]
    assert json.loads((folder / "metrics.json").read_text())["scored_with"] == f"model.keras on {backend}"
    assert refused[0] == 2 and f"A SavedModel needs TensorFlow, but Keras runs on {backend}" in refused[2]
    assert not (folder / "1").exists()
    assert predicted[0] == 0, predicted[2]
    assert cli.main(["export", str(folder)]) == 0  # on TensorFlow
    capsys.readouterr()
    assert cli.main(["predict", str(folder), str(videos), "--json"]) == 0
    np.testing.assert_allclose(probabilities(capsys.readouterr().out), probabilities(predicted[1]), atol=1e-4)


def probabilities(out):
    return [json.loads(line)["probability"] for line in out.splitlines() if line.startswith("{")]


@pytest.mark.skipif(bool(importlib.util.find_spec("torch")), reason="torch is installed")
def test_a_backend_that_is_not_installed_is_refused(tmp_path):
    (code, _, err), = tfdetect("torch", ["train", "cnn", "--out", tmp_path])
    assert code == 2 and "KERAS_BACKEND=torch needs torch, which is not installed" in err


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "pytorch")
    with pytest.raises(UserError, match="KERAS_BACKEND must be one of tensorflow, torch, jax, got 'pytorch'"):
        console._imported.__wrapped__()
