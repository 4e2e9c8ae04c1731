"""Servers whose answers are made up."""

import page_server
import pytest
from page_server import FIRST, SECOND


@pytest.fixture(scope="module")
def servers():
    """The addresses of a server with one detector, and of one with two, a record and a token; and their applications."""
    one, limits = page_server.create_app(), {"bytes": 50_000, "seconds": 60.0}
    two = page_server.create_app((FIRST, SECOND), keeps=["time", "sha256"], token="secret", limits=limits)
    with page_server.serving(one) as first, page_server.serving(two) as second:
        yield {"one": (first, one), "two": (second, two)}


@pytest.fixture
def visit(browser, servers):
    """Opens the page, see `page_browser.visits`."""
    from page_browser import visits

    with visits(browser, servers) as opened:
        yield opened
