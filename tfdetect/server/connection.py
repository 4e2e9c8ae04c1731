"""The connections of the server: uvicorn's HTTP/1.1, which waits without end for the head of a request, with a limit on that."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

BODY = b'{"error": "The request did not arrive in time."}'
ANSWER = (b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
          b"Connection: close\r\nContent-Length: %d\r\n\r\n%s") % (len(BODY), BODY)  # fmt: skip


def timed_protocol(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, for its setting `http`, which answers 408 unless the head of a request is complete after
    `seconds`. For bodies see `guard.Body`."""

    class TimedProtocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            self.wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.is_answering:
                self.stop_waiting()
            elif self.timer is None and not self.transport.is_closing():
                self.wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_waiting()
            super().connection_lost(exc)

        @property
        def is_answering(self) -> bool:
            """Whether the head of a request has come that is not answered yet."""
            cycle: Any = self.cycle
            return cycle is not None and not cycle.response_complete

        def wait(self) -> None:
            self.timer = self.loop.call_later(seconds, self.refuse)

        def stop_waiting(self) -> None:
            if self.timer:
                self.timer.cancel()
                self.timer = None

        def refuse(self) -> None:
            self.timer = None
            if not self.transport.is_closing() and not self.is_answering:
                self.transport.write(ANSWER)
                self.transport.close()

    return TimedProtocol
