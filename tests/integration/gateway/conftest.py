"""
The gateway in two ways.

With every service as a process of its own (`stack`, `client`); and in this process, with a fake model server and the
real records (`door`), where a test needs its hand on what goes wrong.
"""

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.app import create_app
from gateway.settings import GatewaySettings
from records.app import create_app as create_records
from records.settings import RecordsSettings
from tests.factories import GATEWAY_SECRET, contract, risk_contract
from tests.fakes import FakeModelServer
from tests.integration.gateway.stack import Stack, base64_key, running
from tests.issuer import Issuer
from tests.listening import listening

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="session")
def stack(auth_dsn: str, records_dsn: str) -> Iterator[Stack]:
    """Run all services for the session (once a worker under xdist)."""
    # Short, since a unix socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="hg-gw-"))
    try:
        with running(folder, auth_dsn, records_dsn) as found:
            yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client with the token of a patient whom nobody else is."""
    with stack.client(stack.token()) as found:
        yield found


@dataclass
class Door:
    """A gateway in this process, its issuer of tokens, its fake model servers and its client, who sends no token."""

    issuer: Issuer
    cancer: FakeModelServer
    anemia: FakeModelServer
    url: str
    client: httpx.AsyncClient
    settings: GatewaySettings

    def authorization(self, **claims: Any) -> dict[str, str]:
        """Return the header of a new patient, or of whom the claims name."""
        return self.issuer.authorization(**claims)

    async def predict(self, content: bytes, model: str = "cancer", **headers: str) -> httpx.Response:
        """Make a prediction as a new patient."""
        return await self.client.post(
            f"/api/v1/models/{model}/predictions",
            files={"file": ("picture.jpg", content)},
            headers=self.authorization() | headers,
        )

    async def ready(self) -> dict[str, Any]:
        """Return what /health/ready says."""
        found: dict[str, Any] = (await self.client.get("/health/ready")).json()
        return found


@dataclass
class Building:
    """Opens doors; what it opened closes after the test."""

    folder: Path
    records_dsn: str
    stack: AsyncExitStack
    issuer: Issuer = field(default_factory=Issuer)

    async def auth(self) -> str:
        """Serve the issuer's keys, as auth does; return the address."""

        async def jwks(_request: Request) -> JSONResponse:
            return JSONResponse(self.issuer.jwks())

        return await self.stack.enter_async_context(
            listening(Starlette(routes=[Route("/.well-known/jwks.json", jwks)]))
        )

    async def records(self, auth_url: str) -> str:
        """Serve the real records on the real database; return the address."""
        settings = RecordsSettings(
            dsn=SecretStr(self.records_dsn),
            jwks_url=auth_url + "/.well-known/jwks.json",
            gateway_secret=SecretStr(GATEWAY_SECRET),
            pseudonym_key=SecretStr(KEY),
            pool_size=2,
        )
        return await self.stack.enter_async_context(listening(create_records(settings)))

    async def model(self, document: dict[str, Any]) -> FakeModelServer:
        """Run a fake model server."""
        return await self.stack.enter_async_context(FakeModelServer(document))

    async def door(
        self,
        *,
        records_url: str | None = None,
        more_cancer: tuple[FakeModelServer, ...] = (),
        cancer_contract: dict[str, Any] | None = None,
        cancer_traffic: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Door:
        """Open a gateway and wait until its models are available."""
        auth_url = await self.auth()
        cancer, anemia = await self.model(cancer_contract or contract()), await self.model(risk_contract())
        endpoints = {"cancer": [cancer, *more_cancer], "anemia": [anemia]}
        models = [
            {"name": name, "stable": 1, "endpoints": [server.address for server in servers]}
            for name, servers in endpoints.items()
        ]
        models[0] |= cancer_traffic or {}
        models_file = self.folder / "models.json"
        models_file.write_text(json.dumps({"models": models}))
        values = {
            "auth_url": auth_url,
            "records_url": records_url or await self.records(auth_url),
            "models_file": models_file,
            "records_secret": GATEWAY_SECRET,
            "image_hmac_key": base64_key(),
            "status_interval_s": 0.2,
            # Every picture is asked, unless a test is about answers that are kept.
            "answers_kept_max": 0,
        }
        found = GatewaySettings.model_validate(values | settings)
        url = await self.stack.enter_async_context(listening(create_app(found)))
        client = await self.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        door = Door(self.issuer, cancer, anemia, url, client, found)
        await until_available(door)
        return door


async def until_available(door: Door, name: str = "cancer") -> None:
    """Return when the gateway can ask a model."""
    async with asyncio.timeout(60):
        while not (await door.client.get(f"/api/v1/models/{name}", headers=door.authorization())).json()["available"]:
            await asyncio.sleep(0.01)


@pytest.fixture
async def building(tmp_path: Path, records_dsn: str) -> AsyncIterator[Building]:
    """Return what opens doors for one test."""
    async with AsyncExitStack() as stack:
        yield Building(tmp_path, records_dsn, stack)


@pytest.fixture
async def door(building: Building) -> Door:
    """Return a gateway with the usual settings."""
    return await building.door()
