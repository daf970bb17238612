"""
Kill processes of a product while a client predicts, and tell afterwards what the client was told and what is stored.

The gateway is the door: while it is down itself, nothing can answer, and a refused or broken connection is neither a
prediction nor a problem. It counts apart, and only during the gateway's own death is it allowed.
"""

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import httpx
import numpy as np
from PIL import Image

from healthguard.local.lifecycle import Phase
from healthguard.local.stack import Stack
from models import artifact
from tests.integration.local.product import Product

CLIENTS = 2
GOOD_BEFORE = 4
GOOD_AFTER = 6
RECOVERY_S_MAX = 60.0
REQUEST_S_MAX = 30.0
VICTIMS = ("postgres", "modelserver", "auth", "records", "gateway")


@dataclass
class Findings:
    """What a client saw while processes were killed."""

    stored: dict[str, str] = field(default_factory=dict)
    """Predictions that were answered with 201: the picture's hash, and the prediction's id."""
    problems: int = 0
    """Refusals as they must be: problem+json with Retry-After."""
    unreachable: list[str] = field(default_factory=list)
    """Victims during whose death a connection failed."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are neither."""

    def take(self, victim: str, answer: httpx.Response) -> bool:
        """Count an answer; tell whether it is a stored prediction."""
        if answer.status_code == 201:
            found = answer.json()
            if found["image_hmac"] in self.stored:
                self.wrong.append(f"{victim}: the answer is about another picture")
            self.stored[found["image_hmac"]] = found["id"]
            return True
        proper = answer.headers["content-type"] == "application/problem+json" and "Retry-After" in answer.headers
        if answer.status_code >= 500 and proper:
            self.problems += 1
        else:
            self.wrong.append(f"{victim}: {answer.status_code} {answer.text[:200]}")
        return False


def pictures(stack: Stack, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield a model's name and a picture for it, never the same twice: a golden case with a few pixels changed."""
    random = np.random.default_rng(seed + 1)
    golden = [
        (model.name, np.asarray(Image.open(artifact.golden(model.base_path / str(model.stable)).cases[0].path)))
        for model in stack.served
    ]
    while True:
        for name, pixels in golden:
            changed = pixels.copy()
            changed[:8, :8] = random.integers(0, 256, changed[:8, :8].shape, dtype=np.uint8)
            out = io.BytesIO()
            Image.fromarray(changed).save(out, "PNG", compress_level=1)
            yield name, out.getvalue()


async def kill_each(product: Product, *, rounds: int, victims: tuple[str, ...] = VICTIMS) -> Findings:
    """Kill every victim in turn, *rounds* times, under the load of clients that do not retry."""
    findings = Findings()
    for round_number in range(rounds):
        for number, victim in enumerate(victims):
            await _kill(product, victim, findings, seed=round_number * len(victims) + number)
    return findings


async def predict_in_peace(product: Product, count: int) -> Findings:
    """Predict without killing anything."""
    findings = Findings()
    headers = {"Authorization": f"Bearer {product.token}"}
    async with httpx.AsyncClient(base_url=product.stack.url, headers=headers, timeout=REQUEST_S_MAX) as http:
        for model, picture in islice(pictures(product.stack, seed=-1), count):
            findings.take("nobody", await _post(http, model, picture))
    return findings


async def _post(http: httpx.AsyncClient, model: str, picture: bytes) -> httpx.Response:
    files = {"file": ("picture.png", picture, "image/png")}
    return await http.post(f"/api/v1/models/{model}/predictions", files=files)


async def _kill(product: Product, victim: str, findings: Findings, *, seed: int) -> None:
    """Kill *victim* in the middle of predictions, and go on until enough of them were good again."""
    before = asyncio.Semaphore(0)
    killed = asyncio.Event()
    clients = [
        asyncio.create_task(_predict(product, victim, findings, before, killed, seed=seed * CLIENTS + number))
        for number in range(CLIENTS)
    ]
    try:
        async with asyncio.timeout(RECOVERY_S_MAX):
            for _ in range(GOOD_BEFORE):
                await before.acquire()
            pid = product.supervisor.pid(victim)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed.set()
            await asyncio.gather(*clients)
            while product.supervisor.states[victim].phase is not Phase.READY:
                await asyncio.sleep(0.05)
        assert product.supervisor.pid(victim) != pid
    finally:
        for client in clients:
            client.cancel()


async def _predict(
    product: Product,
    victim: str,
    findings: Findings,
    before: asyncio.Semaphore,
    killed: asyncio.Event,
    *,
    seed: int,
) -> None:
    """Predict one picture after the other until enough were stored after the kill."""
    headers = {"Authorization": f"Bearer {product.token}"}
    good_after = 0
    async with httpx.AsyncClient(base_url=product.stack.url, headers=headers, timeout=REQUEST_S_MAX) as http:
        for model, picture in pictures(product.stack, seed):
            try:
                answer = await _post(http, model, picture)
            except httpx.TransportError:
                findings.unreachable.append(victim)
            else:
                good = findings.take(victim, answer)
                before.release()
                good_after += good and killed.is_set()
            if good_after >= GOOD_AFTER:
                return
            # A client that is refused waits; without the pause one client would only count refusals.
            await asyncio.sleep(0.02)


def lost(product: Product, findings: Findings) -> set[str]:
    """
    Return the pictures whose prediction was answered with 201 and is not in the database.

    They are told apart by their hash, not by the prediction's id: a gateway that makes ids up is no subject here.
    """
    found = product.stack.cluster().run_sql("SELECT image_hmac FROM predictions", database="records")
    return set(findings.stored) - set(found.split())
