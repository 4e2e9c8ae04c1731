"""Small trained runs, for tests of what is done with a run."""

import light as stubs
import pytest

from tfdetect import cli
from tfdetect.artifact import Artifact


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    """Flags of `train` for small data, with a cache that all share."""
    small = ["--data.frames", "4", "--data.size", "32", "--train.epochs", "2", "--train.batch", "8"]
    return [*small, "--data.cache_dir", str(tmp_path_factory.mktemp("clips"))]


@pytest.fixture(scope="session")
def train(videos, settings, tmp_path_factory):
    """Return a function that trains a detector on videos, with the stubs of light.py."""
    out = tmp_path_factory.mktemp("trained")

    def run(detector, *flags):
        with stubs.stubs():
            assert cli.main(["train", detector, "--data.path", str(videos), *settings, "--out", str(out), *flags]) == 0
        return Artifact(out / detector)

    return run


@pytest.fixture(scope="session")
def cnn(train):
    """A frame detector, trained on videos; tests may add evaluations to it."""
    return train("cnn", "--detector.width", "4")
