"""Short request bodies are read whole, under a byte limit and a deadline, before anything parses them."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from healthguard.problems import InvalidRequest, PayloadTooLarge, Problem

BODY_TIMEOUT_S = 10.0


class BodyLimit:
    """
    Refuse bodies that are too long or too slow; for services whose bodies are short.

    The handler gets the body in one piece. Counting while the handler reads would let FastAPI turn the refusal into a
    400 of its own. Add it before `http.install`, so that a refusal has a request id, a log line and a metric.
    """

    def __init__(self, app: ASGIApp, bytes_max: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.bytes_max = bytes_max
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except Problem as problem:
            await problem.response(scope["request_id"])(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """
        Return the body, or None where the client went away before its end.

        Raises:
            PayloadTooLarge: it is announced as longer than the limit, or goes on beyond it.
            InvalidRequest: it did not come in time.
        """
        declared = _header(scope, b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared[:19]) > self.bytes_max):
            raise PayloadTooLarge(limit_bytes=self.bytes_max)
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self.bytes_max:
                        raise PayloadTooLarge(limit_bytes=self.bytes_max)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as exc:
            raise InvalidRequest("The body came too slowly.") from exc


def _has_body(scope: Scope) -> bool:
    """Tell whether the request announces a body, as HTTP/1.1 must (RFC 9112 §6)."""
    return any(key in {b"content-length", b"transfer-encoding"} for key, _ in scope["headers"])


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives *body* first, and then what still comes (the client's going away)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
