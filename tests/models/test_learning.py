"""That detectors learn: small ones held-out files of the embedded sample, big ones sixteen clips by heart. And that two
replicas, in a process of their own, take the very steps that one takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from detectors import LARGE, make_detector

from tfdetect import backend, cli, models  # noqa: F401
from tfdetect.data.layouts import detect
from tfdetect.data.media.read import read_media
from tfdetect.data.sample import Sample, write
from tfdetect.detector import REGISTRY

TESTS = Path(__file__).parents[1]
IMAGES = ["--data.sample", "100", "--data.size", "128", "--train.epochs", "12"]
SLOWLY = [*IMAGES[:4], "--train.epochs", "30", "--train.batch", "8"]  # BatchNormalization wants steps
VIDEOS = ["--data.sample", "200", "--data.frames", "8", "--data.size", "64", "--train.epochs", "12"]
SMALL = {
    "cnn": ["cnn", *IMAGES],
    "mesonet": ["mesonet", *IMAGES],
    "mesoinception4": ["mesonet", "--detector.variant", "mesoinception4", *SLOWLY],
    "residual": ["residual", *IMAGES],
    "squeezenet": ["squeezenet", "--detector.weights", "none", *IMAGES],
    "cnn_lstm": ["cnn_lstm", *VIDEOS],
    **{kind: ["cnn_lstm", "--detector.temporal", kind, *VIDEOS] for kind in ("gru", "bidirectional", "convolution", "attention")},
    "differences": ["cnn_lstm", "--detector.differences", *VIDEOS],
}
REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
from detectors import BIG, clip_shape, make_detector
from tfdetect import models
from tfdetect.detector import REGISTRY
from tfdetect.models.layers import autoencoder, common
autoencoder.GaussianSampling.call = lambda self, inputs, training=False: inputs[0]  # each replica draws for itself
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
for name in sys.argv[1:]:
    detector = make_detector(REGISTRY[name], dropout=0.0, mirror=False, augment=False, flips="none", model="vae")
    shape = clip_shape(REGISTRY[name])
    clips = rng.integers(0, 256, (4, *shape), np.uint8)
    labels = np.array([[0], [1], [1], [0]], np.float32)
    alone = detector.build(shape)
    with strategy.scope():
        both = detector.build(shape)
        # As they are fine-tuned: BatchNormalization keeps its statistics.
        for model in (alone, both) if name in BIG and hasattr(detector, "free") else ():
            detector.free(model, "all")
        both.set_weights(alone.get_weights())
        common.synchronise_batch_norms(both, True)
        rate = 1e-3 if detector.losses() else 1e-6  # sums over pixels are large
        both.compile(keras.optimizers.SGD(rate), detector.losses())
    alone.compile(keras.optimizers.SGD(rate), detector.losses())
    start = alone.get_weights()
    data = tf.data.Dataset.from_tensors((clips, labels))
    for model in (alone, both):
        model.fit(data, epochs=2, verbose=0)
    for ours, theirs in zip(both.get_weights(), alone.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=1e-3, err_msg=name)
    trained = any((ours != theirs).any() for ours, theirs in zip(start, alone.get_weights()))
    print("SAME" if trained else "IDLE", name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_detectors_tell_held_out_files(name, tmp_path):
    places = ["--out", str(tmp_path), "--data.cache_dir", str(tmp_path / "c"), "--name", "r"]
    assert cli.main(["train", *SMALL[name], *places]) == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]["auc"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LARGE if REGISTRY[name].trains_on == "both"])
def test_big_detectors_learn_sixteen_clips_by_heart(name, tmp_path):
    keras.utils.set_random_seed(0)
    table = detect.read(write(Sample("image", count=8, size=96), tmp_path / "set").parent)
    clips = np.stack([read_media(path, 1, size=96).frames for path in table["path"]])
    detector = make_detector(REGISTRY[name], dropout=0.0, mirror=False)
    model = detector.build((1, 96, 96, 3))
    model.compile(keras.optimizers.Adam(1e-3), detector.losses(), metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)])
    history = model.fit(clips, table["label"].to_numpy()[:, None], batch_size=16, epochs=30, verbose=0).history
    assert max(history["binary_accuracy"]) == 1.0


@pytest.mark.slow
def test_upsampling_is_told_by_who_has_never_seen_a_fake(tmp_path):
    flags = ["--data.cache_dir", str(tmp_path / "c"), "--out", str(tmp_path), "--name", "r"]
    assert cli.main(["train", "feature_oneclass", *flags]) == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]["by_source"]["upsample"]["auc"] > 0.8


@pytest.mark.skipif(not backend.is_tensorflow(), reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize(
    "names", [sorted({*REGISTRY} - {*LARGE}), pytest.param([*LARGE], marks=pytest.mark.slow)], ids=["small", "big"]
)
def test_two_replicas_take_the_steps_of_one(names):
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", REPLICAS, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("SAME")] == names
