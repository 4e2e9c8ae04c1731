"""The page with the real server, and what axe-core says of it."""

import hashlib
import os
import re
from pathlib import Path

import page_server
import pytest
from page_browser import PICTURE, expect, give, needs_chromium, video, visits
from served import SIZE

from tfdetect.server.app import create_app
from tfdetect.server.limits import ServeLimits
from tfdetect.server.models import Models
from tfdetect.server.settings import ServeSettings

AXE = os.environ.get("AXE_CORE") or "node_modules/axe-core"
NAMES = [f"{name}.png" for name in ("fake", "known_fake", "real", "inconclusive", "unfamiliar", "noface", "faces", "broken",
                                    "huge", "busy")]  # fmt: skip
pytestmark = needs_chromium


@pytest.mark.slow
def test_the_real_server_answers_the_page(browser, tiny_run, tmp_path):
    models = Models([tiny_run]).load()
    app = create_app(models, ServeSettings(log=str(tmp_path / "log.sqlite"), limits=ServeLimits(bytes=200_000)))
    with page_server.serving(app) as address, visits(browser, {"real": (address, app)}) as visit:
        tab = visit("real", "it")
        expect(tab.locator("#keeps")).to_contain_text("l’impronta del file (SHA-256)")
        expect(tab.locator("#about")).to_contain_text("È stato addestrato su immagini disegnate da un programma")
        for name, kind, data in (("a.png", "image/png", PICTURE), ("b.mp4", "video/mp4", video())):
            card = give(tab, name, kind=kind, data=data).first
            expect(card.locator(".word")).to_have_text(re.compile("Autentico|Falso|Incerto"))
            expect(card.locator(".drives .check")).to_contain_text("La mappa di calore")
            expect(card.locator(".overlay")).to_have_js_property("naturalWidth", SIZE)
            expect(card.locator(".chart")).to_have_count(int(kind == "video/mp4"))
            with tab.expect_download(timeout=120_000) as saved:
                card.get_by_role("button", name="Rapporto").click()
            assert hashlib.sha256(data).hexdigest() in Path(saved.value.path()).read_text()
        assert give(tab, "again.png").first.locator(".before").text_content().startswith("Nel registro di questo server ci sono")
        expect(give(tab, "broken.png", data=PICTURE[:300]).first).to_contain_text("PNG incompleto")
        expect(give(tab, "letter.png", data=b"Dear Sir").first).to_contain_text("non è un’immagine o un video")
        expect(give(tab, "large.png", data=bytes(200_001)).first).to_contain_text("Questo file è troppo grande")
        assert tab.locator("[lang=en]:not(option)").all_text_contents() == []
    models.close()


@pytest.mark.skipif(not Path(AXE, "axe.min.js").exists(), reason=f"no axe-core in {AXE}: npm install axe-core, or set AXE_CORE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(visit, scheme):
    """Deque's axe-core knows about 100 faults: https://github.com/dequelabs/axe-core/blob/develop/doc/rule-descriptions.md"""
    script = Path(AXE, "axe.min.js").read_text(encoding="utf-8")
    for server, names, kind in (("one", [], ""), ("two", [], ""), ("one", NAMES, "image/png"),
                                ("one", ["a_fake.mp4"], "video/mp4"), ("one", ["badmap_note_real.png"], "image/png"),
                                ("two", ["split.png"], "image/png")):  # fmt: skip
        tab = visit(server, color_scheme=scheme)
        if server == "two" and names:
            tab.get_by_label("access token").fill("secret")
            tab.keyboard.press("Enter")
        if names:
            give(tab, *names, kind=kind, data=video() if kind == "video/mp4" else PICTURE)
            tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        tab.evaluate(script)
        found = tab.evaluate("axe.run().then(({ violations }) => violations)")
        faults = [(each["id"], each["impact"], [node["html"] for node in each["nodes"]]) for each in found]
        assert not [fault for fault in faults if fault[1] in ("serious", "critical")]
