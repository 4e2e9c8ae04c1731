"""Fixtures shared by all tests: small data sets of the embedded sample, and a random generator."""

import functools
import gc
import os

# A test process has one core. On small arrays, the threads of OpenBLAS wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import light as stubs
import numpy as np
import pytest
import tyro._docstrings

from tfdetect import cli, config, models  # noqa: F401  (registers the detectors)
from tfdetect.data.sample import Sample, write

gc.set_threshold(*cli.RARE_COLLECTIONS)  # from the first test on
# Each call of the parser reads the help texts from the source again, which takes longer than the rest of it.
tyro._docstrings.get_field_docstring = functools.cache(tyro._docstrings.get_field_docstring)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Folder of 20 real and 20 fake videos of 8 frames, 32 x 32 pixels."""
    with stubs.in_process():
        return write(Sample("video", count=20, size=32, frames=8), tmp_path_factory.mktemp("videos") / "set").parent


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Folder of 20 real and 20 fake JPEG images, 32 x 32 pixels."""
    with stubs.in_process():
        return write(Sample("image", count=20, size=32), tmp_path_factory.mktemp("images") / "set").parent


@pytest.fixture(scope="module")
def light():
    """Decode in the test's process, draw no figures, export little: see light.py."""
    with stubs.stubs():
        yield


@pytest.fixture
def light_test():
    """The same for a single test."""
    with stubs.stubs():
        yield


@pytest.fixture
def eager():
    """Let Keras compute without graphs in this test, which is faster for a few small batches."""
    with stubs.eager():
        yield


@pytest.fixture
def rng():
    """NumPy random generator with seed 0."""
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def browser():
    """Chromium; a module that asks for it is marked `page_browser.needs_chromium`."""
    from page_browser import CHROMIUM, sync_api

    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()
