"""The clients in examples/ do what they say, against a server of a tiny run, and `score` against made-up answers, too."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import page_server
import pytest
from served import picture

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNNERS = {".py": [sys.executable], ".sh": ["sh"], ".mjs": ["node"]}
SUFFIXES = sorted(RUNNERS)


def run(name, *words, code=0, token=""):
    """Run an example and return what it prints, of one that fails also on standard error, which is one line."""
    runner = RUNNERS[Path(name).suffix]
    if not shutil.which(runner[0]) or (name.endswith(".sh") and not shutil.which("curl")):
        pytest.skip(f"{name} needs node, or curl")
    done = subprocess.run([*runner, EXAMPLES / name, *map(str, words)], capture_output=True, text=True, timeout=60,
                          env=os.environ | {"TFDETECT_TOKEN": token})  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (code, code // 2), done.stderr
    return done.stdout + done.stderr


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
    with page_server.serving(page_server.create_app(limits={"bytes": 20_000_000, "files": 1})) as url:
        yield url


@pytest.fixture(scope="module")
def expected(real, file):
    """The probability that the server gives the file."""
    body = {"signature_name": "serve_bytes", "inputs": [{"b64": base64.b64encode(file.read_bytes()).decode()}]}
    with urlopen(f"{real}/v1/models/tiny:predict", json.dumps(body).encode()) as answer:
        return json.load(answer)["outputs"]["probability"][0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_both_print_the_probability_of_an_image(real, file, expected, suffix):
    predicted, scored = run(f"predict{suffix}", real, "tiny", file), run(f"score{suffix}", real, file)
    if suffix == ".sh":  # which print JSON
        found = json.loads(predicted)["predictions"][0]["probability"]
        assert json.loads(scored)["files"][0]["findings"][0]["verdict"]["probability"] == pytest.approx(expected, abs=1e-6)
    else:
        found = re.findall(r"[\d.]+$", predicted.strip())[0]
        assert f"probability of being fake {expected:.3f} (tiny)" in scored
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["fake", "poll"])
def test_score_prints_a_verdict_and_waits_for_a_job(made_up, file, tmp_path, suffix, kind):
    path = tmp_path / f"{kind} fake, one.png"
    path.write_bytes(file.read_bytes())
    printed = run(f"score{suffix}", made_up, path)
    assert "0.931" in printed and "fake" in printed and "faces_v2" in printed


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_server_refuses_is_an_error_with_its_sentence(made_up, real, file, tmp_path, suffix):
    for name in ("huge", "broken"):
        (tmp_path / f"{name}.png").write_bytes(file.read_bytes())
    found = run(f"score{suffix}", made_up, tmp_path / "huge.png", file, code=2)
    assert "The image has 400 megapixels, at most 100 are read." in found and "faces_v2" in found, "the next file is judged"
    if suffix != ".sh":  # which prints the answer as it is
        assert "truncated JPEG: its end marker is missing\n" in run(f"score{suffix}", made_up, tmp_path / "broken.png", code=2)
    assert "Latest(no_such_model)" in run(f"predict{suffix}", real, "no_such_model", file, code=2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_server_and_a_wrong_token_are_one_line(file, suffix):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for name, words in (("score", (file,)), ("predict", ("tiny", file))):
        assert re.search("onnect|reached", run(f"{name}{suffix}", free, *words, code=2))
    with page_server.serving(page_server.create_app(token="right-token-of-desk")) as url:
        assert "token" in run(f"score{suffix}", url, file, code=2, token="wrong")
        assert "faces_v2" in run(f"score{suffix}", url, file, token="right-token-of-desk")
