"""
The server's own door: what a connection may send, how slowly, and how many there may be.

No default server bounds all of this: httptools reads heads of any length, takes requests with two Hosts or none, adds
the trailers of a body to the request's headers, and has no clock for a head that never ends. Whatever is refused here
is answered with one problem and the connection ends with it; the application never hears of it.

Requests that a client sends before it has its answer (pipelining) are dropped and the connection ends with the answer:
so no sequence of bytes, however two servers may read it, brings a second answer. Clients that pipeline must be ready
for that (RFC 9112 §9.3.2), and none of today's do.
"""

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import Any

import httptools
import structlog
from prometheus_client import Counter as MetricsCounter
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from healthguard import tls
from healthguard.problems import HeadTooLarge, InvalidRequest, Problem, RequestTooSlow, Unavailable

log = structlog.get_logger()

HEAD_BYTES_MAX = 32 * 1024
"""Request line and headers together. A token is at most 8 KiB."""
TARGET_BYTES_MAX = 8 * 1024
HEADERS_MAX = 100
TRAILERS_MAX = 16
BODY_BYTES_PER_S_MIN = 1024
"""A body that comes more slowly is cut after `Door.slow_s`."""
FRAMING_BYTES_MAX = 16 * 1024
FRAMING_SHARE_MAX = 8
"""
A chunked body may have this much beside its content, and so many times its content: chunks of one byte each come with
five of framing; extensions of chunks (which nobody uses) have no bound in any parser.
"""
UNREAD_S_MAX = 20.0
"""How long a client may take nothing of its answer."""

# RFC 9110 §5.6.2 and §5.5; the parser checks most of it, and differs from others in what it lets pass.
_VERSIONS = frozenset({"1.0", "1.1"})
_TARGET = re.compile(rb"/[!-\"$-~]*")
_FORMS = {
    b"host": re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*"),
    b"content-length": re.compile(rb"[0-9]{1,15}"),
    b"transfer-encoding": re.compile(rb"chunked", re.IGNORECASE),
    b"expect": re.compile(rb"100-continue", re.IGNORECASE),
}
"""What the headers that frame a request may hold."""
_CONTROL = bytes({*range(32), 127} - {9})

Headers = list[tuple[bytes, bytes]]


def trouble_with(target: bytes, version: str, headers: Headers) -> type[Problem] | None:
    """
    Return what is wrong with the head of a request; None: it may go on.

    Source: RFC 9112 §3.2 (target and Host), §6.1 and §6.3 (length of the body).
    """
    if len(target) > TARGET_BYTES_MAX or len(headers) > HEADERS_MAX or _size(headers) > HEAD_BYTES_MAX:
        return HeadTooLarge
    # Of the target's four forms the one that an origin server is sent; `//host/path` some take for a URL.
    if version not in _VERSIONS or _TARGET.fullmatch(target) is None or target.startswith(b"//"):
        return InvalidRequest
    named: dict[bytes, int] = {}
    for name, value in headers:
        if (form := _FORMS.get(name)) is not None:
            named[name] = named.get(name, 0) + 1
            if form.fullmatch(value) is None:
                return InvalidRequest
    hosts, chunked = named.get(b"host", 0), named.get(b"transfer-encoding", 0)
    if hosts != 1 and (version == "1.1" or hosts):
        return InvalidRequest
    # One length at most, said in one way; HTTP/1.0 has no chunks.
    if named.get(b"content-length", 0) + chunked > 1 or (chunked and version == "1.0"):
        return InvalidRequest
    values = b"".join([value for _, value in headers])
    return InvalidRequest if len(values.translate(None, _CONTROL)) != len(values) else None


def _size(headers: Headers) -> int:
    return sum([len(name) + len(value) for name, value in headers]) + 4 * len(headers)


@dataclass
class Clock:
    """What a connection owes us, and until when; seconds of the event loop's clock, None: it owes nothing."""

    slow_s: float
    head_since: float | None
    body_until: float | None = None
    """Until when the body that has come may last: each byte buys some time, and none more than `slow_s` ahead."""
    unread_since: float | None = None
    closing_since: float | None = None

    def begin_body(self, now: float) -> None:
        """Expect a body; also anew, where not the client was slow but we."""
        self.body_until = now + self.slow_s

    def paid(self, count: int, now: float) -> None:
        """Account for *count* bytes of the body: a burst at first does not buy a long silence afterwards."""
        if self.body_until is not None:
            self.body_until = min(self.body_until + count / BODY_BYTES_PER_S_MIN, now + self.slow_s)

    def late(self, now: float) -> bool:
        """Tell whether the request comes too slowly."""
        if self.head_since is not None and now - self.head_since >= self.slow_s:
            return True
        return self.body_until is not None and now >= self.body_until

    def stuck(self, now: float) -> bool:
        """Tell whether the client takes nothing of what it was answered."""
        since = [moment for moment in (self.unread_since, self.closing_since) if moment is not None]
        return bool(since) and now - min(since) >= UNREAD_S_MAX


@dataclass
class Door:
    """What all connections of one server share."""

    connections_max: int
    slow_s: float
    """How long a head may take, and how long a body may be silent; seconds."""
    refused: MetricsCounter | None = None

    def count(self, problem: type[Problem]) -> None:
        """Count a refusal."""
        if self.refused is not None:
            self.refused.labels(problem.slug).inc()


