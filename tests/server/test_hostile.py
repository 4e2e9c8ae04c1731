"""A server on loopback that is sent 2,000 damaged and hostile uploads, and whatever its OpenAPI document allows."""

import contextlib
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from served import picture

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
COUNT, WARM_UP, CLIENTS = 2000, 200, 6
STEADY = 1800  # after these memory is measured again; the others ask for case reports, too, while decoders are killed
GONE = 0  # the connection ended without an answer
ANSWERS = {GONE, 200, 202, 400, 408, 413, 415, 503}
FLAGS = ["--limits.stall_seconds", "1.5", "--limits.decode_seconds", "20", "--limits.workers", "2", "--limits.bytes", "3000000",
         "--limits.pixels", "4000000", "--limits.jobs", "64", "--access.hosts", "127.0.0.1"]  # fmt: skip


class Served:
    """A server in a process of its own."""

    def __init__(self, run):
        self.process = subprocess.Popen([sys.executable, ROOT / "scripts" / "serve.py", run, "--port", "0", *FLAGS], cwd=ROOT,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.log, self.lines = [], []
        self.threads = [threading.Thread(target=lambda pipe=pipe, out=out: out.extend(iter(pipe.readline, "")), daemon=True)
                        for pipe, out in ((self.process.stderr, self.log), (self.process.stdout, self.lines))]  # fmt: skip
        for thread in self.threads:
            thread.start()
        end = time.monotonic() + 120
        while not (found := re.search(r"http://localhost:(\d+)/\s", " ".join(self.lines))):
            assert time.monotonic() < end and self.process.poll() is None, self.log
            time.sleep(0.1)
        self.port = int(found.group(1))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def decoders(self):
        found = psutil.Process(self.process.pid).children()
        alive = [each for each in found if each.status() != psutil.STATUS_ZOMBIE]  # that are being ended
        return [each for each in alive if "resource_tracker" not in " ".join(each.cmdline())]

    def memory(self):
        """Return the bytes that the server and its decoding processes hold."""
        return sum(each.memory_info().rss for each in [psutil.Process(self.process.pid), *self.decoders()])

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tiny_run):
    served = Served(tiny_run)
    yield served
    assert served.stop() in (0, -15)


