"""Detectors learn: small ones generalise to held-out files of the embedded sample, large ones memorise sixteen clips. Training on
two replicas gives the same weights as on one."""

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
MORE_STEPS = [*IMAGES[:4], "--train.epochs", "30", "--train.batch", "8"]  # the statistics of BatchNormalization need steps
VIDEOS = ["--data.sample", "200", "--data.frames", "8", "--data.size", "64", "--train.epochs", "12"]
SMALL = {
    "cnn": ["cnn", *IMAGES],
    "mesonet": ["mesonet", *IMAGES],
    "mesoinception4": ["mesonet", "--detector.variant", "mesoinception4", *MORE_STEPS],
    "residual": ["residual", *IMAGES],
    "squeezenet": ["squeezenet", "--detector.weights", "none", *IMAGES],
    "cnn_lstm": ["cnn_lstm", *VIDEOS],
    **{kind: ["cnn_lstm", "--detector.temporal", kind, *VIDEOS] for kind in ("gru", "bidirectional", "convolution", "attention")},
    "differences": ["cnn_lstm", "--detector.differences", *VIDEOS],
}
STATEFUL = ("cnn_lstm", "feature_oneclass", "residual")  # recurrent, losses of layers, and statistics of batches
REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
from detectors import LARGE, clip_shape, make_detector
from tfdetect import models
from tfdetect.detector import REGISTRY
from tfdetect.models.layers import autoencoder, common
autoencoder.GaussianSampling.call = lambda self, inputs, training=False: inputs[0]  # replicas draw different samples
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
for name in sys.argv[1:]:
    detector = make_detector(REGISTRY[name], dropout=0.0, mirror=False, augment=False, flips="none", model="vae")
    shape = clip_shape(REGISTRY[name])
    clips = rng.integers(0, 256, (4, *shape), np.uint8)
    labels = np.array([[0], [1], [1], [0]], np.float32)
    single = detector.build(shape)
    with strategy.scope():
        mirrored = detector.build(shape)
        # As in fine-tuning, BatchNormalization keeps its statistics.
        for model in (single, mirrored) if name in LARGE and hasattr(detector, "unfreeze_from") else ():
            detector.set_trainable(model, "all")
        mirrored.set_weights(single.get_weights())
        common.synchronise_batch_norms(mirrored, True)
        rate = 1e-3 if detector.losses() else 1e-6  # a sum over all pixels has large gradients
        mirrored.compile(keras.optimizers.SGD(rate), detector.losses())
    single.compile(keras.optimizers.SGD(rate), detector.losses())
    start = single.get_weights()
    data = tf.data.Dataset.from_tensors((clips, labels))
    for model in (single, mirrored):
        model.fit(data, epochs=2, verbose=0)
    for actual, expected in zip(mirrored.get_weights(), single.get_weights()):
        np.testing.assert_allclose(actual, expected, atol=2e-4, rtol=1e-3, err_msg=name)
    trained = any((before != after).any() for before, after in zip(start, single.get_weights()))
    print("SAME" if trained else "UNTRAINED", name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_detectors_classify_held_out_files(name, tmp_path):
    folders = ["--out", str(tmp_path), "--data.cache_dir", str(tmp_path / "c"), "--name", "r"]
    assert cli.main(["train", *SMALL[name], *folders]) == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]["auc"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LARGE if REGISTRY[name].trains_on == "both"])
def test_large_detectors_memorise_sixteen_clips(name, tmp_path):
    keras.utils.set_random_seed(0)
    table = detect.read(write(Sample("image", count=8, size=96), tmp_path / "set").parent)
    clips = np.stack([read_media(path, 1, size=96).frames for path in table["path"]])
    detector = make_detector(REGISTRY[name], dropout=0.0, mirror=False)
    model = detector.build((1, 96, 96, 3))
    model.compile(keras.optimizers.Adam(1e-3), detector.losses(), metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)])
    history = model.fit(clips, table["label"].to_numpy()[:, None], batch_size=16, epochs=30, verbose=0).history
    assert max(history["binary_accuracy"]) == 1.0


@pytest.mark.slow
def test_a_one_class_detector_finds_upsampling_without_training_on_fakes(tmp_path):
    flags = ["--data.cache_dir", str(tmp_path / "c"), "--out", str(tmp_path), "--name", "r"]
    assert cli.main(["train", "feature_oneclass", *flags]) == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]["by_source"]["upsample"]["auc"] > 0.8


@pytest.mark.skipif(not backend.is_tensorflow(), reason="tf.distribute needs TensorFlow")
@pytest.mark.parametrize(
    "names", [[*STATEFUL], pytest.param(sorted({*REGISTRY} - {*STATEFUL}), marks=pytest.mark.slow)], ids=["stateful", "others"]
)
def test_two_replicas_train_like_one(names):
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", REPLICAS, *names]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550)
    assert process.returncode == 0, process.stderr[-3000:]
    assert [line.split()[1] for line in process.stdout.splitlines() if line.startswith("SAME")] == names
