"""A tiny run, and an application that serves it."""

import shutil

import pytest
from served import write_run

from tfdetect.server.app import create_app
from tfdetect.server.models import Models
from tfdetect.server.settings import ServeSettings


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a run named tiny; copy it before you change it."""
    return write_run(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A copy of that run which a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "tiny")


@pytest.fixture(scope="session")
def app(tiny_run):
    """An application that serves this run; `starlette.testclient.TestClient(app, base_url="http://127.0.0.1")` asks it."""
    models = Models([tiny_run]).load()
    yield create_app(models, ServeSettings())
    models.close()
