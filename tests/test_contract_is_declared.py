"""Outside of `models/`, nothing asks a detector for an attribute by name, so mypy checks every access against `Detector`."""

import ast
import re
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
    texts = {path: path.read_text() for path in files}
    suspects = {path: text for path, text in texts.items() if re.search("getattr|hasattr|vars", text)}
    assert not [(path, call) for path, text in suspects.items() for call in lookups(ast.parse(text))]
    lines = [(path, line) for path, text in texts.items() for line in text.splitlines()]
    assert not [(path, line) for path, line in lines if "detector." in line and "attr-defined" in line]


def test_such_a_lookup_would_be_found():
    assert [*lookups(ast.parse('x = getattr(run.detector, "preset", None)'))] == ["getattr(run.detector, 'preset', None)"]
