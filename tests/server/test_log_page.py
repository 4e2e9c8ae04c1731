"""The page of the log in Chromium, on a log of SQLite behind the guard of the server."""

import csv
import io
import os
import re
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi import FastAPI
from page_browser import expect, needs_chromium
from page_server import serving

from tfdetect.answers import LogRow
from tfdetect.server import page, record
from tfdetect.server.app import add_errors
from tfdetect.server.guard import add_guard
from tfdetect.server.limits import Access
from tfdetect.server.log_rows import COLUMNS
from tfdetect.server.record_store import TABLE, Record
from tfdetect.server.settings import ServeSettings

AXE = os.environ.get("AXE_CORE", "node_modules/axe-core")
TOKEN = "the-token-of-the-desk"
FILE = b"the content of a file"
pytestmark = needs_chromium


def rows():
    """60 verdicts by two names, one of them on FILE and one that a spreadsheet would run."""
    found = [LogRow(f"2026-0{1 + number // 28}-{1 + number % 28:02}T08:30:00.000000Z", f"{number:064x}", 2_300_000, "faces_v2", 3,
                    "f" * 64, ["real", "fake", "inconclusive"][number % 3], number / 60, 0.84, "score", "desk")
             for number in range(58)]  # fmt: skip
    one = found[0]
    return [*found, LogRow(**vars(one) | {"time": "2026-04-01T08:00:00.000000Z", "sha256": sha256(FILE).hexdigest()}),
            LogRow(**vars(one) | {"time": "2026-04-02T08:00:00.000000Z", "verdict": "failed", "probability": None,
                                  "model": "=cmd|' /C calc'!A0", "request": "case"})]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server that needs a token and has such a log, and that log."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "tokens").write_text(f"desk {TOKEN}\n")
    settings = ServeSettings(access=Access(tokens=folder / "tokens"), log=str(folder / "log.db"))
    app = FastAPI()
    with closing(Record(settings.log)) as log:
        log.add(rows())
        app.state.record, app.state.settings = log, settings

        @app.get("/v1/server")
        async def about():
            return {"version": "0.1.0", "models": [], "limits": {}, "keeps": COLUMNS, "needs_token": True,
                    "languages": page.languages()}  # fmt: skip

        app.include_router(record.router)
        app.include_router(page.router)
        add_errors(app)
        add_guard(app, settings)
        with serving(app) as address:
            yield address, log


@pytest.fixture
def visit(browser, server):
    """Open the page and sign in; at the end, no request has left the server, and the console is free of errors."""
    contexts, errors, strangers = [], [], []

    def opened(path="/log", token=TOKEN, locale="en-GB", width=1200, **settings):
        context = browser.new_context(locale=locale, viewport={"width": width, "height": 800}, timezone_id="UTC", **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda asked: None if asked.url.startswith((server[0], "blob:")) else strangers.append(asked.url))
        tab.goto(server[0] + path)
        tab.locator("body.ready").wait_for()
        if token:
            tab.locator("#token").fill(token)
            tab.locator("#access button").click()
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not strangers and not [text for text in errors if not text.startswith("Failed to load resource: ")]


def test_the_record_is_shown_searched_and_saved(visit):
    tab = visit()
    expect(tab.get_by_role("status")).to_have_text("60 verdicts.")
    lines = tab.locator("tbody tr")
    expect(lines).to_have_count(50)
    expect(lines.first).to_contain_text("Not judged")
    expect(lines.nth(2)).to_contain_text(re.compile(r"2 March 2026.*Real.*95%.*faces_v2, version 3.*desk.*score.*2.3 MB"))
    tab.get_by_role("button", name="Older").click()
    expect(lines).to_have_count(10)
    expect(tab.get_by_role("button", name="Older")).to_be_hidden()
    tab.get_by_label("Fingerprint (SHA-256), detector, verdict or name").fill("calc")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status")).to_have_text("1 verdict.")
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save as CSV").click()
    [row] = csv.DictReader(io.StringIO(Path(saved.value.path()).read_text()))
    assert row["model"] == "'=cmd|' /C calc'!A0" and saved.value.suggested_filename == "log.csv"
    tab.get_by_label("Fingerprint (SHA-256), detector, verdict or name").fill("")
    tab.get_by_label("From").fill("2026-04-01")
    tab.get_by_role("button", name="Search").click()
    expect(tab.get_by_role("status")).to_have_text("2 verdicts.")


def test_a_file_is_looked_up_without_being_sent(visit):
    tab = visit()
    expect(tab.locator("tbody tr")).to_have_count(50)
    sent = []
    tab.on("request", lambda asked: sent.append(asked.method))
    tab.locator("#file").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": FILE}])
    expect(tab.get_by_role("status")).to_have_text("1 verdict.")
    expect(tab.locator("tbody tr")).to_contain_text(sha256(FILE).hexdigest())
    assert sent == ["GET"]
    tab = visit(f"/log?sha256={7:064x}")
    expect(tab.get_by_role("status")).to_have_text("1 verdict.")


@pytest.mark.slow
def test_a_wrong_token_is_said_and_a_changed_record_shows(visit, server):
    tab = visit(token="the-token-of-nobody")
    expect(tab.get_by_role("alert")).to_contain_text("Enter the token")
    tab.locator("#token").fill(TOKEN)
    tab.locator("#access button").click()
    expect(tab.locator("tbody tr")).to_have_count(50)
    tab.get_by_role("button", name="Check the record").click()
    expect(tab.get_by_role("alert")).to_contain_text("as it was written: 60 verdicts.")
    chain = server[1].find(1)[0]["chain"]
    expect(tab.get_by_role("alert")).to_contain_text(chain)
    with server[1].engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {TABLE.name} SET verdict = 'fake' WHERE id = 4")
    tab.get_by_role("button", name="Check the record").click()
    expect(tab.get_by_role("alert")).to_contain_text("was changed: row 4")
    with server[1].engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {TABLE.name} SET verdict = 'real' WHERE id = 4")


@pytest.mark.slow
def test_on_a_phone_in_italian_and_in_the_dark(visit):
    tab = visit(locale="it-IT", width=400, color_scheme="dark")
    expect(tab.get_by_role("status")).to_have_text("60 verdetti.")
    expect(tab.locator("tbody tr").nth(1)).to_contain_text("Autentico")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"


@pytest.mark.slow
@pytest.mark.skipif(not Path(AXE, "axe.min.js").exists(), reason=f"no axe-core in {AXE}: npm install axe-core, or set AXE_CORE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(visit, scheme):
    tab = visit(color_scheme=scheme, bypass_csp=True)
    expect(tab.locator("tbody tr")).to_have_count(50)
    tab.add_script_tag(content=Path(AXE, "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run().then(({ violations }) => violations)")
    assert not [(each["id"], each["help"], [node["html"] for node in each["nodes"]]) for each in found
                if each["impact"] in ("serious", "critical")]  # fmt: skip
