"""Idempotency keys are forgotten after their life, and only then."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from healthguard.database import open_database
from records.expiry import forget_keys, forget_keys_forever
from records.settings import Settings
from tests.integration.records.service import records_settings, save
from tests.issuer import Issuer

DAY = timedelta(hours=24)


async def test_old_keys_are_forgotten_and_their_records_stay(
    client: httpx.AsyncClient, issuer: Issuer, settings: Settings, database: Any
) -> None:
    """The table of keys does not grow for ever; no record goes with them."""
    me = issuer.authorization()
    for key in ("old", "new"):
        await save(client, me, key)
    await database.execute("update idempotency_keys set created_at = now() - interval '25 h' where key = 'old'")

    async with open_database(settings, "records") as opened:
        assert await forget_keys(opened, DAY) == 1

    assert await database.fetch("select key from idempotency_keys") == [("new",)]
    assert await database.fetchval("select count(*) from predictions") == 2


async def test_forgetting_goes_on_after_the_database_was_away(tmp_path: Any) -> None:
    """A failure is no end: the next time it is tried again."""
    away = records_settings(f"postgresql://records@/records?host={tmp_path}")
    async with open_database(away, "records") as opened:
        task = asyncio.create_task(forget_keys_forever(opened, DAY, interval_s=0.001))
        done, _ = await asyncio.wait({task}, timeout=0.5)
        task.cancel()

    assert not done
    with pytest.raises(asyncio.CancelledError):
        await task
