"""The load generator of `serving.py`: closed-loop clients over keep-alive connections, in a process of its own.

It writes its requests once, and reads no more of an answer than it must, so that it takes little of the cores that the server
needs. Each client sends its next request when the answer to the last one is there.
"""

import asyncio
import base64
import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

from side_by_side import cpu_seconds, serve

LENGTH = re.compile(rb"content-length: (\d+)", re.I)


class Client(asyncio.Protocol):
    """A connection that sends requests one after the other, and notes when each answer was complete."""

    def __init__(self, requests, numbers, answers, done):
        self.requests, self.numbers, self.answers, self.done = requests, numbers, answers, done
        self.buffer, self.missing, self.number = b"", 0, None

    def connection_made(self, transport):
        self.transport = transport
        self.next()

    def next(self):
        self.number = next(self.numbers, None)
        if self.number is None:
            self.transport.close()
            return
        self.start = time.perf_counter()
        self.transport.write(self.requests[self.number % len(self.requests)])

    def data_received(self, data):
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if separator and len(body) >= int(LENGTH.search(head)[1]):
            self.answers.append((self.number, self.start, time.perf_counter(), int(head[9:12]), body))
            self.buffer = b""
            self.next()

    def connection_lost(self, error):
        if self.number is not None:
            self.answers.append((self.number, self.start, time.perf_counter(), 0, b""))
        self.done.set_result(None)


async def ask(url, bodies, clients, numbers):
    """Return (number, start, end, status, body) of all answers; status 0 for a lost connection."""
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    loop, answers = asyncio.get_running_loop(), []
    ends = [loop.create_future() for _ in range(clients)]
    for end in ends:
        await loop.create_connection(lambda end=end: Client(requests, numbers, answers, end), place.hostname, place.port)
    await asyncio.gather(*ends)
    return answers


def bodies_of(paths):
    """Return a request for each image."""
    texts = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]
    return [json.dumps({"signature_name": "serve_bytes", "instances": [{"b64": text}]}).encode() for text in texts]


def until(seconds):
    """Yield numbers until so many seconds have passed."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield number
        number += 1


def load(url, paths, clients, requests=None, seconds=None, expected=None, tolerance=1e-5):
    """Send so many requests, or for so many seconds, and return what came back.

    `expected` are lists of the images' scores, one for each version that may answer; the result says how many answers had another
    score than these, and which version was the first and the last to answer.
    """
    cpu, start = cpu_seconds(), time.perf_counter()
    answers = asyncio.run(ask(url, bodies_of(paths), clients, iter(range(requests)) if requests else until(seconds)))
    wall = time.perf_counter() - start
    times = sorted(end - begin for _, begin, end, _, _ in answers)
    found = {"wall": wall, "cpu": cpu_seconds() - cpu, "answers": len(answers), "lost": sum(each[3] != 200 for each in answers),
             **{f"p{share}": times[min(len(times) - 1, len(times) * share // 100)] for share in (50, 95, 99)}}  # fmt: skip
    if expected:
        versions = [version_of(body, [scores[number % len(paths)] for scores in expected], tolerance)
                    for number, *_, status, body in answers if status == 200]  # fmt: skip
        found |= {"wrong": versions.count(None), "by_version": [versions.count(number) for number in range(len(expected))]}
    return found


def version_of(body, scores, tolerance):
    """Return the number of the version that gave this answer; None if it is the score of no version."""
    score = json.loads(body)["predictions"][0]["score"]
    return next((number for number, other in enumerate(scores) if abs(score - other) <= tolerance * max(1, abs(other))), None)


if __name__ == "__main__":
    serve({"load": load})
