"""The texts of the page are complete in every language, and used; its files; and what it asks the server."""

import json
import re

import pytest
from page_server import create_app
from starlette.testclient import TestClient

from tfdetect.server import page
from tfdetect.workflow import case_model

TEXTS = {code: json.loads((page.FOLDER / f"texts.{code}.json").read_text(encoding="utf-8")) for code in page.languages()}
FILES = {path.name: path.read_text(encoding="utf-8") for path in page.FOLDER.iterdir()}
SERVERS = {"server", "parts"}  # sentences that come from the server, and parts of them
VALUE = re.compile(r"\{\w+\}")


@pytest.mark.parametrize("code", TEXTS)
def test_every_language_has_every_text_with_its_values(code):
    english, own = TEXTS["en"], TEXTS[code]
    assert own.keys() == english.keys()
    for key in own.keys() - SERVERS:
        values = {found for text in forms(own[key]) for found in VALUE.findall(text)}
        assert values == {found for text in forms(english[key]) for found in VALUE.findall(text)}, key
        assert all(text.strip() == text != "" for text in forms(own[key])), key
    for english_sentence, sentence in (own["server"] | own["parts"]).items():
        named = {int(found[1:-1]) for found in VALUE.findall(sentence)}  # a translation need not use all
        assert named <= set(range(english_sentence.count("{}"))), english_sentence


def forms(text):
    return text.values() if isinstance(text, dict) else [text]


def test_every_text_is_used_and_none_is_missing():
    code = "\n".join(text for name, text in FILES.items() if name.endswith((".js", ".html")))
    named = set(re.findall(r'"([a-z_]+(?:\.[a-z_0-9]+)+|[a-z]+)"', code))
    built = tuple(found for found in re.findall(r"`([a-z]+\.)\$\{", code))  # `error.${kind}` uses all that begin so
    texts = TEXTS["en"].keys() - SERVERS
    assert built and not [key for key in texts if key not in named and not key.startswith(built)]
    asked = set(re.findall(r'\bt\("([\w.]+)"', code)) | set(re.findall(r'data-(?:text|label)="([\w.]+)"', code))
    assert asked and asked <= texts


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_code():
    for name, text in FILES.items():
        assert not re.search(r"//(?!www\.w3\.org|html\.spec\.whatwg\.org)[\w-]+\.\w", text), name
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", FILES["index.html"])
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import|url\(", "".join(FILES.values()))


def test_files_have_their_types_and_are_asked_for_again_only_if_they_changed():
    client = TestClient(create_app())
    for name in FILES:
        answer = client.get(f"/page/{name}")
        assert answer.headers["Content-Type"] == f"{page.TYPES[name[name.rindex('.'):]]}; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache" and answer.text == FILES[name]
        assert client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert client.get("/").text == FILES["index.html"]
    for path in ("/page/none.js", "/page/page.py", "/page/..%2Fpage.py", "/page/%2e%2e%2f__init__.py", "/page/", "/page/.js"):
        assert client.get(path).status_code == 404, path


def test_the_server_says_what_its_card_says(app):
    found = TestClient(app, base_url="http://127.0.0.1").get("/v1/server").json()
    [model] = found["models"]
    predictor = app.state.models.get("tiny").predictor
    expected = {"detector": "cnn", "input": "image", "faces": "none", "threshold": predictor.threshold, "explains": True}
    assert model.items() >= expected.items()
    assert model["headline"] == case_model.NOT_MEASURED and model["caveats"][0] == case_model.SAMPLE
    assert found["languages"] == {"en": "English", "it": "Italiano"} and found["keeps"] is None and not found["needs_token"]
