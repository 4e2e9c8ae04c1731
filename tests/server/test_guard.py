"""Who may ask, how much and how fast; every answer has the headers that keep a browser from harm."""

import asyncio
import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.testclient import TestClient

from tfdetect.errors import UserError
from tfdetect.limits import Limits
from tfdetect.server.app import add_errors
from tfdetect.server.connection import timed_protocol
from tfdetect.server.guard import HEADERS, Bucket, add_guard
from tfdetect.server.limits import Access, ServeLimits
from tfdetect.server.settings import ServeSettings

TOKEN, OTHER = "a" * 20, "b" * 20


def make_app(settings=ServeSettings()):  # noqa: B008
    app = FastAPI()
    app.state.arrived = []

    @app.post("/v1/echo")
    async def echo(request: Request):
        return {"bytes": len(await request.body()), "who": request.state.who}

    @app.post("/v1/slow")
    async def slow():
        await asyncio.sleep(0.5)

    @app.get("/v1/bug")
    async def bug():
        raise RuntimeError("/secret/path")

    @app.get("/page")
    async def own_page():
        return HTMLResponse("", headers={"Content-Security-Policy": "sandbox"})

    @app.get("/v1/stream")
    async def stream():
        async def parts():
            for number in range(3):
                app.state.arrived.append(number)
                yield b"part\n"

        return StreamingResponse(parts())

    add_errors(app)
    add_guard(app, settings)
    return app


def client(settings=ServeSettings(), **options):  # noqa: B008
    return TestClient(make_app(settings), base_url="http://127.0.0.1:8501", raise_server_exceptions=False, **options)


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\nanna {TOKEN}\nbob {OTHER}\n")
    return path


def test_every_answer_has_the_headers(tokens):
    ask = client(ServeSettings(access=Access(tokens)))
    answers = [ask.get("/healthz"), ask.post("/v1/echo"), ask.get("/v1/echo", headers={"Host": "evil.example"})]
    answers += [client().get("/v1/bug"), client().get("/v1/nowhere"), client().post("/v1/echo")]
    assert [answer.status_code for answer in answers] == [404, 401, 400, 500, 404, 200]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"] and "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert client().get("/page").headers["Content-Security-Policy"] == "sandbox", "a page may have its own"
    assert answers[3].json() == {"error": "The server failed to answer; its log says why."}


def test_a_token_says_who_asks(tokens):
    ask = client(ServeSettings(access=Access(tokens)))
    post = lambda value: ask.post("/v1/echo", headers={"Authorization": value})  # noqa: E731
    assert [post(f"Bearer {token}").json()["who"] for token in (TOKEN, OTHER)] == ["anna", "bob"]
    wrong = ("Bearer wrong", f"Basic {TOKEN}", "", f"Bearer {TOKEN}x", b"Bearer \xc3\xa9")
    assert [post(value).status_code for value in wrong] == [401] * 5
    refused = ask.post("/v1/echo")
    assert refused.headers["WWW-Authenticate"] == "Bearer" and "needs a token" in refused.json()["error"]
    assert ask.get("/v1/stream").status_code == 401 and ask.get("/page/x").status_code == 404, "the page itself needs none"
    assert client().post("/v1/echo").json()["who"] == ""


def test_files_of_tokens_are_checked(tokens, tmp_path):
    tokens.write_text("anna short")
    with pytest.raises(UserError, match="line 1: expected a name and a token of at least 16") as error:
        Access(tokens).read_tokens()
    assert "short" not in str(error.value), "no token is shown"
    tokens.write_text("# none\n")
    with pytest.raises(UserError, match="has no token"):
        Access(tokens).read_tokens()
    with pytest.raises(UserError, match="cannot be read"):
        Access(tmp_path / "missing").read_tokens()


