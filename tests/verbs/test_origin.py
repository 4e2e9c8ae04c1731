"""The command, the function and the part of a page that show what a file says of its origin."""

import json

import light
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import tfdetect
from tfdetect import cli
from tfdetect.data.origin import statement
from tfdetect.pages.origin import origin_section


@pytest.fixture
def paths(tmp_path):
    """A picture whose metadata name a generator, one without metadata, and a text; they are read in this process."""
    info = PngInfo()
    info.add_text("Software", "NovelAI")
    info.add_text("Comment", "<script>alert(1)</script>")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "c.txt").write_text("text")
    with light.in_process():
        yield [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.txt"]


def test_each_file_is_shown_with_the_kinds_of_evidence(paths, capsys):
    assert cli.main(["origin", *map(str, paths)]) == 1
    out = capsys.readouterr().out
    assert "generator  PNG text Software  NovelAI (names a generator)" in out and statement.NOTHING in out
    assert statement.CAVEAT in out and statement.KINDS["generator"] in out and statement.KINDS["camera"] not in out
    assert "c.txt: not an image or video" in out and "3 files, 1 failed" in out
    assert cli.main(["origin", str(paths[0]), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == tfdetect.origin(paths[0]).to_dict() | {"statements": list(row["statements"]), "notes": []}
    assert row["statements"][0]["kind"] == "generator" and row["caveat"] == statement.CAVEAT
    with pytest.raises(tfdetect.UserError, match=r"c\.txt: not an image or video"):
        tfdetect.origin(paths[2])


def test_the_section_of_a_page_escapes_what_the_file_says(paths):
    page = origin_section(tfdetect.origin(paths[0]))
    assert "NovelAI" in page and "<script>" not in page and "&lt;script&gt;" in page and statement.KINDS["generator"] in page
    assert statement.NOTHING in origin_section(tfdetect.origin(paths[1]))
