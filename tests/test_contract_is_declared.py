"""Outside of `models/`, nothing asks a detector for an attribute by name, so mypy checks every access against `Detector`."""

import ast
from pathlib import Path

import tfdetect

PACKAGE = Path(tfdetect.__file__).parent


def lookups(tree):
    """Calls such as getattr(run.detector, "preset"), and suppressed errors on such a line."""
    for node in ast.walk(tree):
        lookup = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr", "vars")
        if lookup and "detector" in ast.unparse(node.args[0]).lower():
            yield ast.unparse(node)


def test_no_module_looks_up_a_detectors_attribute_by_name():
    files = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "models" not in path.parents]
    assert len(files) > 80
    assert not [(path.name, call) for path in files for call in lookups(ast.parse(path.read_text()))]
    lines = [(path.name, line) for path in files for line in path.read_text().splitlines()]
    assert not [(name, line) for name, line in lines if "detector." in line and "attr-defined" in line]


def test_such_a_lookup_would_be_found():
    assert [*lookups(ast.parse('x = getattr(run.detector, "preset", None)'))] == ["getattr(run.detector, 'preset', None)"]
