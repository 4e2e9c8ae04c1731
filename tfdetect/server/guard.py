"""Who may ask, how much and how fast: tokens, hosts and origins, limits on requests, and the headers of every answer.

Plain ASGI, since Starlette's BaseHTTPMiddleware would hold back streamed answers.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfdetect.server.health import FAILED, refusal
from tfdetect.server.limits import ServeLimits
from tfdetect.server.settings import ServeSettings

log = logging.getLogger("tfdetect.server")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/", "/log", "/healthz", "/readyz", "/openapi.json", "/v1/server")  # which need no token, and below /page/
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
       "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
MAX_CLIENTS = 10_000  # whose rate is remembered


def add_guard(app: FastAPI, settings: ServeSettings) -> None:
    """Put all of this around an application. Raises UserError for a file of tokens that cannot be used."""
    limits, access = settings.limits, settings.access
    hosts = access.hosts or (LOOPBACK if _is_loopback(settings.host) else ())
    app.add_middleware(Guard, limits, access.read_tokens(), tuple(host.lower() for host in hosts), access.cors)
    if access.cors:
        app.add_middleware(CORSMiddleware, allow_origins=access.cors, allow_methods=["GET", "POST", "DELETE"],
                           allow_headers=["Authorization", "Content-Type"], expose_headers=["Retry-After"])  # fmt: skip
    app.add_middleware(SecureHeaders)  # around the others, whose answers need them, too


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class SecureHeaders:
    """Adds HEADERS to every answer that does not have its own, and turns what nobody caught into an answer without details."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started, headers = True, MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:  # there is nobody to answer
            return
        except Exception:
            if started or scope["type"] != "http":
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            await refusal(500, FAILED)(scope, receive, send_with_headers)


@dataclass
class Guard:
    """Refuses requests of strangers, too many and too large ones, and those that arrive too slowly."""

    app: ASGIApp
    limits: ServeLimits
    tokens: Mapping[bytes, str]
    """SHA-256 of each token -> its name; empty if none is needed."""
    hosts: Sequence[str]
    """By which the server may be addressed; empty for any."""
    origins: Sequence[str]
    """Of other pages that may use the server."""
    busy: int = 0
    rates: dict[str, "Bucket"] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self.check_addresses(headers)
            who = scope.setdefault("state", {})["who"] = self.identify(scope, headers)
            if scope["method"] in ("GET", "OPTIONS"):
                await self.app(scope, receive, send)
                return
            client = who or (scope.get("client") or ("",))[0]
            with self.admitted(client):
                body = Body(receive, send, self.limits, headers)
                await self.app(scope, body.receive, body.send)
        except HTTPException as error:
            await refusal(error.status_code, error.detail, error.headers)(scope, receive, send)

    def check_addresses(self, headers: Headers) -> None:
        """Refuse a request for another host: a page whose name was pointed at this machine (DNS rebinding) would be of the same
        origin. Refuse one that a page of another origin sends, which needs no permission for a form (CSRF).

        Starlette's TrustedHostMiddleware checks hosts alone, and answers in plain text.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts and _host_of(f"//{host}") not in self.hosts:
            raise HTTPException(400, "The server is not known by this host name (--access.hosts).")
        if origin and origin not in self.origins and "*" not in self.origins and _netloc_of(origin) != host.lower():
            raise HTTPException(403, "Pages of this origin may not use the server (--access.cors).")

    def identify(self, scope: Scope, headers: Headers) -> str:
        """Return the name of the token of a request, "" if none is needed. Raises HTTPException 401."""
        if not self.tokens or scope["path"] in OPEN_PATHS or scope["path"].startswith("/page/") or scope["method"] == "OPTIONS":
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest() if scheme.lower() == "bearer" else b""
        matches = [name for digest, name in self.tokens.items() if hmac.compare_digest(digest, given)]
        if not matches:
            raise HTTPException(401, "This server needs a token: send it in the header Authorization: Bearer TOKEN.",
                                {"WWW-Authenticate": "Bearer"})  # fmt: skip
        return matches[0]

    @contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Count a request among those that are answered. Raises HTTPException 429 and 503."""
        if self.limits.rate and (wait := self.bucket(client, self.limits.rate).take()):
            raise HTTPException(429, f"At most {self.limits.rate} requests a minute are answered for each client.",
                                {"Retry-After": str(int(wait) + 1)})  # fmt: skip
        if self.busy >= self.limits.requests:
            raise HTTPException(503, "Too many requests at a time: try again in a moment.", {"Retry-After": "1"})
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def bucket(self, client: str, rate: int) -> "Bucket":
        """Return the bucket of a client; buckets that are full again say no more than new ones, and are dropped."""
        if len(self.rates) > MAX_CLIENTS:
            self.rates = {name: each for name, each in self.rates.items() if each.level() < each.rate}
        return self.rates.setdefault(client, Bucket(rate))


