"""The torch and jax backends: runs from training to prediction, and equal scores of the same .keras files.

Keras chooses its backend on import, so each backend runs in a separate process.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectors import clip_shape, make_detector

from tfdetect.detector import REGISTRY

ROOT = Path(__file__).parents[1]
INSTALLED = [pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
          for name in ("torch", "jax")]  # fmt: skip
SETTINGS = ["--data.frames", "2", "--data.size", "32", "--train.epochs", "1", "--train.batch", "8"]
SCORES = """
import json, sys
import numpy as np
from tfdetect import models
from tfdetect.detector import REGISTRY
clips = np.load(sys.argv[1])
out = {}
for name in sorted(REGISTRY):
    model = models.load(f"{sys.argv[2]}/{name}.keras")
    frames, size = model.input_shape[1:3]
    out[name] = model.predict(clips[:, :frames, :size, :size], verbose=0)[:, 0].tolist()
print("RESULT " + json.dumps(out))
"""
CORRUPTED = """
import zlib
import tensorflow as tf
from tfdetect.data.input_pipeline.corruptions import parse
steps = "posterize(1,8)|solarize(100,256)|autocontrast|saturation(0,2)|hue(-9,9)|sharpness(0,3)|grid_mask(0.3)|fourier_mix(0.4)"
clips = tf.cast(tf.random.stateless_uniform((3, 2, 30, 37, 3), (1, 2), 20, 230), tf.uint8)
data = tf.data.Dataset.from_tensors((clips, [[0.0], [1.0], [0.0]])).map(lambda *batch: parse(steps)(*batch, tf.constant([3, 4])))
print("RESULT", zlib.crc32(next(iter(data))[0].numpy()))
"""


def tfdetect(backend, *arguments):
    command = [sys.executable, "-m", "tfdetect.cli", *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with clips of noise and every detector, with random weights, as .keras; and their scores on TensorFlow."""
    folder, expected = tmp_path_factory.mktemp("saved"), {}
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96, 3), np.uint8)
    np.save(folder / "clips.npy", clips)
    for name, cls in REGISTRY.items():
        frames, size = clip_shape(cls)[:2]
        model = make_detector(cls).build(clip_shape(cls))
        model.save(folder / f"{name}.keras")
        expected[name] = model.predict(clips[:, :frames, :size, :size], verbose=0)[:, 0]
    return folder, expected


def computed(backend, code, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.split("RESULT ")[1])


@pytest.mark.parametrize("backend", INSTALLED)
def test_the_same_file_gives_the_same_scores(backend, saved):
    folder, expected = saved
    actual = computed(backend, SCORES, folder / "clips.npy", folder)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", INSTALLED)
def test_steps_of_keras_cv_have_the_same_pixels(backend):
    assert computed(backend, CORRUPTED) == computed("tensorflow", CORRUPTED)


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_run_without_tensorflow_can_be_exported_later(backend, videos, tmp_path):
    name = {"torch": "cnn_lstm", "jax": "cnn"}[backend]
    folder = tmp_path / "runs" / name
    flags = ["--data.cache_dir", tmp_path / "cache", "--out", tmp_path / "runs"]
    process = tfdetect(backend, "train", name, "--data.path", videos, *SETTINGS, *flags)
    assert process.returncode == 0, process.stderr
    assert "KERAS_BACKEND=tensorflow tfdetect export" in process.stdout and not (folder / "1").exists()
    assert json.loads((folder / "metrics.json").read_text())["scored_with"] == f"model.keras on {backend}"
    refused = tfdetect(backend, "export", folder)
    assert refused.returncode == 2 and f"A SavedModel needs TensorFlow, but Keras runs on {backend}" in refused.stderr
    before = [row["probability"] for row in verdicts(tfdetect(backend, "predict", folder, videos, "--json"))]
    assert tfdetect("tensorflow", "export", folder).returncode == 0
    after = [row["probability"] for row in verdicts(tfdetect("tensorflow", "predict", folder, videos, "--json"))]
    np.testing.assert_allclose(after, before, atol=1e-4)


def verdicts(process):
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("backend", INSTALLED)
def test_distribution_is_refused(backend, videos, tmp_path):
    flags = ["--train.strategy", "mirrored", "--data.cache_dir", tmp_path / "cache", "--out", tmp_path / "runs"]
    process = tfdetect(backend, "train", "cnn", "--data.path", videos, *SETTINGS, *flags)
    assert process.returncode == 2
    assert f"--train.strategy mirrored needs TensorFlow, but Keras runs on {backend}" in process.stderr


@pytest.mark.skipif(bool(importlib.util.find_spec("torch")), reason="torch is installed")
def test_a_backend_that_is_not_installed_is_refused(tmp_path):
    process = tfdetect("torch", "train", "cnn", "--out", tmp_path)
    assert process.returncode == 2 and "KERAS_BACKEND=torch needs torch, which is not installed" in process.stderr
