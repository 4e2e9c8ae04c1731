"""Runs for tests of the server: tiny and untrained, with a SavedModel; and pictures to send."""

import io
import shutil
import time

import numpy as np
from PIL import Image

from tfdetect import config, files, versions
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.settings import Data, Run, Train

SIZE = 32
SECONDS = 60  # for anything to happen
DETECTOR = Cnn(width=4)
CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}


def write_run(folder, seed=0, threshold=0.5):
    """Write the run of a frame detector with random weights."""
    import keras

    from tfdetect import models
    from tfdetect.serving.export import export

    keras.utils.set_random_seed(seed)
    artifact, calibration = write_settings(folder), CALIBRATION | {"threshold": threshold}
    files.write_json(artifact.calibration, calibration)
    DETECTOR.build((1, SIZE, SIZE, 3)).save(artifact.model)
    export(models.load(artifact.model), calibration, DETECTOR, artifact.saved_model, ClipSpec(4, SIZE))
    return artifact.folder


def write_settings(folder):
    """Write all of the run of a frame detector but its models, and return its artifact."""
    artifact = Artifact(folder)
    folder.mkdir(parents=True)
    config.write_yaml(Run(DETECTOR, Data(frames=4, size=SIZE), Train()), artifact.config)
    files.write_json(artifact.calibration, CALIBRATION)
    artifact.report.write_text("")  # which says that it is finished
    return artifact


def picture(seed=0, size=(40, 48), kind="png"):
    """Return an encoded image of noise."""
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(target, kind)
    return target.getvalue()


def write_half_plus_run(folder):
    """Write a run whose SavedModel returns x / 2 + 1, which takes no Keras; return its folder."""
    write_half_plus(write_settings(folder).saved_model, 1)
    return folder


def add_version(run, offset, damaged=False):
    """Publish a version of a run, as `calibrate` does, and return its number; its serving_default returns x / 2 + offset."""
    staged = run / versions.FOLDER / ".new"
    shutil.copytree(run, staged, ignore=shutil.ignore_patterns(versions.FOLDER, "[0-9]*"))
    number = versions.next_number(run)
    adapted = f"adapted:\n  version: {number}\n  by: calibrate\n  from: {number - 1}\n"
    text = (run / "config.yaml").read_text()
    (staged / "config.yaml").write_text(text.partition("adapted:")[0] + adapted)
    write_half_plus(staged / str(number), offset)
    if damaged:
        (staged / str(number) / "saved_model.pb").write_bytes(b"\x08\x01\x12")
    versions.publish(run, staged)
    return number


def write_half_plus(folder, offset):
    """Write a SavedModel whose signature returns x / 2 + offset, and another one that takes about a second for it."""
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def half_plus(self, x):
            return {"y": x / 2 + offset}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def slowly(self, x):
            matrix = tf.while_loop(lambda i, m: i < tf.cast(x[0], tf.int32), lambda i, m: (i + 1, m @ m / 200.0),
                                   (0, tf.ones((200, 200))))[1]  # fmt: skip
            return {"y": x / 2 + offset + 0 * matrix[0, 0]}

    module = Module()
    tf.saved_model.save(module, str(folder), {"serving_default": module.half_plus, "slowly": module.slowly})


def wait_for(condition):
    """Wait until `condition()` is true."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
