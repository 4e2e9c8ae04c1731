"""The page in Chromium, against a server whose answers are made up: what a person does and sees."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from page_browser import PICTURE, expect, give, needs_chromium, video
from page_sentences import sentences

pytestmark = needs_chromium


def test_an_image_gets_a_verdict_in_words_its_meaning_and_a_heat_map(visit):
    tab = visit()
    expect(tab.get_by_text("Nothing is kept")).to_be_visible()
    card = give(tab, "a_fake.png")
    verdict = card.get_by_role("region", name="Verdict of faces_v2 Fake")
    expect(verdict).to_contain_text("93.1%")
    expect(verdict).to_contain_text("93.1% is above 70%: this detector calls such files fake.")
    expect(verdict.get_by_role("img")).to_have_attribute("aria-label", re.compile("this file lies at 93.1%.*fake from 70% on"))
    expect(card.get_by_role("heading", name="a_fake.png")).to_be_focused()
    expect(tab.get_by_role("status")).to_contain_text("the explanation of faces_v2 is ready")
    verdict.get_by_text("Details").click()
    expect(verdict).to_contain_text(hashlib.sha256(PICTURE).hexdigest())
    verdict.get_by_text("How good is this detector?").click()
    expect(verdict.get_by_text("84 % of those that it calls fake are real.")).to_be_visible()
    expect(card).to_contain_text("Hiding the marked tenth of the picture lowers the score by 0.583")
    slider, overlay = card.get_by_role("slider"), card.locator(".overlay")
    expect(overlay).to_have_css("opacity", "0.8")
    slider.fill("30")
    expect(overlay).to_have_css("opacity", "0.3")
    expect(slider).to_have_attribute("aria-valuetext", "heat-map at 30%")
    expect(card.locator(".preview img")).to_have_js_property("naturalWidth", 64)


def test_json_and_case_report_are_downloads(visit):
    tab = visit()
    card = give(tab, "a_fake.png")
    with tab.expect_download() as saved:
        card.get_by_role("button", name="Data (JSON)").click()
    assert saved.value.suggested_filename == "a_fake-verdict.json"
    found = json.loads(Path(saved.value.path()).read_text())
    assert found["findings"][0]["verdict"]["probability"] == 0.931 and "data:image" not in json.dumps(found)
    assert found["explanations"][0]["heat_map"]["check"]["hottest_tenth"] == 0.583
    with tab.expect_download() as saved:
        card.get_by_role("button", name="Case report").click()
    assert (saved.value.suggested_filename, Path(saved.value.path()).read_text()) == ("a_fake-case.html", "<h1>case</h1>")


VERDICTS = {
    "a_fake.png": ("Fake", "93.1% is above 70%"),
    "real.png": ("Real", "4.1% is below 45%: this detector calls such files real."),
    "inconclusive.png": ("Inconclusive", "55% lies between 45% and 70%, where this detector decides neither way."),
    "unfamiliar.png": ("Unfamiliar", "It shows other content than the files that the detector was trained on."),
}


def test_different_probabilities_are_shown_with_different_figures(visit):
    shown = visit().evaluate("async (all) => all.map((await import('/page/texts.js')).percents)",
                             [[0.49999878, 0.5], [0.475, 0.487, 0.475], [0.0001, 0.0002]])  # fmt: skip
    assert shown == [["49.9999%", "50%"], ["47.5%", "48.7%", "47.5%"], ["0.01%", "0.02%"]]


def test_every_verdict_has_a_word_a_symbol_and_a_sentence(visit):
    tab = visit()
    cards = give(tab, *VERDICTS)
    for card, (name, (word, sentence)) in zip(cards.all(), VERDICTS.items(), strict=True):
        expect(card.get_by_role("heading", level=2)).to_have_text(name)
        expect(card.locator(".word")).to_have_text(word)
        expect(card).to_contain_text(sentence)
    shapes = [symbol.get_attribute("d") for symbol in tab.locator(".call .symbol path").all()]
    assert len(set(shapes)) == len(VERDICTS)
    offered = tab.get_by_role("button", name="Show what drives the verdict of faces_v2")
    expect(offered).to_have_count(4)  # of several files they are made on demand


def test_what_makes_a_verdict_doubtful_stands_beside_it(visit):
    tab = visit()
    known, unfamiliar = give(tab, "known_fake.png", "unfamiliar.png").all()
    expect(known.locator("p.careful")).to_have_text(["This detector was trained on this very file, so its verdict says nothing."])
    unfamiliar.get_by_text("Details").click()
    expect(unfamiliar.get_by_text("What this figure means")).to_have_count(0)  # there is none
    expect(unfamiliar.locator(".finding")).not_to_contain_text("robability")
    unfamiliar.get_by_role("button", name="Show what drives the verdict").click()
    expect(unfamiliar.locator(".why")).to_contain_text("its figures do not hold for it")


def test_the_names_under_the_scale_never_overlap(visit):
    tab = visit(language="it", width=320)
    card = give(tab, "inconclusive.png")
    for width in (320, 420, 500):
        tab.set_viewport_size({"width": width, "height": 800})
        boxes = [name.bounding_box() for name in card.locator(".gauge text:not(.here)").all()]
        assert len(boxes) == 3
        for at, one in enumerate(boxes):
            for other in boxes[at + 1:]:
                beside = one["x"] + one["width"] < other["x"] or other["x"] + other["width"] < one["x"]
                assert beside or abs(one["y"] - other["y"]) > one["height"] - 2, (width, one, other)


def test_a_video_has_a_timeline_to_click_and_to_walk_along(visit):
    tab = visit()
    card = give(tab, "job_fake.mp4", kind="video/mp4", data=video())
    player, chart = card.locator("video"), card.get_by_role("slider", name="Moment of the video")
    time_is = lambda seconds: expect(player).to_have_js_property("currentTime", seconds)  # noqa: E731
    chart.focus()
    tab.keyboard.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuetext", "0.1 s: probability of being fake 15%")
    time_is(0.1)
    tab.keyboard.press("End")
    time_is(3.9)
    box = chart.bounding_box()
    chart.click(position={"x": 46 + (box["width"] - 60) / 4, "y": 90})
    assert player.evaluate("video => video.currentTime") == pytest.approx(1, abs=0.05), "a quarter of 4 s"
    expect(card.locator(".readout")).to_have_text("1 s: probability of being fake 30.1%")
    card.get_by_role("button", name="Go to peak A: 1.4 s, 90%").click()
    time_is(1.4)
    expect(card.locator(".point-fake")).to_have_count(3)  # those above 70 %
    expect(card).to_contain_text("Only the pictures of a video are judged, not its sound.")


def test_faces_are_drawn_where_they_are_and_said_in_words(visit):
    card = give(visit(), "two_faces.png")
    expect(card.locator(".boxes")).to_have_attribute("viewBox", "0 0 64 64")
    first = card.locator(".boxes rect").first
    assert [first.get_attribute(name) for name in ("x", "y", "width", "height")] == ["6", "4", "11", "13"]
    expect(card).to_contain_text("2 faces found")
    expect(card).to_contain_text("Face 2: probability of being fake 8%")
    image, boxes = card.locator(".preview img").bounding_box(), card.locator(".boxes").bounding_box()
    assert boxes == pytest.approx(image, abs=1)


REFUSED = {
    "broken.jpg": ("This file cannot be read", "Reason: truncated JPEG: its end marker is missing", False),
    "noface.png": ("No face found", "Reason: No face found, and this detector judges nothing else.", False),
    "huge.png": ("This file is too large", "Reason: The image has 400 megapixels, at most 100 are read.", False),
    "text.pdf": ("This is neither an image nor a video", "Documents and archives are not opened", False),
    "busy.png": ("Too many requests", "The server asks you to wait 7 seconds.", True),
    "unready.png": ("The server is not ready", "Your file is fine.", True),
    "crash_500.png": ("Something went wrong on the server", "This is not your file's fault.", True),
}


def test_what_cannot_be_judged_says_why(visit):
    tab = visit()
    cards = give(tab, *REFUSED)
    for card, (title, reason, again) in zip(cards.all(), REFUSED.values(), strict=True):
        expect(card.get_by_role("heading", level=3)).to_have_text(title)
        expect(card).to_contain_text(reason)
        expect(card.get_by_role("button", name="Try again")).to_have_count(int(again))
    expect(tab.get_by_role("heading", name="broken.jpg")).to_be_focused()


def test_a_lost_connection_is_no_verdict_and_can_be_tried_again(visit):
    tab = visit()
    tab.context.set_offline(True)
    card = give(tab, "a_fake.png")
    expect(card.get_by_role("heading", level=3)).to_have_text("The connection is gone")
    tab.context.set_offline(False)
    card.get_by_role("button", name="Try again").click()
    expect(card.locator(".word")).to_have_text("Fake")


def test_cancelling_ends_the_job_on_the_server(visit, servers):
    tab, (_, app) = visit(), servers["one"]
    tab.locator("#files").set_input_files([{"name": "endless_job.png", "mimeType": "image/png", "buffer": PICTURE}])
    task = tab.locator(".task")
    expect(task).to_contain_text("Decoding (0 of 4)")
    task.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("heading", name="Cancelled")).to_be_visible()
    expect(tab.get_by_role("heading", name="endless_job.png")).to_be_focused()  # the button that had the focus is gone
    tab.wait_for_timeout(100)
    assert [job["state"] for job in app.state.jobs.values() if "endless" in str(job["result"])] == ["failed"]


def test_without_events_a_job_is_asked_for_its_state(visit, servers):
    tab, (_, app) = visit(), servers["one"]
    expect(give(tab, "poll_real.png").locator(".word")).to_have_text("Real")
    assert sum(request.startswith("GET /v1/jobs/") and not request.endswith("events") for request in app.state.seen) >= 2


def test_two_detectors_stand_side_by_side_and_disagree(visit):
    tab = visit("two")
    expect(tab.get_by_text("In its record it keeps the time and the file's fingerprint (SHA-256).")).to_be_visible()
    card = give(tab, "split_fake.png")
    expect(card.get_by_role("heading", level=3)).to_have_text("The access token is missing or wrong")
    expect(tab.get_by_label("access token")).to_be_focused()
    tab.keyboard.type("secret")
    tab.keyboard.press("Enter")
    expect(card.locator(".word")).to_have_text(["Fake", "Real"])
    expect(card).to_contain_text("The detectors disagree.")
    expect(card.locator(".before")).to_contain_text("already has 3 verdicts on this very file, the first of 1 March 2026")
    left, right = (panel.bounding_box() for panel in card.locator(".finding").all())
    line_height = card.locator(".word").first.bounding_box()["height"]
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    large = give(tab, "large.png", data=bytes(60_000)).first
    expect(large).to_contain_text("The file has 60 kB, and the server takes up to 50 kB.")
    expect(give(tab, "unfamiliar.png").first.locator(".disagree")).to_contain_text("None of the detectors can tell.")
    expect(give(tab, "inconclusive_split.png").first.locator(".disagree")).to_contain_text("Some of the detectors cannot tell.")
    assert {word.bounding_box()["height"] for word in tab.locator(".word").all() if " " not in word.inner_text()} == {line_height}
    tab.get_by_role("checkbox", name="faces_v2").uncheck()
    expect(give(tab, "fake.png").first.locator(".by")).to_have_text(["Verdict of clip_images"])


def test_everything_is_reached_by_keys(visit):
    tab = visit()
    with tab.expect_file_chooser() as chooser:
        for _ in range(4):  # past the link to the results, the name and the language
            tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
    chooser.value.set_files([{"name": "a_fake.png", "mimeType": "image/png", "buffer": PICTURE}])
    card = tab.locator(".card")
    expect(card.get_by_role("heading", name="a_fake.png")).to_be_focused()
    expect(card.locator(".drives")).to_be_visible()
    reached = []
    while "Data (JSON)" not in reached:
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.textContent || document.activeElement.type"))
        if reached[-1] == "What this figure means":
            tab.keyboard.press("Space")
            expect(card.get_by_text("about 93 are fake.")).to_be_visible()
        if reached[-1] == "range":
            tab.keyboard.press("Home")
            expect(card.locator(".overlay")).to_have_css("opacity", "0")
    assert reached == ["Remove", "What this figure means", "How good is this detector?", "Details", "range", "Case report",
                       "Data (JSON)"]  # fmt: skip


def test_in_italian_nothing_stays_english(visit):
    tab = visit(language="it")
    card = give(tab, "note_fake.mp4", kind="video/mp4", data=video())
    expect(tab.get_by_role("heading", level=1)).to_have_text("È autentico?")
    expect(card).to_contain_text("93,1% è sopra 70%")
    expect(card).to_contain_text("danneggiato: 28 fotogrammi intatti su 50")
    expect(tab.locator("#about")).to_contain_text("AUC 0,953 (da 0,912 a 0,984, 120 falsi)")
    assert tab.locator("html").get_attribute("lang") == "it" and tab.locator("[lang=en]:not(option)").all_text_contents() == []
    tab.locator("#language").select_option("en")
    expect(card.locator(".word")).to_have_text("Fake")
    expect(card.locator(".chart")).to_be_visible()  # the explanation is still there
    tab.reload()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Is this real?")


def test_what_the_server_says_is_translated(visit, tmp_path):
    """Whoever changes one of these sentences finds here that its translation must follow."""
    texts = sorted(set(sentences(tmp_path)))
    found = visit(language="it").evaluate("""async (texts) => { const { said } = await import('/page/texts.js');
        return texts.map(said).map((node) => [node.textContent, node.querySelectorAll('[lang=en]').length]); }""", texts)
    left = [text for text, odd in found if odd or re.search(r"\b(the|of|to|its?|where|are|is|and|which|over|under)\b", text)]
    assert len(found) > 50 and left == []
    assert [text for text, _ in found if re.search(r"\d,\d{3} file", text)] == []  # 4,000 files are not four in Italian


def test_a_narrow_phone_shows_all_of_it(visit):
    tab = visit("one", width=360, has_touch=True, is_mobile=True)
    camera = tab.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    expect(tab.get_by_text("Take a picture")).to_be_visible()
    give(tab, "job_fake_with_a_very_long_name_that_has_no_space_in_it_at_all_0123456789.mp4", kind="video/mp4", data=video())
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    small = tab.evaluate("""[...document.querySelectorAll('button, select, summary, .button, input[type=range]')].filter((each) =>
        each.offsetParent && each.getBoundingClientRect().height < 24).map((each) => each.outerHTML)""")
    assert not small, "targets of at least 24 pixels (WCAG 2.2, 2.5.8)"
    tab.emulate_media(media="print", reduced_motion="reduce")
    expect(tab.locator(".drop")).to_be_hidden()
    expect(tab.locator(".word")).to_be_visible()
