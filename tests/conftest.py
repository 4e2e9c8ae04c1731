"""What tests share: tiny data sets, drawn by the suite's own sample."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.data.sample import Sample, write


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """20 + 20 videos of 8 frames, 32 x 32."""
    return write(Sample("video", count=20, size=32, frames=8), tmp_path_factory.mktemp("videos") / "set").parent


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """20 + 20 JPEG images, 32 x 32."""
    return write(Sample("image", count=20, size=32), tmp_path_factory.mktemp("images") / "set").parent


@pytest.fixture
def rng():
    return np.random.default_rng(0)
