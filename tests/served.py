"""Runs for tests of the server: tiny and untrained, with a SavedModel; and pictures to send."""

import io

import numpy as np
from PIL import Image

from tfdetect import config, files
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.settings import Data, Run, Train

SIZE = 32
CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}


def write_run(folder, seed=0, threshold=0.5):
    """Write the run of a frame detector with random weights."""
    import keras

    from tfdetect import models
    from tfdetect.serving.export import export

    keras.utils.set_random_seed(seed)
    detector, artifact = Cnn(width=4), Artifact(folder)
    folder.mkdir(parents=True)
    config.write_yaml(Run(detector, Data(frames=4, size=SIZE), Train()), artifact.config)
    detector.build((1, SIZE, SIZE, 3)).save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION | {"threshold": threshold})
    export(models.load(artifact.model), CALIBRATION | {"threshold": threshold}, detector, artifact.saved_model, ClipSpec(4, SIZE))
    artifact.report.write_text("")  # which says that it is finished
    return artifact.folder


def picture(seed=0, size=(40, 48), kind="png"):
    """Return an encoded image of noise."""
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(target, kind)
    return target.getvalue()
