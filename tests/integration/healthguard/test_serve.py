"""A service as a process: it leaves in order, and believes nobody about where a request came from."""

import asyncio
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

# A service whose one request ends when a file appears: the test decides when, no clock does.
SERVICE = """
    import asyncio, sys, uvicorn
    from contextlib import asynccontextmanager
    from pathlib import Path
    from fastapi import FastAPI, Request
    from healthguard import http, serve
    from healthguard.health import Health
    from healthguard.metrics import HttpMetrics
    from healthguard.settings import Settings

    health = Health("test")

    @asynccontextmanager
    async def lifespan(app):
        health.started = True
        yield

    app = FastAPI(lifespan=lifespan)
    http.install(app, health, HttpMetrics())

    @app.get("/wait")
    async def wait():
        print("in flight", flush=True)
        while not Path(sys.argv[2]).exists():
            await asyncio.sleep(0.01)

    @app.get("/peer")
    async def peer(request: Request) -> str:
        return request.client.host

    if sys.argv[3] == "ours":
        serve.serve(app, Settings(port=int(sys.argv[1]), drain_s=1.0))
    else:
        uvicorn.run(app, port=int(sys.argv[1]), log_config=None)
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until_status(client: httpx.AsyncClient, path: str, status: int | None, within_s: float = 20) -> None:
    """Poll until *path* answers *status*, or refuses the connection where that is None."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                found: int | None = (await client.get(path)).status_code
            except httpx.TransportError:
                found = None
            if found == status:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def service(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start the service under the server that the test names; yield the process and its address."""
    port, gate = free_port(), str(tmp_path / "gate")
    code = textwrap.dedent(SERVICE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(port), gate, request.param, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # or its pipe is closed by the collector, with a warning


@pytest.mark.parametrize("service", ["ours"], indirect=True)
async def test_service_drains_before_it_stops(service: tuple[asyncio.subprocess.Process, str], tmp_path: Path) -> None:
    """After SIGTERM it says 503 while it still serves, closes, lets the request in flight finish, and exits with 0."""
    process, url = service
    assert process.stdout
    async with httpx.AsyncClient(base_url=url, timeout=30) as client, httpx.AsyncClient(base_url=url) as prober:
        await until_status(prober, "/readyz", 200)
        in_flight = asyncio.create_task(client.get("/wait"))
        while b"in flight" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        await until_status(prober, "/readyz", 503)
        assert (await prober.get("/livez")).status_code == 200
        await until_status(prober, "/readyz", None)
        assert not in_flight.done()
        (tmp_path / "gate").touch()
        assert (await in_flight).status_code == 200
    assert await asyncio.wait_for(process.wait(), 20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("service", ["uvicorn alone"], indirect=True)
async def test_server_that_does_not_drain_is_caught(service: tuple[asyncio.subprocess.Process, str]) -> None:
    """The mutant of the test above: uvicorn alone closes its listener and never says that it is leaving."""
    process, url = service
    async with httpx.AsyncClient(base_url=url) as prober:
        await until_status(prober, "/readyz", 200)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await until_status(prober, "/readyz", 503, within_s=3)


@pytest.mark.parametrize(
    ("service", "peer"), [("ours", "127.0.0.1"), ("uvicorn alone", "192.0.2.7")], indirect=["service"]
)
async def test_peer_is_who_connected(service: tuple[asyncio.subprocess.Process, str], peer: str) -> None:
    """A client cannot choose its own address by a header; uvicorn alone believes any local peer (the mutant)."""
    _, url = service
    async with httpx.AsyncClient(base_url=url) as client:
        await until_status(client, "/readyz", 200)
        assert (await client.get("/peer", headers={"X-Forwarded-For": "192.0.2.7"})).json() == peer
