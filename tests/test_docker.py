"""The Dockerfile does what README says, as a user without rights; .ci/docker runs its steps."""

import json
import re
import sys
from importlib import util
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = util.spec_from_file_location("docker_files", ROOT / ".ci" / "docker_files.py")
docker_files = sys.modules["docker_files"] = util.module_from_spec(spec)
spec.loader.exec_module(docker_files)
STEPS = docker_files.instructions((ROOT / "Dockerfile").read_text())


def arguments(keyword):
    return [found for name, found in STEPS if name == keyword]


def test_the_installation_is_that_of_readme():
    readme = (ROOT / "README.md").read_text()
    install = re.search(r"^(python3 -m venv \.venv && \.venv/bin/pip install -e \.) && ", readme, re.M)[1]
    run, _, constraints = arguments("RUN")[-1].rpartition(" -c ")
    assert run == install and re.search(rf"`-c\s{constraints}`", readme) and (ROOT / constraints).exists()
    assert re.search(r"py(\d)(\d+)", constraints).expand(r"python:\1.\2-") in arguments("FROM")[0]


def test_the_server_runs_without_the_rights_of_root():
    order = [keyword for keyword, _ in STEPS]
    assert arguments("USER") == ["tfdetect"] and order.index("USER") < order.index("COPY") < order.index("CMD")
    python, script, *flags = json.loads(arguments("CMD")[-1])
    assert python == ".venv/bin/python" and (ROOT / script).exists() and flags == ["--demo", "--host", "0.0.0.0"]


def test_the_image_holds_what_the_installation_needs():
    needed = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in", "scripts/serve.py", "recipes/sbi.yaml",
              "docs/data.md", "saved_models/README.md", "constraints/py311.txt", "tfdetect/server/page/index.html",
              *(path.name for path in ROOT.glob("requirements*.txt"))}  # fmt: skip
    others = {".git/HEAD", ".venv/bin/python", ".venv-backends/bin/python", "tests/conftest.py", "saved_models/cnn/model.keras",
              "tfdetect/data/__pycache__/sample.pyc", "tfdetect.egg-info/PKG-INFO", ".mypy_cache/x", "cache/x.npy"}  # fmt: skip
    assert all((ROOT / name).exists() for name in needed)
    assert set(docker_files.copied({*needed, *others}, (ROOT / ".dockerignore").read_text())) == needed
