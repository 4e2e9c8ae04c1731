"""A client of a server that `serve` started. It needs httpx2, and neither TensorFlow nor Keras.

    from tfdetect.client import Client

    with Client("http://localhost:8501") as client:
        for file in client.score(["a.jpg", "b.mp4"]):
            print(file.path, file.error or [(each.model, each.verdict.probability) for each in file.findings])

docs/client.md describes it; docs/server.md has the server's answers.
"""

import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2 as httpx

from tfdetect import __version__
from tfdetect.answers import Explanation, LogCheck, LoggedVerdict, Model, ScoredFile, Server, build
from tfdetect.errors import UserError, suggestion
from tfdetect.files import format_bytes, sha256

TOKEN = "TFDETECT_TOKEN"  # environment variable with the token
SHA256 = re.compile("[0-9a-f]{64}")
TOGETHER = 10  # files in a request, which the server judges together
TOGETHER_BYTES = 2**24  # of these files: larger ones are sent alone, so that the others need not wait for their verdicts
FORM_BYTES = 4096  # of a request with a file besides the file itself
OF_THE_FILE = (400, 408, 413, 415)  # answers that say what is wrong with a file, not with the request
BUSY = (429, 503)
PATIENCE = 600.0  # seconds for which a busy server is asked again
POLLS = (0.2, 2.0)  # seconds between two looks at a job: the first and the longest pause
TIMEOUT = httpx.Timeout(60.0, connect=10.0, read=900.0)  # an answer may take as long as decoding a video
OTHER = "answers, but not as a server of tfdetect does: is the address right?"
KEEP_ALIVE = 2.0  # seconds: less than servers keep an idle connection, or a request might meet its end

Path_ = str | os.PathLike[str]
T = TypeVar("T")
Show = Callable[[str, float, float | None], None]


