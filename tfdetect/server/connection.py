"""The connections of the server: uvicorn's HTTP/1.1, which waits without end for the head of a request, with a limit on that."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

BODY = b'{"error": "The request did not arrive in time."}'
ANSWER = (b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
          b"Connection: close\r\nContent-Length: %d\r\n\r\n%s") % (len(BODY), BODY)  # fmt: skip


class TimedProtocol(H11Protocol):
    """Answers 408 unless the head of a request is complete after some seconds. For bodies see `guard.Body`."""

    seconds: float
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.wait()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once the head of a request is complete, and begin again with the next one."""
        super().data_received(data)
        if self.is_answering:
            self.stop_waiting()
        elif self.timer is None and not self.transport.is_closing():
            self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self.stop_waiting()
        super().connection_lost(exc)

    @property
    def is_answering(self) -> bool:
        """Whether the head of a request has come that is not answered yet."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def wait(self) -> None:
        """Refuse the request after the time, unless waiting is stopped before."""
        self.timer = self.loop.call_later(self.seconds, self.refuse)

    def stop_waiting(self) -> None:
        """Refuse nothing until `wait` is called again."""
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def refuse(self) -> None:
        """Answer 408 and close the connection, unless a request is being answered."""
        self.timer = None
        if not self.transport.is_closing() and not self.is_answering:
            self.transport.write(ANSWER)
            self.transport.close()


def timed_protocol(seconds: float) -> type[H11Protocol]:
    """Return `TimedProtocol` with a limit in seconds, for uvicorn's setting `http`."""
    return type("TimedProtocol", (TimedProtocol,), {"seconds": seconds})