def test_other_hosts_and_origins_are_refused():
    """A page of another site may neither rename itself to this machine (DNS rebinding) nor send forms here (CSRF)."""
    get = lambda **headers: client().post("/v1/echo", headers=headers).status_code  # noqa: E731
    assert [get(Host=host) for host in ("localhost:8501", "127.0.0.1", "[::1]:8501", "LOCALHOST")] == [200] * 4
    assert [get(Host=host) for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil:8501")] == [400] * 5
    assert get(Origin="http://127.0.0.1:8501") == 200
    assert [get(Origin=origin) for origin in ("http://evil.example", "null", "http://127.0.0.1:80", "http://[")] == [403] * 4
    public = client(ServeSettings(host="0.0.0.0"))
    assert public.post("/v1/echo", headers={"Host": "detector.example"}).status_code == 200, "its names are not known"
    named = client(ServeSettings(host="0.0.0.0", access=Access(hosts=("detector.example",))))
    assert named.post("/v1/echo", headers={"Host": "detector.example"}).status_code == 200
    assert named.post("/v1/echo", headers={"Host": "localhost"}).status_code == 400


def test_cors_is_off_unless_asked_for():
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client().options("/v1/echo", headers=preflight).headers
    allowed = client(ServeSettings(access=Access(cors=("https://a.example",))))
    assert allowed.options("/v1/echo", headers=preflight).headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.post("/v1/echo", headers={"Origin": "https://a.example"}).status_code == 200
    assert allowed.post("/v1/echo", headers={"Origin": "https://b.example"}).status_code == 403


def test_rates_are_limited_for_each_client(tokens, monkeypatch):
    ask = client(ServeSettings(limits=ServeLimits(rate=3), access=Access(tokens)))
    post = lambda token: ask.post("/v1/echo", headers={"Authorization": f"Bearer {token}"})  # noqa: E731
    assert [post(TOKEN).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert 1 <= int(post(TOKEN).headers["Retry-After"]) <= 21 and post(OTHER).status_code == 200
    now = [0.0]
    monkeypatch.setattr("tfdetect.server.guard.time", type("", (), {"monotonic": staticmethod(lambda: now[0])}))
    bucket = Bucket(60)
    assert [bucket.take() for _ in range(61)] == [0.0] * 60 + [1.0]
    now[0] = 1.5
    assert [bucket.take(), bucket.take()] == [0.0, 0.5]


def test_too_many_requests_at_a_time_are_refused():
    with client(ServeSettings(limits=ServeLimits(requests=1))) as ask:
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(ask.post("/v1/slow").status_code)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 503, 503] and ask.post("/v1/slow").status_code == 200


def test_bodies_are_limited_also_without_a_declared_length():
    ask = client(ServeSettings(limits=ServeLimits(bytes=1000)))
    assert ask.post("/v1/echo", content=b"x" * 1000).json()["bytes"] == 1000
    declared, streamed = ask.post("/v1/echo", content=b"x" * 1001), ask.post("/v1/echo", content=iter([b"x" * 600] * 2))
    assert [declared.status_code, streamed.status_code] == [413, 413] and "more than 1,000 bytes" in streamed.json()["error"]


def test_limits_of_files_are_the_lower_ones():
    limits = ServeLimits(pixels=10, seconds=7200.0)
    assert limits.of_files(Limits(pixels=20, seconds=3600.0)) == Limits(10, limits.bytes, limits.frames, 3600.0)
    with pytest.raises(UserError, match="--limits.files must be at least 1"):
        ServeLimits(files=0)
    with pytest.raises(UserError, match="--limits.stall_seconds must be above 0"):
        ServeLimits(stall_seconds=0)


@pytest.fixture(scope="module")
def port():
    """The port of a server on loopback that waits half a second for the next byte, and takes 1,000 of them."""
    limits = ServeLimits(stall_seconds=0.5, upload_seconds=1.5, bytes=1000)
    config = uvicorn.Config(make_app(ServeSettings(limits=limits)), port=0, log_config=None, http=timed_protocol(0.5))
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize("parts, pause", [([b""], 0), ([b"POST /v1/echo HT"], 0), ([HEAD], 0), ([HEAD, *[b"x"] * 20], 0.2),
                                          ([HEAD + b"x" * 100, b"POST /"], 0.1)])  # fmt: skip
def test_slow_senders_are_refused(port, parts, pause):
    """One that sends nothing, one that stops within the head or the body, one that sends a byte now and then, and one that stops
    within its second request."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # it has been refused
                break
            time.sleep(pause)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    assert b" 408 " in answer and json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"].startswith("The request did not arrive")
    assert 0.4 < time.monotonic() - start < 4.5


@pytest.mark.parametrize("declared", [True, False])
def test_a_client_that_sends_all_before_it_reads_learns_that_it_is_too_much(port, declared):
    connection, body = http.client.HTTPConnection("127.0.0.1", port, timeout=5), b"x" * 20_000_000  # more than buffers hold
    connection.request("POST", "/v1/echo", body if declared else iter([body]), encode_chunked=not declared,
                       headers={"Content-Length": str(len(body))} if declared else {"Transfer-Encoding": "chunked"})  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 413 and "more than 1,000 bytes" in json.load(answer)["error"]
    connection.close()


def test_streams_are_not_held_back():
    app = make_app()
    with TestClient(app, base_url="http://127.0.0.1") as ask, ask.stream("GET", "/v1/stream") as answer:
        assert list(answer.iter_lines()) == ["part"] * 3 and app.state.arrived == [0, 1, 2]
