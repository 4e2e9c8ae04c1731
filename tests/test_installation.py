"""Messages name commands, recipes and pages that exist where tfdetect runs."""

import ast
import re
import sys
from pathlib import Path

import pytest

from tfdetect import cli, installation

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "program, expected",
    [
        (ROOT / "scripts" / "audit.py", f"python {ROOT / 'scripts' / 'predict.py'} 'a b'"),
        ("scripts/audit.py", "python scripts/predict.py 'a b'"),
        ("/usr/bin/tfdetect", "tfdetect predict 'a b'"),
        (ROOT / "tfdetect" / "cli.py", "tfdetect predict 'a b'"),
        ("/elsewhere/scripts/audit.py", "tfdetect predict 'a b'"),
        ("", "tfdetect predict 'a b'"),
    ],
)
def test_a_command_is_what_the_user_ran(monkeypatch, program, expected):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(program), "x"])
    assert installation.command("predict", "a b") == expected


@pytest.mark.parametrize(
    "program, expected",
    [
        ("scripts/audit.py", "python scripts/audit.py 'a b'"),
        ("/usr/bin/tfdetect", "tfdetect 'a b'"),
        (ROOT / "tfdetect" / "cli.py", "tfdetect 'a b'"),
        ("/usr/lib/ipykernel_launcher.py", ""),
    ],
)
def test_the_command_line_is_that_of_the_process(monkeypatch, program, expected):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(program), "a b"])
    assert installation.command_line() == expected


def test_an_interpreter_inside_another_program_has_no_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    assert installation.command("predict", "a b") == "tfdetect predict 'a b'" and installation.command_line() == ""


def test_folders_are_found_in_a_checkout_and_in_a_package(monkeypatch, tmp_path):
    assert installation.folder("recipes") == ROOT.resolve() / "recipes"
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "tfdetect")
    for place in (tmp_path / "recipes", tmp_path / "tfdetect" / "recipes"):
        place.mkdir(parents=True)
        assert installation.folder("recipes") == place, "the package's own comes first"


def test_a_page_is_named_from_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert installation.page("data.md") == "docs/data.md"
    monkeypatch.chdir(tmp_path)
    assert Path(installation.page("data.md")).is_file()


def test_no_text_names_a_script():
    """A wheel has no scripts: `installation.command` names the command."""
    script = re.compile(rf"\b({'|'.join(cli.VERBS)})\.py\b")
    nodes = [node for path in (ROOT / "tfdetect").rglob("*.py") for node in ast.walk(ast.parse(path.read_bytes()))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert len(texts) > 1000 and [text for text in texts if script.search(text)] == []


def test_pages_that_texts_name_exist():
    texts = "".join(path.read_text() for path in (ROOT / "tfdetect").rglob("*.py"))
    pages = {*re.findall(r"\bdocs/(\w+\.md)", texts), *re.findall(r"page\(['\"](\w+\.md)", texts)}
    assert len(pages) > 5 and [name for name in pages if not (ROOT / "docs" / name).is_file()] == []
