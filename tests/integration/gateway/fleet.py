"""Real model servers as processes, and a gateway of this process before them, whose guards a test can take out."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway import app as gateway_app
from gateway.app import create_app
from gateway.served import ServedModel, ServedModels
from gateway.settings import GatewaySettings
from tests import committed
from tests.factories import GATEWAY_SECRET
from tests.integration.gateway.stack import ROOT, base64_key, free_port
from tests.issuer import Issuer
from tests.listening import listening
from tests.pictures import jpeg

WHOLE = bool(os.environ.get("HEALTHGUARD_PROVE"))
"""Whether to run with the numbers that are promised, which take minutes, rather than with small ones."""

WAIT_S = 60.0
PATH = "/api/inference/predict"
"""Stores nothing: what is tested here ends at the model."""


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; fail when it does not in time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


@dataclass
class ModelServer:
    """A process of the real model server with the served version of the model cancer."""

    folder: Path
    flags: Sequence[str] = ()
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with (self.folder / f"model-server-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving.modelserver", f"--port={self.port}", "--model_name=cancer"),
                    *(f"--model_base_path={ROOT / 'models' / 'cancer'}", *self.flags),
                ],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"]},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self.process.kill()
        self.process.wait()


@dataclass
class Gateway:
    """A gateway over model servers."""

    url: str
    http: aiohttp.ClientSession
    headers: dict[str, str]
    served: ServedModels
    models_file: Path

    @property
    def model(self) -> ServedModel:
        """The model cancer, as the gateway has it."""
        return self.served.models["cancer"]

    def serving(self) -> int:
        """Return how many replicas may be asked."""
        return sum(replica.contract is not None for replica in self.model.replicas)

    def answered(self) -> dict[str, int]:
        """Return how many calls each replica has answered."""
        return {replica.endpoint.address: replica.conduct.answers for replica in self.model.replicas}

    def declare(self, *addresses: str) -> None:
        """Serve from these."""
        _write(self.models_file, addresses)

    async def predict(self, seed: int = 0, **headers: str) -> str:
        """Make a prediction; return `answered`, or the problem's type."""
        try:
            async with self.http.post(
                self.url + PATH, data=PICTURES[seed % len(PICTURES)], headers=self.headers | headers
            ) as response:
                if response.status == 200:
                    return "answered"
                kind = str((await response.json())["type"]).rpartition(":")[2]
        except aiohttp.ClientError as exc:
            return type(exc).__qualname__
        # The pictures are no mammograms, and the model says so: that is an answer, too.
        return "answered" if kind == "indeterminate" else kind

    async def load(self, count: int, at_once: int, **headers: str) -> Counter[str]:
        """Make so many predictions, so many at once; count how they ended."""
        seeds = iter(range(count))
        ended: Counter[str] = Counter()

        async def client() -> None:
            for seed in seeds:
                ended[await self.predict(seed, **headers)] += 1

        await asyncio.gather(*(client() for _ in range(at_once)))
        return ended

    @asynccontextmanager
    async def under_load(self, at_once: int) -> AsyncIterator[Counter[str]]:
        """Make predictions without a pause during the block; the counter is whole after it."""
        ended: Counter[str] = Counter()
        going = True

        async def client(seed: int) -> None:
            while going:
                outcome = await self.predict(seed)
                ended[outcome] += 1
                if outcome != "answered":
                    # As told by Retry-After, but sooner.
                    await asyncio.sleep(0.1)

        clients = [asyncio.create_task(client(seed)) for seed in range(at_once)]
        try:
            yield ended
        finally:
            going = False
            await asyncio.gather(*clients)


PICTURES = [jpeg(seed, 224, 224) for seed in range(16)]


def _write(path: Path, addresses: Sequence[str]) -> None:
    new = path.with_suffix(".new")
    new.write_text(
        json.dumps(
            {"models": [{"name": "cancer", "stable": committed.version("cancer"), "endpoints": list(addresses)}]}
        )
    )
    new.rename(path)


@dataclass
class Fleet:
    """Opens gateways over model servers; all of them end after the test."""

    folder: Path
    stack: AsyncExitStack
    monkeypatch: pytest.MonkeyPatch
    issuer: Issuer = field(default_factory=Issuer)

    def servers(self, count: int, *flags: str) -> list[ModelServer]:
        """Start so many model servers."""
        servers = [ModelServer(self.folder, flags) for _ in range(count)]
        for server in servers:
            server.start()
            self.stack.callback(server.kill)
        return servers

    async def gateway(self, *addresses: str, serving: int | None = None, **settings: Any) -> Gateway:
        """Open a gateway, and wait until it can ask so many replicas: all, unless *serving* says how many."""

        async def jwks(_request: Request) -> JSONResponse:
            return JSONResponse(self.issuer.jwks())

        keys = Starlette(routes=[Route("/.well-known/jwks.json", jwks)])
        auth_url = await self.stack.enter_async_context(listening(keys))
        models_file = self.folder / "models.json"
        _write(models_file, addresses)
        values = {
            "auth_url": auth_url,
            "records_url": "http://127.0.0.1:9",
            "models_file": models_file,
            "records_secret": GATEWAY_SECRET,
            "image_hmac_key": base64_key(),
            "answers_kept_max": 0,
            "requests_per_minute": 0,
            "predict_timeout_s": 30.0,
        }
        made: list[ServedModels] = []

        class Seen(ServedModels):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                made.append(self)

        self.monkeypatch.setattr(gateway_app, "ServedModels", Seen)
        url = await self.stack.enter_async_context(
            listening(create_app(GatewaySettings.model_validate(values | settings)))
        )
        http = await self.stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=WAIT_S))
        )
        headers = self.issuer.authorization() | {"Content-Type": "image/jpeg"}
        found = Gateway(url, http, headers, made[0], models_file)
        if addresses or serving is not None:
            wanted = len(addresses) if serving is None else serving
            await until(lambda: "cancer" in found.served.models and found.serving() == wanted)
        return found
