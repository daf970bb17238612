"""`python -m records` as a deployment runs it: it starts, drains, and tells nobody what it should keep."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from records.settings import RecordsSettings
from tests.factories import GATEWAY_SECRET, model_answer
from tests.integration.records.service import FROM_GATEWAY
from tests.issuer import Issuer
from tests.listening import listening

ROOT = Path(__file__).parents[3]
READY_S = 60.0
SECRETS = {
    "filename": "canary-filename.png",
    "patient": "canary-patient-4711",
    "recommendation": "canary-recommendation",
    "score": 0.123454321,
}


@dataclass
class Surroundings:
    """What the service speaks to beside its database, and what they were sent."""

    issuer: Issuer
    traces: bytearray = field(default_factory=bytearray)

    def app(self) -> FastAPI:
        """Return auth's keys and a collector of traces in one."""
        app = FastAPI()

        @app.get("/jwks.json")
        async def jwks() -> dict[str, Any]:
            return self.issuer.jwks()

        @app.post("/v1/traces")
        async def collect(request: Request) -> None:
            self.traces.extend(await request.body())

        return app


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def process_of(
    settings: RecordsSettings, beside: str
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    """Run the service as a process for the block; yield a client of it once it is ready."""
    port = free_port()
    environment = {
        "RECORDS_DSN": settings.dsn.get_secret_value(),
        "RECORDS_JWKS_URL": f"{beside}/jwks.json",
        "RECORDS_OTLP_ENDPOINT": f"{beside}/v1/traces",
        "RECORDS_GATEWAY_SECRET": GATEWAY_SECRET,
        "RECORDS_PSEUDONYM_KEY": settings.pseudonym_key.get_secret_value(),
        "RECORDS_PORT": str(port),
        "RECORDS_LOG_LEVEL": "DEBUG",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "records"),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await until_ready(client, process)
            yield client, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    """Return when all that the service needs answers."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            if (await client.get("/health/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.returncode is None, "the service ended"
        assert time.monotonic() < deadline, "the service did not become ready"
        await asyncio.sleep(0.05)


async def use_everything(client: httpx.AsyncClient, issuer: Issuer) -> list[str]:
    """Make good and bad requests with secrets in every place, and return more secrets: ids, cursors and tokens."""
    token = issuer.token("doctor")
    doctor = {"Authorization": f"Bearer {token}"}
    made = [
        (await client.post("/v1/predictions", json=model_answer(**SECRETS), headers=doctor | FROM_GATEWAY)).json()
        for _ in range(2)
    ]
    page = (await client.get("/v1/predictions?limit=1&outcome=canary-outcome", headers=doctor)).json()
    assert page["items"] == []
    page = (await client.get("/v1/predictions?limit=1", headers=doctor)).json()
    await client.get(f"/v1/predictions?cursor={page['next_cursor']}", headers=doctor)
    await client.get("/v1/predictions?cursor=canary-cursor", headers=doctor)
    await client.get("/canary-path?canary-query=1", headers=doctor)
    await client.get(f"/v1/predictions/{made[0]['id']}", headers=doctor)
    await client.put(f"/v1/predictions/{made[0]['id']}", json={"filename": "canary\n-filename"}, headers=doctor)
    await client.post("/v1/predictions/search", json={"patient": SECRETS["patient"]}, headers=doctor)
    await client.post("/v1/predictions", content=b'{"canary', headers=doctor | FROM_GATEWAY)
    await client.post("/v1/predictions", json=model_answer(score="canary-score"), headers=doctor | FROM_GATEWAY)
    return [token, GATEWAY_SECRET, page["next_cursor"], made[0]["id"], made[0]["patient"], made[0]["image_hmac"]]


@pytest.mark.usefixtures("empty_tables")
async def test_process_drains_and_tells_no_secret(settings: RecordsSettings, issuer: Issuer) -> None:
    """Logs are JSON lines with the agreed fields; no secret is in them, in traces or in metrics; SIGTERM ends it."""
    surroundings = Surroundings(issuer)
    async with (
        listening(surroundings.app()) as beside,
        process_of(settings, beside) as (client, process),
    ):
        secrets = await use_everything(client, issuer)
        metrics = (await client.get("/metrics")).text
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode in {0, -signal.SIGTERM}
    told = output.decode() + surroundings.traces.decode("latin-1") + metrics
    assert "POST /v1/predictions" in surroundings.traces.decode("latin-1")
    for secret in ["canary", "0.123454321", *secrets]:
        assert secret not in told
    for line in output.decode().splitlines():
        assert {"timestamp", "level", "service", "message"} <= json.loads(line).keys()
