"""The clients in examples/ do what they say: `predict` against a server of a tiny run, `score` against made-up answers of /v1."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import page_server
import pytest
from served import picture
from starlette.testclient import TestClient

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNNERS = {".py": [sys.executable], ".sh": ["sh"], ".mjs": ["node"]}
SUFFIXES = sorted(RUNNERS)


def run(name, *words, code=0):
    """Run an example and return what it prints."""
    runner = RUNNERS[Path(name).suffix]
    if not shutil.which(runner[0]) or (name.endswith(".sh") and not shutil.which("curl")):
        pytest.skip(f"{name} needs node, or curl")
    done = subprocess.run([*runner, EXAMPLES / name, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) == code, done.stderr
    return done.stdout if not code else done.stdout + done.stderr


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An image file whose name has a blank and a comma."""
    path = tmp_path_factory.mktemp("files") / "a fake, one.png"
    path.write_bytes(picture())
    return path


@pytest.fixture(scope="module")
def real(app):
    """The address of a server of a tiny run."""
    with page_server.serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def made_up():
    """The address of a server whose answers the name of a file decides."""
    with page_server.serving(page_server.create_app()) as url:
        yield url


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predict_prints_the_probability_of_an_image(real, app, file, suffix):
    printed = run(f"predict{suffix}", real, "tiny", file).strip()
    found = json.loads(printed)["predictions"][0]["probability"] if suffix == ".sh" else re.findall(r"[\d.]+$", printed)[0]
    body = {"signature_name": "serve_bytes", "inputs": [{"b64": base64.b64encode(file.read_bytes()).decode()}]}
    expected = TestClient(app).post("/v1/models/tiny:predict", json=body).json()["outputs"]
    assert float(found) == pytest.approx(expected["probability"][0], abs=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["fake", "poll"])
def test_score_prints_a_verdict_and_waits_for_a_job(made_up, file, tmp_path, suffix, kind):
    path = tmp_path / f"{kind} fake, one.png"
    path.write_bytes(file.read_bytes())
    printed = run(f"score{suffix}", made_up, path)
    assert "0.931" in printed and "fake" in printed and "faces_v2" in printed


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_server_refuses_is_an_error_with_its_sentence(made_up, real, file, tmp_path, suffix):
    path = tmp_path / "huge.png"
    path.write_bytes(file.read_bytes())
    assert "The image has 400 megapixels" in run(f"score{suffix}", made_up, path, code=suffix != ".py")
    run(f"predict{suffix}", real, "no_such_model", file, code=1)