def png_bomb(width, height, compressed=True):
    """Return a small PNG of this many pixels."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    rows = zlib.compress(b"\0" * (height * (1 + width * 3)), 9) if compressed else b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zip_bomb():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10**7))
    return target.getvalue()


def hostile_files(port):
    """Return name -> content of files that are meant to harm; `port` is one that nobody may connect to."""
    secret = Path(__file__).resolve()
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/x\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{secret}'\nfile 'http://127.0.0.1:{port}/x'\n"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:{port}/x"/></svg>'
    dash = f'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:{port}/x</BaseURL></MPD>'
    # A box at the start makes the playlist look like an MP4 to whoever reads the first bytes alone.
    hidden = struct.pack(">I", 16) + b"ftypisom" + bytes(4) + hls.encode()
    return {"hls.mp4": hls.encode(), "concat.mp4": concat.encode(), "picture.svg": svg.encode(), "dash.mp4": dash.encode(),
            "hidden.mp4": hidden, "large.png": png_bomb(14000, 14000), "announced.png": png_bomb(2**31 - 1, 2**31 - 1, False),
            "zip.png": zip_bomb(), "zip.mp4": zip_bomb(), "empty.png": b"", "zeros.mp4": bytes(10**6),
            "../../../etc/passwd": b"root:x:0:0", "a\r\nX: y.png": picture(1), "x" * 3000 + ".png": picture(2)}  # fmt: skip


def form(name, content, boundary=b"limit"):
    """Return the body of a form with one file."""
    head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % (boundary, name.encode()[:100])
    return head + content + b"\r\n--%b--\r\n" % boundary


def raw(port, body, declared=None, pause=0.0, parts=1, stays=True):
    """Send a request in pieces, perhaps less than it declares; return the status and the answer to a client that stays."""
    head = (f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=limit\r\n"
            f"Content-Length: {declared or len(body)}\r\nConnection: close\r\n\r\n").encode()  # fmt: skip
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        step = -(-len(body) // parts) or 1
        for start in range(0, len(body), step):
            connection.sendall(body[start : start + step])
            time.sleep(pause)
        while stays and (block := connection.recv(65536)):
            answer += block
    return int(answer.split(b" ", 2)[1]) if answer else GONE, answer


def upload(server, number, originals, hostile, rng):
    """Send the upload with this number; return its status and what is answered."""
    from fuzz import mutate

    name, content = mutate(originals, number, 1)
    if number % 20 == 7:
        name = list(hostile)[number // 20 % len(hostile)]
        content = hostile[name]
    if number % 100 == 11:  # the client breaks off
        body = form(name, content)
        return raw(server.port, body[: rng.integers(len(body))], len(body), stays=False)
    if number % 100 == 31:  # it stops sending
        return raw(server.port, form(name, content), 10 * len(content) + 1000)
    if number % 100 == 51:  # it sends slowly
        return raw(server.port, form(name, content[:400]), pause=0.2, parts=10)
    if number % 100 == 71:  # its form is damaged
        body = bytearray(form(name, content))
        for position in rng.integers(0, min(200, len(body)), 3):
            body[position] ^= 1 << int(rng.integers(8))
        return raw(server.port, bytes(body))
    if number % 100 == 91:
        content = content + bytes(4 * 10**6)
    path = {3: "/v1/explain", 13: "/v1/case" if number > STEADY else "/v1/explain"}.get(number % 50, "/v1/score")
    try:
        answer = server.client.post(path, files=[("file", (name, content)), ("file", ("good.png", picture(3)))][: 1 + number % 2])
    except (httpx.WriteError, httpx.ReadError):  # refused while it was sent
        return GONE, b""
    return answer.status_code, answer.content


def settled(server):
    """Return the memory once the server is idle."""
    found = []
    for _ in range(3):
        time.sleep(1)
        found.append(server.memory())
    return min(found)


def test_uploads_of_all_kinds_do_no_harm(server, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from fuzz_files import intact_files

    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(0.01)
    originals, hostile = intact_files(), hostile_files(trap.getsockname()[1])
    ask = lambda: httpx.post(f"http://127.0.0.1:{server.port}/v1/score", files=[("file", picture(9))], timeout=60)  # noqa: E731
    before, statuses, slowest, errors, memory = ask().json(), Counter(), 0.0, Counter(), []

    def one(number):
        start = time.monotonic()
        status, content = upload(server, number, originals, hostile, np.random.default_rng(number))
        return number, status, content, time.monotonic() - start

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for numbers in (range(WARM_UP), range(WARM_UP, STEADY), range(STEADY, COUNT)):
            for number, status, content, seconds in pool.map(one, numbers):
                statuses[status] += 1
                slowest = max(slowest, seconds)
                assert status in ANSWERS, (number, status, content[:300])
                assert b"Traceback" not in content and b"/tmp" not in content and str(ROOT).encode() not in content, content[:500]
                if status == 200 and content[:1] == b"{":
                    errors.update(re.sub(r"\d+", "N", each["error"] or "")[:60] for each in json.loads(content).get("files", ()))
                if number % 20 == 19 and number > STEADY:  # when memory has been measured, decoders are killed, too
                    for each in server.decoders()[:1]:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            each.kill()
            memory.append(settled(server))
    print(f"\n{COUNT} uploads in {time.monotonic() - began:.0f} s, slowest {slowest:.1f} s, statuses {dict(statuses)}; memory "
          f"{memory[0] / 1e6:.0f} MB after {WARM_UP}, {memory[1] / 1e6:.0f} MB after {STEADY}")  # fmt: skip
    print(errors.most_common(20))
    again = ask().json()
    first = lambda answer: answer["files"][0]["findings"][0]["verdict"]  # noqa: E731
    assert first(again) == first(before), "the server judges as before"
    assert server.process.poll() is None and not [line for line in server.log if "Traceback" in line], server.log[-30:]
    assert memory[1] < 1.1 * memory[0] and slowest < 30
    with pytest.raises(TimeoutError):  # no playlist made the server connect to anything
        trap.accept()


def test_a_case_report_has_its_reencodings(server):
    url = f"http://127.0.0.1:{server.port}/v1/case?format=json"
    [found] = httpx.post(url, files=[("file", picture(1))], timeout=300).json()["files"][0]["findings"]
    assert len(found["stability"]) == 6 and all(each["error"] is None for each in found["stability"])


def test_whatever_the_document_allows_is_answered(server):
    """schemathesis (https://schemathesis.readthedocs.io) derives requests from /openapi.json, valid and invalid ones."""
    command = [Path(sys.executable).parent / "schemathesis", "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks",
               "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
               "--max-examples", "10", "--workers", "1", "--seed", "1", "--request-timeout", "120", "--no-color"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout[-6000:]
    print(found.stdout[-1500:])