@dataclass
class Bucket:
    """A token bucket: `rate` requests at once, and as many per minute (https://en.wikipedia.org/wiki/Token_bucket).

    The package `limits` has this for servers that share a database; its own memory needs a thread that forgets.
    """

    rate: float

    def __post_init__(self) -> None:
        self.left, self.since = self.rate, time.monotonic()

    def level(self) -> float:
        """Return how many requests may be made now."""
        return min(self.rate, self.left + (time.monotonic() - self.since) * self.rate / 60)

    def take(self) -> float:
        """Count a request; return 0, or the seconds to wait before it may be made."""
        self.left, self.since = self.level(), time.monotonic()
        if self.left < 1:
            return (1 - self.left) * 60 / self.rate
        self.left -= 1
        return 0


class Body:
    """The body of a request, which ends with an error once it is too large or too slow, and the answer, which waits for its end.

    Many clients send all before they read anything: what is left is read and thrown away, since closing a connection on which
    data still arrive resets it, and the answer with it (https://httpwg.org/specs/rfc9112.html#persistent.tear-down).
    """

    def __init__(self, receive: Receive, send: Send, limits: ServeLimits, headers: Headers):
        self._receive, self._send, self.limits = receive, send, limits
        self.length, self.end, self.complete = 0, time.monotonic() + limits.upload_seconds, False
        declared = headers.get("content-length", "0")
        self.declared = int(declared) if declared.isascii() and declared.isdecimal() else 0

    async def receive(self) -> Message:
        """Return the next part. Raises HTTPException 408 and 413."""
        if self.complete:  # what follows is the client's leaving, for which an answer may wait as long as it takes
            return await self._receive()
        self.check(self.declared)  # before a client that asks first is told to send
        message = await self.next()
        self.check(self.length)
        return message

    def check(self, length: int) -> None:
        """Raise HTTPException 413 for a body of this length."""
        if length > self.limits.bytes:
            raise HTTPException(413, f"The request has more than {self.limits.bytes:,} bytes (--limits.bytes).",
                                {"Connection": "close"})  # fmt: skip

    async def next(self) -> Message:
        """Return the next part, however large. Raises HTTPException 408."""
        try:
            async with asyncio.timeout(min(self.limits.stall_seconds, max(0.0, self.end - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            self.complete = True
            text = (f"The request did not arrive in time: pauses may last {self.limits.stall_seconds:g} s, the whole "
                    f"{self.limits.upload_seconds:g} s.")  # fmt: skip
            raise HTTPException(408, text, {"Connection": "close"}) from None
        self.length += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, and end it once the request has."""
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not self.complete:
            await self._send({**message, "more_body": True})
            with suppress(HTTPException):
                while not self.complete:
                    await self.next()
            message = {"type": "http.response.body"}
        await self._send(message)


def _host_of(url: str) -> str:
    """Return the host of an URL without its port, in lower case; "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc_of(origin: str) -> str:
    """Return host and port of an origin, in lower case; "" for "null" and for anything else."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
