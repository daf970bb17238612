"""HTTP's framing over raw sockets: what servers read differently is refused, and nothing is answered twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.echo import Echo
from tests.framing import PROBES, SMUGGLED, WHOLE, chunked, get, post
from tests.listening import listening
from tests.serving import serving


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, int]]:
    """Serve one, impatiently."""
    found = Echo()
    async with serving(found.app, slow_s=1) as port:
        yield found, port


async def said(port: int, sent: bytes, within_s: float = 10) -> bytes:
    """Send bytes and return all that is answered until the connection ends; nothing where it was only closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(sent)
        async with asyncio.timeout(within_s):
            while chunk := await reader.read(65536):
                answer += chunk
    except ConnectionError:
        # The server closed while we still sent: what it said before that may be lost on the way.
        pass
    finally:
        writer.close()
    return answer


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer; bodies hold no such line."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def refused_once(found: list[int]) -> bool:
    """Tell whether there is no more than one answer, and that a refusal."""
    return len(found) <= 1 and all(400 <= status < 500 for status in found)


def test_probes_are_many() -> None:
    """As many as were promised."""
    assert len(PROBES) >= 60


async def test_wrong_framing_is_refused_once(echo: tuple[Echo, int]) -> None:
    """A 4xx and the end, or the end alone; nothing that came after is answered, or heard of by the application."""
    service, port = echo
    found = {name: statuses(await said(port, probe)) for name, probe in PROBES.items()}
    assert {name: all_ for name, all_ in found.items() if not refused_once(all_)} == {}
    assert "/smuggled" not in service.seen


async def test_uvicorn_alone_fails_the_probes() -> None:
    """The mutant: the same probes find much in the server without our door."""
    service = Echo()
    async with listening(service.app) as url:
        port = int(url.rpartition(":")[2])
        mutants = ("no Host", "two Hosts", "absolute target", "HTTP/2.0", "200 headers", "chunk extension of 64 KiB")
        closed = {name: PROBES[name].replace(b"Host: a", b"Host: a\r\nConnection: close", 1) for name in mutants}
        closed["no Host"] = get(b"GET / HTTP/1.1", b"Connection: close")
        found = {name: statuses(await said(port, probe)) for name, probe in closed.items()}
        pipelined = WHOLE["GET"]() + SMUGGLED.replace(b"Host", b"Connection: close\r\nHost")
        found["pipelined"] = statuses(await said(port, pipelined))
    assert [name for name, all_ in found.items() if refused_once(all_)] == []
    assert "/smuggled" in service.seen


@pytest.mark.parametrize("name", WHOLE)
async def test_right_framing_is_answered(echo: tuple[Echo, int], name: str) -> None:
    """The door is no wall."""
    service, port = echo
    sent = WHOLE[name]().replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n", 1)
    answer = await said(port, sent)
    assert statuses(answer) == [200]
    assert b"hi" in answer or b"here" in answer
    # A trailer is no header: it would come after every check that headers have passed.
    assert b'"late":"1"' not in answer
    assert len(service.seen) == 1


async def test_what_comes_before_the_answer_is_dropped(echo: tuple[Echo, int]) -> None:
    """Of two whole requests at once the first is answered and the connection ends."""
    service, port = echo
    assert statuses(await said(port, post(b"Content-Length: 2", body=b"hi") + SMUGGLED)) == [200]
    assert statuses(await said(port, chunked(b"2\r\nhi\r\n0\r\n\r\n") + b"noise\r\n\r\n")) == [200]
    assert service.seen == ["/echo", "/echo"]


async def test_connection_is_used_again(echo: tuple[Echo, int]) -> None:
    """One request after the other, each with its answer."""
    _, port = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(get())
        answer = await reader.readuntil(b'"here"')
        assert statuses(answer) == [200]
    writer.close()


async def test_refusal_is_a_problem_and_is_counted(echo: tuple[Echo, int]) -> None:
    """In the form of all errors, with an id; nothing of what was sent is repeated."""
    service, port = echo
    answer = await said(port, get(b"GET /Erika HTTP/1.1", b"Host: Mustermann", b"Host: b"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"x-request-id: " in head.lower()
    assert b"urn:healthguard:problem:invalid-request" in body
    assert b"Erika" not in answer
    assert b"Mustermann" not in answer
    metrics = await said(port, get(b"GET /metrics HTTP/1.0"))
    assert b'healthguard_requests_refused_total{problem="invalid-request"} 1.0' in metrics
    assert service.seen == []
