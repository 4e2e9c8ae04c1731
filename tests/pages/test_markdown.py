"""The report in Markdown says what the page says, and nothing in it is taken for markup."""

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from tests.pages.test_report import table as rows_of
from tfdetect.evaluation import metrics
from tfdetect.pages import markdown, report
from tfdetect.pages.content import Report

EVIL = "<script>a|b*c*_d_`e`\n# f [g](h)"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the page and the Markdown of the same report."""
    folder = tmp_path_factory.mktemp("report")
    rows = rows_of(60, 60, 3.0)
    found = Report(
        name=f"run {EVIL}", detector=EVIL, warnings=[EVIL], metrics={"test": metrics.summarise(rows, 0.5)},
        mistakes=[(f"wrong {EVIL}", 1, EVIL, 0.1, np.zeros((8, 8, 3), np.uint8))], data=rows.assign(split="train"),
        failures=[(f"broken {i}", EVIL) for i in range(60)], epochs=(2, 2), shortcuts={"all": 0.95, "width": 0.6},
        extra_tables={EVIL: pd.DataFrame({EVIL: [EVIL, None], "x": [0.1234, np.nan]})}, command="train.py `x`",
        settings={"data": {"path": EVIL}}, versions={"keras": "3.15"})  # fmt: skip
    report.write(folder / "report.html", found)
    markdown.write(folder / "report.md", found)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


def words(text):
    """Return text without the characters of Markdown, and without backslashes before them."""
    return re.sub(r"\s+", " ", re.sub(r"[`|*#-]", " ", re.sub(r"\\(?=[^\w\s])", "", text))).strip()


def test_it_has_the_sections_sentences_and_figures_of_the_page(both):
    page, text = both
    plain = words(text)
    assert set(re.findall("<h2>(.*?)</h2>", page)) - {"Warning", "Additional tables"} <= set(re.findall(r"^## (.*)$", text, re.M))
    said = [*re.findall(r'<p class="(?:grade|lead|fine)">(.*?)</p>', page), *re.findall(r"<li>(.*?)</li>", page),
            *re.findall(r"<td(?: class=n)?>(.*?)</td>", page)]  # fmt: skip
    assert len(said) > 150
    missing = [part for part in said if words(unescape(re.sub("</?code>", " ", part))) not in plain]
    assert missing == []


def test_rows_of_a_table_have_as_many_cells_as_its_header(both):
    for block in both[1].split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("| "):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 and lines[1].startswith("| --- |")


def test_names_are_no_markup(both):
    text = re.sub(r"`[^`\n]*`", "", both[1])
    assert not re.search(r"(?<!\\)<", text) and not re.search(r"(?<!\\)\[g", text) and "\n# f" not in text
    assert "````" not in both[1] and "```\ntrain.py `x`\n```" in both[1]


def test_figures_are_links_to_files_beside_it(tmp_path):
    path = tmp_path / "plots" / "my roc.png"
    markdown.write(tmp_path / "report.md", Report("r", {"test": metrics.summarise(rows_of(60, 60, 3.0), 0.5)},
                                                  figures={"roc": path}))  # fmt: skip
    assert "](plots/my%20roc.png)" in (tmp_path / "report.md").read_text()
