"""What a connection to the REST port may send, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import uvicorn

from serving.modelserver import rest_connection
from serving.modelserver.rest import Receive, Scope, Send
from serving.modelserver.rest_connection import HEAD_BYTES_MAX, HEADERS_MAX, Connection

START = b"GET / HTTP/1.1\r\nHost: a\r\n"


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer anything."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Serve on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(answer, http=Connection, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server._serve([listening]))
    yield listening.getsockname()[1]
    server.should_exit = True
    await serving


async def sent(port: int, *parts: bytes) -> bytes:
    """Send parts, and return the first line of the answer; nothing where the connection was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return (await reader.readline()).strip()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_connection_answers_what_is_whole(port: int) -> None:
    """A head of a fair size and as many headers as may be is answered."""
    headers = b"".join(b"x-%d: 1\r\n" % number for number in range(HEADERS_MAX - 1))
    assert await sent(port, START + headers + b"\r\n") == b"HTTP/1.1 200 OK"
    assert await sent(port, START, b"x: " + b"a" * (HEAD_BYTES_MAX // 2), b"\r\n\r\n") == b"HTTP/1.1 200 OK"


async def test_connection_refuses_heads_without_end(port: int) -> None:
    """One long header, or many short ones, are not collected for ever."""
    assert b"200" not in await sent(port, START, b"x: ", *[b"a" * 8192] * 40, b"\r\n\r\n")
    headers = b"".join(b"x-%d: 1\r\n" % number for number in range(HEADERS_MAX))
    assert await sent(port, START + headers + b"\r\n") == b"HTTP/1.1 400 Bad Request"


@pytest.mark.parametrize("beginning", [b"", b"\r\n", START, START + b"\r\n\r\n"])
async def test_connection_ends_where_no_head_comes(
    port: int, beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence, an empty line, half a head, and an empty line after an answer keep no connection open."""
    monkeypatch.setattr(rest_connection, "HEAD_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(beginning)
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            await reader.read()
    writer.transport.abort()


async def test_connection_is_refused_above_their_number(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection too many is cut; once another ends there is room again."""
    monkeypatch.setattr(rest_connection, "CONNECTIONS_MAX", 1)
    _, first = await asyncio.open_connection("127.0.0.1", port)
    assert await sent(port, START + b"\r\n") == b""
    first.transport.abort()
    async with asyncio.timeout(20):
        while await sent(port, START + b"\r\n") != b"HTTP/1.1 200 OK":
            await asyncio.sleep(0.01)
