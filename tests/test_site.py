"""The site of docs/: each page is in its navigation, and what is built loads nothing from other servers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GENERATED = {"index.md", "contributing.md", "benchmarks.md", "changelog.md"}  # by .ci/site_pages.py


def pages(entry):
    """Return the pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]


def test_the_navigation_has_each_page_once():
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted({*GENERATED, *(path.name for path in (ROOT / "docs").glob("*.md"))})


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.name: path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(built) > 40
    loading = r"""<(?:script|img|iframe|source|video)[^>]+src=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//"""
    assert {name: found for name, text in built.items() if (found := re.findall(loading, text))} == {}
    styles = "".join(path.read_text() for path in tmp_path.rglob("*.css"))
    assert not re.search(r"@import|url\([\"']?(?:https?:)?//", styles)
    first = built["index.html"]
    assert "Was this image or video recorded" in first
    assert {"detectors.html", "contributing.html"} <= {*re.findall('href="(.*?)"', first)}
    for name in ("train", "load", "Detector", "Client"):
        assert re.search(rf'<h3 id="tfdetect\.[\w.]*{name}"', built["reference.html"]), name
