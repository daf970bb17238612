"""
What a connection to the REST port may send before anybody reads it.

uvicorn bounds neither the length of a request's head nor the time that it takes to come, and httptools keeps all of it.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MAX = 1024
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100
HEAD_S = 10.0
"""How long the head of a request may take, and how long a connection may be open without one."""


class HeadTooLarge(Exception):
    """Stops the parser; uvicorn answers 400 and closes."""


class Connection(HttpToolsProtocol):
    """One connection: closed where its head is too long, or does not come."""

    _clock: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the clock, or refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, and count what belongs to a head that has not ended."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response("Request head too large.")
        elif self.cycle is None or self.cycle.response_complete:
            # Empty lines, or the rest of a body that is answered already: both end the clock that uvicorn has for idle
            # connections.
            self._start_clock()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._start_clock()

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        Keep a header, or a trailer.

        Raises:
            HeadTooLarge: there are too many.
        """
        if len(self.headers) >= HEADERS_MAX:
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock; from here on the request's own deadline holds."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(HEAD_S, self._late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> Any:
        self._clock = None
        self.transport.abort()
