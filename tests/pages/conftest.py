"""A report that several test files look at: drawing its figures takes most of the time."""

import pytest

from tests.pages.test_report import write_hostile


@pytest.fixture(scope="session")
def report_page(tmp_path_factory):
    """The path of a report with every section, and hostile text in every field."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_hostile(path)
    return path
