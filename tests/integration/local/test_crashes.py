"""Every process is killed while predictions run: nothing acknowledged is lost, and nobody gets a wrong word."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from healthguard.local.stack import ROOT
from healthguard.local.supervisor import Service
from tests.integration.local import crashes
from tests.integration.local.product import running

ROUNDS = int(os.environ.get("HEALTHGUARD_CRASH_ROUNDS", "1"))

pytestmark = pytest.mark.timeout(180 + 120 * ROUNDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for a product, with a short name."""
    with tempfile.TemporaryDirectory(prefix="hg-crash-") as name:
        yield Path(name)


async def test_crashes_lose_nothing_that_was_acknowledged(folder: Path) -> None:
    """The client sees stored predictions or problems with Retry-After; all that was stored is in the database."""
    async with running(folder) as product:
        findings = await crashes.kill_each(product, rounds=ROUNDS)
        missing = await asyncio.to_thread(crashes.lost, product, findings)
    assert findings.wrong == []
    assert missing == set()
    assert set(findings.unreachable) <= {"gateway"}
    assert len(findings.stored) >= ROUNDS * len(crashes.VICTIMS) * crashes.CLIENTS * crashes.GOOD_AFTER


def _hasty(service: Service) -> Service:
    """Start the gateway that answers before it saves in place of the real one."""
    if service.plan.name != "gateway":
        return service
    command = service.command()
    argv = (*command.argv[:-1], "tests.integration.local.hasty_gateway")
    return replace(service, command=partial(replace, command, argv=argv, folder=ROOT))


async def test_crashes_find_a_gateway_that_answers_too_early(folder: Path) -> None:
    """The test above can fail: with an answer before the save, the death of records loses predictions."""
    async with running(folder, change=_hasty) as product:
        in_peace = await crashes.predict_in_peace(product, count=4)
        async with asyncio.timeout(20):  # it does save, only too late
            while await asyncio.to_thread(crashes.lost, product, in_peace):
                await asyncio.sleep(0.1)
        findings = await crashes.kill_each(product, rounds=1, victims=("records",))
        missing = await asyncio.to_thread(crashes.lost, product, findings)
    assert in_peace.stored
    assert in_peace.wrong == findings.wrong == []
    assert missing
