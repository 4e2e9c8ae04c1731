"""The requirements files declare what the package imports, and nothing else."""

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "pil": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
                 "c2pa": "c2pa-python", "tensorflow-serving": "tensorflow-serving-api", "google": "protobuf"}  # fmt: skip
EXTRAS = ("beam", "dask", "c2pa", "litert", "mlflow", "onnx", "openvino", "postgres", "search", "wandb")
FILES = {name: ROOT / f"requirements{name and '-'}{name}.txt" for name in ("", *EXTRAS, "backends")}


def imported(path):
    """Return the distributions from which a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    roots = {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "tfdetect"}
    names = {root.lower().replace("_", "-") for root in roots}
    return {DISTRIBUTIONS.get(name, name) for name in names}


def declared(path):
    """Return the distributions in a requirements file, each with its comment."""
    lines = re.findall(r"^([\w.-]+)([^#\n]*)(#.*)?$", path.read_text(), re.M)
    return {name.lower().replace("_", "-"): comment for name, _, comment in lines}


IMPORTED = {name: path for path in sorted((ROOT / "tfdetect").rglob("*.py")) for name in imported(path)}


def test_every_import_is_declared():
    known = set().union(*map(declared, FILES.values()))
    assert {name: str(path) for name, path in IMPORTED.items() if name not in known} == {}
    assert len(IMPORTED) > 25, "the search finds imports inside functions"


@pytest.mark.parametrize("name", ["", *EXTRAS])
def test_every_requirement_is_imported_or_says_who_imports_it(name):
    assert [line for line, comment in declared(FILES[name]).items() if line not in IMPORTED and "import" not in comment] == []


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_has_an_upper_bound(name):
    lines = [line.partition(";")[0] for line in re.findall(r"^[\w.-]+[^#\n]*", FILES[name].read_text(), re.M)]
    assert lines and [line for line in lines if "<" not in line and "==" not in line] == []


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.stem)
def test_constraints_pin_an_allowed_version_of_every_requirement(path):
    pins = dict(line.lower().replace("_", "-").split("==") for line in path.read_text().splitlines() if "==" in line)
    texts = (FILES[name].read_text() for name in ("", "beam", "dask", "c2pa", "search"))
    lines = re.findall(r"^[\w.-]+[^#\n]*", "".join(texts), re.M)
    wrong = [line for line in map(Requirement, lines) if pins.get(line.name.lower().replace("_", "-"), "") not in line.specifier]
    assert wrong == [], "renew them: .ci/nightly newest"
