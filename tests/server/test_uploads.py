"""Uploads lie in a private folder under random names, and nothing of the server is said about them."""

import hashlib
import io
import stat
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from served import picture
from starlette.testclient import TestClient

from tfdetect.server import uploads
from tfdetect.server.app import add_errors
from tfdetect.server.limits import ServeLimits
from tfdetect.server.uploads import Upload, clean_name, without_paths

FILE = Upload("holiday.jpg", Path("/tmp/tfdetect-x1/5ad3"), 1, "", "image", None)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    app = FastAPI()
    add_errors(app)

    @app.post("/")
    async def receive(request: Request):
        form = await uploads.receive(request, ServeLimits(files=2))
        [folder] = tmp_path.iterdir()
        found = {"names": [each.name for each in form.files], "mode": stat.S_IMODE(folder.stat().st_mode), "models": form.models,
                 "stored": sorted(path.name for path in folder.iterdir()), "kinds": [each.kind for each in form.files],
                 "shas": [each.sha256 for each in form.files]}  # fmt: skip
        form.close()
        return found

    yield TestClient(app)
    assert not list(tmp_path.iterdir()), "all files are gone"


def test_files_are_stored_privately_under_random_names(ask):
    files = [("file", ("../../etc/passwd.png", picture(), "image/png")), ("file", ("text.mp4", b"#EXTM3U\n", "video/mp4"))]
    found = ask.post("/", files=files, data={"model": ["cnn", "cnn", "other"]}).json()
    assert found["names"] == ["passwd.png", "text.mp4"] and found["kinds"] == ["image", None]
    assert found["mode"] == 0o700 and found["models"] == ["cnn", "other"] and len(found["shas"][0]) == 64
    assert all(len(name) == 16 and int(name, 16) for name in found["stored"])


@pytest.mark.parametrize("files, data, status, words", [
    ([("file", ("a.mp4", b"#EXTM3U\n", ""))], {}, 415, "not an image or video in a supported format: a playlist. Accepted are"),
    ([("file", ("a.zip", b"PK\x03\x04", ""))], {}, 415, "an archive"),
    ([("file", ("a.png", b"", ""))], {}, 415, "empty file"),
    ([("file", ("a.png", picture(), ""))] * 3, {}, 400, "Too many files"),
    ([("other", ("a.png", picture(), ""))], {}, 400, "The field file must be a file"),
    ([("file", (None, b"text", ""))], {}, 400, "The field file must be a file"),
    ([("file", ("a.png", picture(), ""))], {"model": "x" * 2000}, 400, "maximum size"),
    (None, {"file": "text"}, 415, "multipart/form-data"),
])  # fmt: skip
def test_what_is_no_form_of_images_and_videos_is_refused(ask, files, data, status, words):
    answer = ask.post("/", files=files, data=data)
    assert answer.status_code == status and words in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"--b", b"--b\r\n\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
                                  b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + picture()])
def test_broken_forms_are_refused(ask, body):
    answer = ask.post("/", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert 400 <= answer.status_code < 500 and answer.json()["error"]
    assert ask.post("/", content=body, headers={"Content-Type": "multipart/form-data"}).status_code == 400


def test_a_full_disk_is_said(ask, monkeypatch):
    monkeypatch.setattr(uploads, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    answer = ask.post("/", files=[("file", ("a.png", picture(), ""))])
    assert answer.status_code == 503 and answer.headers["Retry-After"] and "no room" in answer.json()["error"]


@pytest.mark.parametrize("name, cleaned", [
    ("a.png", "a.png"), ("C:\\Users\\anna\\a.png", "a.png"), ("/etc/passwd", "passwd"), ("", "file"), ("..", ".."),
    ("gnp.\u202eexe.a", "gnp.exe.a"), ("a\r\nSet-Cookie: x.png", "aSet-Cookie: x.png"), ("\x1b[31mred", "[31mred"),
    ("e\u0301.png", "\u00e9.png"), ("x" * 500, "x" * 120)])  # fmt: skip
def test_names_are_cleaned(name, cleaned):
    assert clean_name(name) == cleaned


@pytest.mark.parametrize("text, shown", [
    ("/tmp/tfdetect-x1/5ad3 changed", "holiday.jpg changed"),
    ("error in '/usr/lib/python3/x.py': bad", "error in 'a file': bad"),
    ("damaged: 28 of 50 frames intact, 3/4 read and/or lost", "damaged: 28 of 50 frames intact, 3/4 read and/or lost"),
    ("120 pixels, at most 100 are read (--data.limits.pixels)", "120 pixels, at most 100 are read (--limits.pixels)"),
    ("C:\\Users\\anna\\x failed", "a file failed")])  # fmt: skip
def test_no_path_of_the_server_is_told(text, shown):
    assert without_paths(text, FILE) == shown


def test_a_file_is_hashed_while_it_is_written(tmp_path):
    data = picture() * 300
    found = uploads.save(io.BytesIO(data), "a.png", tmp_path)
    assert found.sha256 == hashlib.sha256(data).hexdigest() and found.bytes == len(data) == len(found.path.read_bytes())
