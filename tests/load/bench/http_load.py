# ruff: noqa: T201 - a command's answer
"""
Closed-loop load over HTTP: `python -m tests.load.bench.http_load PORT PATH STATUS JPEGS`, the token in the environment.

Reads lines of `CONCURRENCY SECONDS`, and answers each with a line of JSON, as closed_loop.py does. Each caller is one
connection that sends one form after the other. Requests are made beforehand and answers are only measured by their
Content-Length: what the generator takes of the machine, the gateway does not have.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

from tests.load.bench.jpegs import Jpegs

TIMEOUT_S = 30.0
TOKEN = "BENCH_TOKEN"
_BOUNDARY = b"between-the-parts"
_BEFORE = (
    b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="picture.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
)
_AFTER = b"\r\n--" + _BOUNDARY + b"--\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass
class Forms:
    """Whole requests, as the pieces that a socket sends one after the other."""

    path: str
    token: str
    jpegs: Jpegs
    _heads: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Write the head of each request: they differ in the length of the body."""
        for pieces in self.jpegs.pieces:
            length = len(_BEFORE) + sum(map(len, pieces)) + len(_AFTER)
            self._heads.append(
                f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\n"
                f"Accept: application/json\r\nContent-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n"
                f"Content-Length: {length}\r\n\r\n".encode()
                + _BEFORE
            )

    def next(self) -> tuple[bytes, ...]:
        """Return a request with a picture that was not sent before."""
        place, *pieces = self.jpegs.next()
        return (self._heads[place], *pieces, _AFTER)


@dataclass
class Ended:
    """How requests ended."""

    status: bytes
    took: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, answer: bytes, seconds: float) -> None:
        """Account for one whole answer."""
        if (status := answer[9:12]) == self.status:
            self.took.append(seconds)
        else:
            self.errors[status.decode("latin-1")] += 1


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for its answer, until the time is over."""

    def __init__(self, forms: Forms, ended: Ended, until: float) -> None:
        self._forms = forms
        self._ended = ended
        self._until = until
        self._answer = b""
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._answer, self._sent_at = b"", time.perf_counter()
        if self._sent_at < self._until:
            self._transport.writelines(self._forms.next())
        else:
            self.done.set_result(None)
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Once the answer is whole, note it and send the next request."""
        self._answer += data
        head = self._answer.find(b"\r\n\r\n") + 4
        if head < 4 or (length := _LENGTH.search(self._answer, 0, head)) is None:
            return
        if len(self._answer) >= head + int(length[1]):
            self._ended.note(self._answer, time.perf_counter() - self._sent_at)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note where the server ended the connection; this caller then sends no more."""
        if not self.done.done():
            self._ended.errors["closed"] += 1
            self.done.set_result(None)


async def load(port: int, forms: Forms, status: str, concurrency: int, seconds: float) -> dict[str, object]:
    """Call for some seconds; return rates, latencies and errors by status."""
    loop, ended = asyncio.get_running_loop(), Ended(status.encode())
    cpu, started = time.process_time(), time.perf_counter()
    callers = []
    for _ in range(concurrency):
        _, caller = await loop.create_connection(lambda: Caller(forms, ended, started + seconds), "127.0.0.1", port)
        callers.append(caller.done)
    async with asyncio.timeout(seconds + TIMEOUT_S):
        await asyncio.gather(*callers)
    elapsed = time.perf_counter() - started
    took = ended.took or [0.0]
    return {
        "requests": len(ended.took),
        "rps": len(ended.took) / elapsed,
        "p50_ms": float(np.percentile(took, 50)) * 1e3,
        "p99_ms": float(np.percentile(took, 99)) * 1e3,
        "errors": dict(ended.errors),
        "generator_cpu_ms": (time.process_time() - cpu) / max(1, len(ended.took)) * 1e3,
    }


def main(port: int, path: str, status: str, jpegs: Path) -> None:
    """Answer one line with another."""
    forms = Forms(path, os.environ[TOKEN], Jpegs.read(jpegs))
    print("ready", flush=True)
    for line in sys.stdin:
        concurrency, seconds = line.split()
        print(json.dumps(uvloop.run(load(port, forms, status, int(concurrency), float(seconds)))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
