"""torch and jax: a run from flags to verdict on each that is installed, and one .keras file with the same scores on all.

Keras takes its backend when it is imported, so each runs in a process of its own.
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
OTHERS = [pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
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


def tfdetect(backend, *arguments):
    command = [sys.executable, "-m", "tfdetect.cli", *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder with every detector, of random weights, as .keras, and clips of noise; their scores here, on TensorFlow)."""
    place, found = tmp_path_factory.mktemp("saved"), {}
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96, 3), np.uint8)
    np.save(place / "clips.npy", clips)
    for name, cls in REGISTRY.items():
        frames, size = clip_shape(cls)[:2]
        model = make_detector(cls).build(clip_shape(cls))
        model.save(place / f"{name}.keras")
        found[name] = model.predict(clips[:, :frames, :size, :size], verbose=0)[:, 0]
    return place, found


def scores(backend, place):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCORES, str(place / "clips.npy"), str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("RESULT ")[1])


@pytest.mark.parametrize("backend", OTHERS)
def test_one_file_has_the_same_scores(backend, saved):
    place, ours = saved
    theirs = scores(backend, place)
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", OTHERS)
def test_a_run_and_what_belongs_to_tensorflow(backend, videos, tmp_path):
    name = {"torch": "cnn_lstm", "jax": "cnn"}[backend]
    folder = tmp_path / "runs" / name
    flags = ["--data.cache_dir", tmp_path / "cache", "--out", tmp_path / "runs"]
    done = tfdetect(backend, "train", name, "--data.path", videos, *SETTINGS, *flags)
    assert done.returncode == 0, done.stderr
    assert "KERAS_BACKEND=tensorflow python scripts/export.py" in done.stdout and not (folder / "1").exists()
    assert json.loads((folder / "metrics.json").read_text())["judged"] == f"model.keras on {backend}"
    refused = tfdetect(backend, "export", folder)
    assert refused.returncode == 2 and f"A SavedModel needs TensorFlow, but Keras runs on {backend}" in refused.stderr
    before = [row["probability"] for row in verdicts(tfdetect(backend, "predict", folder, videos, "--json"))]
    assert tfdetect("tensorflow", "export", folder).returncode == 0
    after = [row["probability"] for row in verdicts(tfdetect("tensorflow", "predict", folder, videos, "--json"))]
    np.testing.assert_allclose(after, before, atol=1e-4)


def verdicts(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("backend", OTHERS)
def test_distribution_is_refused(backend, videos, tmp_path):
    flags = ["--train.strategy", "mirrored", "--data.cache_dir", tmp_path / "cache", "--out", tmp_path / "runs"]
    done = tfdetect(backend, "train", "cnn", "--data.path", videos, *SETTINGS, *flags)
    assert done.returncode == 2
    assert f"--train.strategy mirrored needs TensorFlow, but Keras runs on {backend}" in done.stderr


@pytest.mark.skipif(bool(importlib.util.find_spec("torch")), reason="torch is installed")
def test_a_backend_that_is_not_there_is_said(tmp_path):
    done = tfdetect("torch", "train", "cnn", "--out", tmp_path)
    assert done.returncode == 2 and "KERAS_BACKEND=torch needs torch, which is not installed" in done.stderr
