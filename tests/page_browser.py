"""Chromium for tests of the page, and what they do in it."""

import io
import shutil
from contextlib import contextmanager

import numpy as np
import page_server
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURE = page_server.png(page_server.picture(0, 64))
LANGUAGES = {"en": "en-GB", "it": "it-IT"}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: install Debian's package chromium")


@contextmanager
def visits(browser, servers):
    """Yield a function that opens the page; at the end, no request has left the server, and the console is free of errors."""
    contexts, errors, strangers = [], [], []

    def opened(name="one", language="en", width=1200, **settings):
        address = servers[name][0]
        context = browser.new_context(locale=LANGUAGES[language], viewport={"width": width, "height": 800}, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        own = (address, "data:", "blob:")
        tab.on("request", lambda asked: None if asked.url.startswith(own) else strangers.append(asked.url))
        tab.goto(address)
        tab.locator("body.ready").wait_for()
        return tab

    yield opened
    for context in contexts:
        context.close()
    refused = "Failed to load resource: "  # what Chromium says of each refusal that a test asked for
    assert not strangers and not [text for text in errors if not text.startswith(refused)]


def give(tab, *names, kind="image/png", data=PICTURE):
    """Choose files of these names, and wait until each has an answer."""
    tab.locator("#files").set_input_files([{"name": name, "mimeType": kind, "buffer": data} for name in names])
    expect(tab.locator(".task")).to_have_count(0, timeout=10_000)
    return tab.locator(".card")


def video():
    """Return an H.264 video of 4 s."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", "mp4") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * number, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()
