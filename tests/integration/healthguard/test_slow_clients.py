"""Clients that are slow on purpose: each is cut in time, and the others do not notice them."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from healthguard import edge, serve
from healthguard.edge import Connection
from tests.echo import LONG, Echo
from tests.framing import get, post
from tests.serving import serving

PROVE = bool(os.environ.get("HEALTHGUARD_PROVE"))
CLIENTS = 1000 if PROVE else 60
SLOW_S = 8.0 if PROVE else 1.5
"""As it is by default, where it is proved."""
CUT_WITHIN_S = 10.0 if PROVE else 6.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def silent(_writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await asyncio.sleep(3600)


def dripping(start: bytes, drop: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Return a client that sends *start*, and then a drop each half second."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            await asyncio.sleep(0.5)
            writer.write(drop)

    return drip


KINDS = {
    "silent": silent,
    "request line by letters": dripping(b"GET /", b"a"),
    "headers for ever": dripping(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n"),
    "empty lines for ever": dripping(b"", b"\r\n"),
    "empty lines after a request": dripping(get(), b"\r\n"),
    "body by bytes": dripping(post(b"Content-Length: 100000"), b"a"),
    "body by chunks": dripping(post(b"Transfer-Encoding: chunked"), b"1\r\na\r\n"),
    "half a body": dripping(post(b"Content-Length: 100000", body=b"a" * 50_000), b""),
}


async def lasted(port: int, behave: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> float:
    """Be such a client, and return after how long the server ended it, seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    behaving = asyncio.ensure_future(behave(writer))
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    finally:
        behaving.cancel()
        await asyncio.gather(behaving, return_exceptions=True)
        writer.close()
    return time.monotonic() - started


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """Both ends of each connection are files of this process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_slow_clients_are_cut_while_others_are_served() -> None:
    """Every kind, all at once; a well-behaved client is answered meanwhile."""
    behaviours = list(KINDS.values())
    async with serving(Echo().app, slow_s=SLOW_S) as port:
        slow = [asyncio.create_task(lasted(port, behaviours[n % len(behaviours)])) for n in range(CLIENTS)]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            while not all(task.done() for task in slow):
                assert (await client.get("/")).status_code == 200
                await asyncio.sleep(0.05)
        times = [task.result() for task in slow]
    assert len(times) == CLIENTS
    assert max(times) < CUT_WITHIN_S
    # Nobody is cut before their time either.
    assert min(times) > SLOW_S - 0.6


async def test_slow_clients_stay_without_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: uvicorn itself has no clock for any of them."""
    monkeypatch.setattr(Connection, "hurry", lambda *_: None)
    async with serving(Echo().app, slow_s=1) as port:
        slow = [asyncio.create_task(lasted(port, behave)) for behave in KINDS.values()]
        done, staying = await asyncio.wait(slow, timeout=3)
        assert not done
        for task in staying:
            task.cancel()
        await asyncio.gather(*staying, return_exceptions=True)


async def test_slow_body_is_told_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is a problem, and the handler has heard that its client left, which is no fault of ours."""
    async with serving(Echo().app, slow_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"Content-Length: 10", body=b"a"))
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:healthguard:problem:request-too-slow" in answer
    said = capsys.readouterr().out
    assert "request_refused_at_the_door" in said
    assert "request_failed" not in said


async def test_body_quick_enough_is_not_cut() -> None:
    """A large body over a modest line takes longer than any clock's stretch, and arrives."""
    async with serving(Echo().app, slow_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"Content-Length: 20000", b"Connection: close"))
        for _ in range(10):
            writer.write(b"a" * 2000)
            await asyncio.sleep(0.25)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_client_that_takes_no_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer longer than all buffers would otherwise hold its memory for as long as the client likes."""
    cut = asyncio.Event()

    class Noted(Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            cut.set()
            super().connection_lost(exc)

    monkeypatch.setattr(edge, "UNREAD_S_MAX", 1.0)
    monkeypatch.setattr(serve, "Connection", Noted)
    loop = asyncio.get_running_loop()
    async with serving(Echo().app) as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, get(b"GET /long HTTP/1.1"))
            await asyncio.wait_for(cut.wait(), 20)
            assert await all_from(client) < LONG


async def all_from(client: socket.socket) -> int:
    """Return how many bytes still come."""
    taken = 0
    try:
        while chunk := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 10):
            taken += len(chunk)
    except ConnectionError:
        pass
    return taken


async def test_one_connection_too_many_is_refused() -> None:
    """At once, with a 503; those that are there go on."""
    async with serving(Echo().app, connections_max=16) as port:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(16)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503 ")
        writer.close()
        kept[0][1].write(get())
        assert (await kept[0][0].readuntil(b'"here"')).startswith(b"HTTP/1.1 200 ")
        for _, writer in kept:
            writer.close()