class Connection(HttpToolsProtocol):
    """One connection; it also tells the application the names in its client's certificate."""

    peer: frozenset[str] = frozenset()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.door = door
        self.clock = Clock(door.slow_s, self.loop.time())
        self._deaf = False
        """What comes now is dropped: this connection ends."""
        self._in_head = False
        self._head_bytes = 0
        self._framing = 0
        """Bytes of the body's framing; less what of them the content excuses."""
        self._content = 0
        """Bytes of bodies, of all requests."""
        self._trailers = 0
        self._trouble: type[Problem] | None = None

    # ---- asyncio's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Read the certificate's names once (OpenSSL has checked them by now); refuse one connection too many."""
        self.peer = tls.names_in(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        if len(self.connections) > self.door.connections_max:
            self._refuse(Unavailable)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless this connection is to end."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        in_head, content = self._in_head, self._content
        self._feed(data)
        if self._in_head:
            self._head_bytes += len(data) if in_head else 0
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HeadTooLarge)
            return
        self._frame(len(data), self._content - content)
        if not self._answering and self.clock.body_until is None and self.clock.head_since is None:
            # Empty lines before a request, or the rest of a body that was answered early: both have ended uvicorn's own
            # clock for idle connections, and would keep this one for ever.
            self.clock.head_since = self.loop.time()

    def _feed(self, data: bytes) -> None:
        """Let the parser read, and refuse what it or a callback does not take."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is spoken here but HTTP/1.1; the request is answered as if it had not asked.
            self._end_with_answer()
        except httptools.HttpParserError:
            if self._answering and not self.cycle.more_body:
                self._end_with_answer()
            elif not self._deaf:
                self._refuse(self._trouble or InvalidRequest)

    def pause_writing(self) -> None:
        """Note since when the client takes nothing."""
        self.clock.unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it goes on."""
        self.clock.unread_since = None
        super().resume_writing()

    # ---- the parser's callbacks

    def on_message_begin(self) -> None:
        """Start the head's clock, and give the request the connection's names; drop what comes before an answer."""
        if self._answering:
            self._end_with_answer()
            raise _Stopped
        self._in_head, self._head_bytes, self._trailers = True, 0, 0
        if self.clock.head_since is None:
            self.clock.head_since = self.loop.time()
        super().on_message_begin()
        self.scope["extensions"] = {tls.PEER: self.peer}  # type: ignore[dict-item]  # no dict: there is nothing to it

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which uvicorn would add to the headers that the application sees."""
        if self._in_head:
            super().on_header(name, value)
            if len(self.headers) > HEADERS_MAX:
                self._stop(HeadTooLarge)
            return
        self._trailers += 1
        if self._trailers > TRAILERS_MAX:
            self._stop(HeadTooLarge)

    def on_headers_complete(self) -> None:
        """Check the head, and let the application begin."""
        if (trouble := trouble_with(self.url, self.parser.get_http_version(), self.headers)) is not None:
            self._stop(trouble)
        self._in_head, self.clock.head_since = False, None
        self.clock.begin_body(self.loop.time())
        # What came with the head's end is counted as a whole: the head in it is excused.
        self._framing = -len(self.url) - _size(self.headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what has come."""
        self.clock.paid(len(body), self.loop.time())
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the body's clock."""
        self.clock.body_until = None
        super().on_message_complete()

    # ---- what is done about it

    def hurry(self, now: float) -> None:
        """Cut this connection where it is too slow."""
        if self.transport.is_closing() and self.clock.closing_since is None:
            self.clock.closing_since = now
        if self.clock.body_until is not None and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            # Not the client is slow but we are.
            self.clock.begin_body(now)
        if self.clock.stuck(now):
            self.transport.abort()
        elif not self._deaf and self.clock.late(now):
            self._refuse(RequestTooSlow)

    @property
    def _answering(self) -> bool:
        """Whether a request has no whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _stop(self, trouble: type[Problem]) -> None:
        """
        Stop the parser because of *trouble*.

        Raises:
            _Stopped: always; the parser makes an error of its own of it.
        """
        self._trouble = trouble
        raise _Stopped

    def _frame(self, wire: int, content: int) -> None:
        """Account for *wire* bytes of a body, of which *content* are its own."""
        self._framing += wire - content - FRAMING_SHARE_MAX * content
        if self._framing > FRAMING_BYTES_MAX:
            self._refuse(InvalidRequest)
        # Much content at first must not excuse any amount of framing later.
        self._framing = max(self._framing, 0)

    def _end_with_answer(self) -> None:
        """Hear nothing more; the answer that is due is the last."""
        self._deaf = True
        if self._answering:
            self.cycle.keep_alive = False

    def _refuse(self, kind: type[Problem]) -> None:
        """Answer with a problem and close; where an answer has begun already, cut it."""
        self._deaf = True
        if self.transport.is_closing():
            return
        self.door.count(kind)
        log.info("request_refused_at_the_door", problem=kind.slug)
        if self._answering:
            if self.cycle.response_started:
                self.transport.abort()
                return
            # The application hears that the client has left; what it answers goes nowhere.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(answer_of(kind))
        self.transport.close()


class _Stopped(Exception):
    """Stops the parser from within a callback."""


def answer_of(kind: type[Problem]) -> bytes:
    """Return a whole response, the last of its connection."""
    request_id = uuid.uuid4().hex
    response = kind().response(request_id)
    response.headers.update({"Connection": "close", "X-Request-Id": request_id, "X-Content-Type-Options": "nosniff"})
    status = f"HTTP/1.1 {response.status_code} {kind.title}".encode()
    lines = [b"%s: %s" % header for header in response.raw_headers]
    return b"\r\n".join([status, *lines, b"", bytes(response.body)])