class ServerError(UserError):
    """The server refused a request; `status` is that of HTTP."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Client:
    """A connection to a server. `show(stage, done, total)` is called while a job runs, or a busy server is waited for.

    All methods raise ServerError with one sentence for what the server refuses, and UserError if it cannot be reached.
    """

    def __init__(self, url: str, token: str | None = None, show: Show | None = None):
        """`token` is by default that of the environment variable TFDETECT_TOKEN, if there is one."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        token = token or os.environ.get(TOKEN)
        if token and not token.isascii():
            raise UserError("The token has a character that is not ASCII, which no token of a server has: copy it again.")
        headers = {"User-Agent": f"tfdetect/{__version__}", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._show: Show = show or (lambda *_: None)
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT,
                                      limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE))  # fmt: skip
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise UserError(f"{url!r} is not the address of a server, such as http://localhost:8501 ({error}).") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    @cached_property
    def server(self) -> Server:
        """What the server says of itself: its models, its limits, and what it keeps."""
        return self._build(Server, self._json("GET", "/v1/server"))

    def models(self) -> tuple[Model, ...]:
        """Return the models that are served."""
        return self.server.models

    def score(self, files: Path_ | Iterable[Path_], models: Iterable[str] | None = None) -> list[ScoredFile]:
        """Return what these models, by default all, find about images and videos; a file that cannot be judged has an `error`."""
        return list(self.score_each([files] if isinstance(files, str | os.PathLike) else files, models))

    def score_each(self, files: Iterable[Path_], models: Iterable[str] | None = None) -> Generator[ScoredFile]:
        """Yield the same for each file in turn, as soon as it is known. A file that is too large for the server is not sent."""
        names = self._names(models)
        for group in self._groups(map(Path, files)):
            yield from self._score(group, names)

    def explain(self, file: Path_, model: str | None = None) -> Explanation:
        """Return what drives the score of a file with a model, by default the first: a heat-map; of a video also a timeline."""
        return self._build(Explanation, self._upload("/v1/explain", [Path(file)], self._names([model] if model else None)))

    def case(self, file: Path_, models: Iterable[str] | None = None) -> str:
        """Return the case report of a file, a page for printing and filing."""
        return str(self._upload("/v1/case", [Path(file)], self._names(models))["html"])

    def case_data(self, file: Path_, models: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the same as JSON has it."""
        return self._upload("/v1/case?format=json", [Path(file)], self._names(models))

    def predict(self, model: str, instances: Sequence[Any], signature_name: str = "serving_default",
                version: int | None = None) -> list[Any]:  # fmt: skip
        """Return the outputs of a signature for each instance, as TensorFlow Serving's `:predict` by row does.

        Instances are arrays, lists, bytes (an encoded image for `serve_bytes`), or a dictionary of them per row. A server that is
        not this one, but TensorFlow Serving, answers as well.
        """
        place = f"/v1/models/{model}" + (f"/versions/{version}" if version is not None else "")
        body = {"signature_name": signature_name, "instances": [_to_json(each) for each in instances]}
        return list(self._json("POST", f"{place}:predict", json=body)["predictions"])

    def lookup(self, file: Path_) -> list[LoggedVerdict]:
        """Return what the server's log has about a file, or the SHA-256 of one, the newest first. The file is not sent."""
        name = os.fspath(file)
        digest = name if SHA256.fullmatch(name) and not os.path.exists(name) else sha256(file)
        return [self._build(LoggedVerdict, row) for row in self._json("GET", f"/v1/log/{digest}")["rows"]]

    def check_log(self, chain: str = "") -> LogCheck:
        """Return whether the rows of the server's log are still as they were written, and whether the row is still there whose
        `chain` an earlier check returned."""
        return self._build(LogCheck, self._json("GET", "/v1/log/check", params={"chain": chain}))

    def _names(self, models: Iterable[str] | None) -> list[str]:
        """Return the names of models to ask for, none for all. Raises UserError, which suggests one, for an unknown name."""
        names, known = list(models or ()), [*(model.name for model in self.models()), *self.server.loading]
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{self.url} has no model {unknown[0]!r}.{suggestion(unknown[0], known)} Models: {', '.join(known)}.")
        return names

    def _groups(self, files: Iterable[Path]) -> Iterator[list[Path]]:
        """Yield the files in their order, those together that fit into one request and are small."""
        group, size, most = list[Path](), 0, min(TOGETHER, int(self.server.limits.get("files") or 1))
        room = min(TOGETHER_BYTES, int(self.server.limits.get("bytes") or TOGETHER_BYTES))
        for path in files:
            own = (path.stat().st_size if path.is_file() else 0) + FORM_BYTES
            if group and (len(group) == most or size + own > room):
                yield group
                group, size = [], 0
            group.append(path)
            size += own
        if group:
            yield group

    def _score(self, paths: list[Path], models: list[str]) -> Iterator[ScoredFile]:
        problems = {path: problem for path in paths if (problem := self._problem(path))}
        sent = [path for path in paths if path not in problems]
        try:
            answer = self._upload("/v1/score", sent, models)["files"] if sent else []
        except (ServerError, OSError) as error:
            if isinstance(error, ServerError) and error.status not in OF_THE_FILE:
                raise
            if len(paths) > 1:
                for path in paths:
                    yield from self._score([path], models)
                return
            answer, problems = [], {paths[0]: getattr(error, "strerror", None) or str(error)}
        if len(answer) != sum(path not in problems for path in paths):
            raise UserError(f"{self.url} {OTHER}")
        found = iter(answer)
        for path in paths:
            yield (ScoredFile(str(path), path.name, error=problems[path]) if path in problems
                   else self._build(ScoredFile, next(found), str(path)))  # fmt: skip

    def _problem(self, path: Path) -> str:
        """Return why a file cannot be sent, "" if it can."""
        if not path.is_file():
            return "no such file" if not path.exists() else "not a file"
        size, most = path.stat().st_size, self.server.limits.get("bytes")
        if most and size + FORM_BYTES > most:
            return f"not sent: it has {format_bytes(size)}, and the server takes {format_bytes(most)} at most"
        return ""

    def _upload(self, place: str, paths: Sequence[Path], models: Sequence[str]) -> dict[str, Any]:
        """Send files as a form and return the answer, that of a job once it is done."""
        with ExitStack() as opened:
            files = [opened.enter_context(open(path, "rb")) for path in paths]
            form = [("file", (os.fsencode(path.name).decode(errors="replace"), file, "application/octet-stream"))
                    for path, file in zip(paths, files, strict=True)]  # fmt: skip
            response = self._request("POST", place, files=form, data={"model": list(models)})
        if response.status_code == 202:
            return self._wait(str(self._parse(response)["job"]))
        return {"html": response.text} if response.headers["content-type"].startswith("text/html") else self._parse(response)

    def _wait(self, job: str) -> dict[str, Any]:
        """Return the result of a job; cancel it if that is interrupted."""
        pause = POLLS[0]
        try:
            while True:
                state = self._json("GET", f"/v1/jobs/{job}")
                if state["state"] == "failed":
                    raise ServerError(state["error"], 400)
                if state["state"] == "done":
                    return dict(state["result"])
                waits = f"queued, {state['before']} before it" if state.get("before") else state["state"]
                self._show(state["stage"] or waits, state["done"], state["total"])
                time.sleep(pause)
                pause = min(POLLS[1], 1.5 * pause)
        except KeyboardInterrupt:
            with suppress(httpx.HTTPError):
                self._http.delete(f"/v1/jobs/{job}", timeout=5.0)
            raise

    def _json(self, method: str, place: str, **options: Any) -> dict[str, Any]:
        return self._parse(self._request(method, place, **options))

    def _parse(self, response: httpx.Response) -> dict[str, Any]:
        with suppress(ValueError):
            if isinstance(found := response.json(), dict):
                return found
        raise UserError(f"{self.url} {OTHER}")

    def _build(self, kind: type[T], content: Any, path: str = "") -> T:
        try:
            return build(kind, content, path)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{self.url} {OTHER}") from error

    def _request(self, method: str, place: str, **options: Any) -> httpx.Response:
        """Return an answer that is no refusal; a busy server is asked again after the time that it names."""
        end = time.monotonic() + PATIENCE
        while True:
            response = self._send(method, place, **options)
            if response.status_code not in BUSY or time.monotonic() > end:
                break
            seconds = _retry_after(response)
            self._show("the server is busy", 0, None)
            time.sleep(min(seconds, max(0.0, end - time.monotonic())))
            for _, (_, file, _) in options.get("files", ()):
                file.seek(0)
        if response.status_code < 400:
            return response
        raise ServerError(self._reason(response), response.status_code)

    def _send(self, method: str, place: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, place, **options)
        except httpx.TimeoutException as error:
            raise UserError(f"{self.url} did not answer in time.") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UserError(f"{self.url} is not the address of a server, such as http://localhost:8501.") from error
        except httpx.ConnectError as error:
            raise UserError(f"{self.url} cannot be reached ({error}): is the server running, and the address right?") from error
        except httpx.TransportError as error:
            raise UserError(f"The connection to {self.url} broke ({error or type(error).__name__}).") from error

    def _reason(self, response: httpx.Response) -> str:
        """Return why a request was refused, in a sentence."""
        if response.status_code == 401:
            known = "does not accept this token" if "Authorization" in self._http.headers else "needs a token"
            return f"{self.url} {known}: give one with --token, or in the environment variable {TOKEN}."
        try:
            return str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            return f"{self.url} answers {response.status_code} {response.reason_phrase}: is the address right?"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds after which a busy server wants to be asked again; it may also name a date, which is not read."""
    text = response.headers.get("Retry-After", "")
    return max(0.1, float(text)) if text.isascii() and text.isdecimal() else 1.0


def _to_json(value: Any) -> Any:
    """Return a value as JSON has it: bytes as {"b64": ...}, arrays as lists."""
    if isinstance(value, bytes | bytearray):
        return {"b64": b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: _to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value
