"""Short bodies are read whole, within a limit and a deadline."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from healthguard.body import BodyLimit


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def ask(chunks: Iterable[bytes], headers: dict[str, str], timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Send *chunks* through the limit of 8 bytes; where they end without an end, the client keeps us waiting."""
    waiting = iter(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        chunk = next(waiting, None)
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": chunk != b"."}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "headers": raw, "request_id": "a-request"}
    await BodyLimit(echo, bytes_max=8, timeout_s=timeout_s)(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_body_within_the_limit_comes_in_one_piece() -> None:
    """However many pieces the client sent."""
    assert await ask([b"abc", b"defg", b"."], {"transfer-encoding": "chunked"}) == (200, b"abcdefg.")


@pytest.mark.parametrize("length", ["9", "99999999999999999999999", "-1", "1e1", "x"])
async def test_body_announced_as_too_long_is_not_read(length: str) -> None:
    """Nor one whose length is no number: nothing was sent here, and the answer comes at once."""
    status, _ = await ask([], {"content-length": length})

    assert status == 413


async def test_body_that_goes_on_is_cut() -> None:
    """What was not announced is counted; the answer says how much is taken."""
    status, answer = await ask([b"abcdefgh", b"i"], {"transfer-encoding": "chunked"})

    assert status == 413
    assert json.loads(answer)["limit_bytes"] == 8


async def test_body_that_does_not_end_is_given_up() -> None:
    """A client that sends a little and then nothing holds no request open for ever."""
    status, _ = await ask([b"abc"], {"content-length": "8"}, timeout_s=0.01)

    assert status == 400


async def test_client_that_goes_away_is_not_answered() -> None:
    """Nothing is done for a request whose body never came to its end."""
    called = []
    messages: list[Message] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def unused(*arguments: Any) -> None:
        called.append(arguments)

    scope: dict[str, Any] = {"type": "http", "headers": [(b"content-length", b"8")], "request_id": "a-request"}
    await BodyLimit(unused, bytes_max=8)(scope, receive, unused)

    assert called == []
