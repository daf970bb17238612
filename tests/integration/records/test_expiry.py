"""Idempotency keys are forgotten after their life, and only then."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
import structlog

from healthguard import expiry
from healthguard.database import open_database
from healthguard.expiry import forget_keys, forget_keys_forever
from records import store
from records.settings import RecordsSettings
from tests.asgi import client_of
from tests.integration.records.service import records_app, records_settings, save
from tests.issuer import Issuer
from tests.postgres import Postgres

OLD = partial(store.forget_keys, timedelta(hours=24))


async def test_old_keys_are_forgotten_and_their_records_stay(
    client: httpx.AsyncClient, issuer: Issuer, settings: RecordsSettings, database: Any
) -> None:
    """The table of keys does not grow for ever; no record goes with them."""
    me = issuer.authorization()
    for key in ("old", "new"):
        await save(client, me, key)
    await database.execute("update idempotency_keys set created_at = now() - interval '25 h' where key = 'old'")

    async with open_database(settings, "records") as opened:
        assert await forget_keys(opened, OLD) == 1

    assert await database.fetch("select key from idempotency_keys") == [("new",)]
    assert await database.fetchval("select count(*) from predictions") == 2


async def test_forgetting_goes_on_until_no_old_key_is_left(
    client: httpx.AsyncClient, issuer: Issuer, settings: RecordsSettings, database: Any
) -> None:
    """More than one transaction takes: otherwise a busy installation makes keys faster than they are removed."""
    me = issuer.authorization()
    for number in range(5):
        await save(client, me, f"old-{number}")
    await database.execute("update idempotency_keys set created_at = now() - interval '25 h'")

    async with open_database(settings, "records") as opened:
        assert await forget_keys(opened, OLD, batch=2) == 5

    assert await database.fetchval("select count(*) from idempotency_keys") == 0


async def test_service_forgets_old_keys_by_itself(
    issuer: Issuer, settings: RecordsSettings, database: Any, empty_tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody need send another key for it."""
    monkeypatch.setattr(expiry, "INTERVAL_S", 0.01)
    async with client_of(records_app(settings, issuer)) as client:
        await save(client, issuer.authorization(), "old")
        await database.execute("update idempotency_keys set created_at = now() - interval '25 h'")
        async with asyncio.timeout(20):
            while await database.fetchval("select count(*) from idempotency_keys"):
                await asyncio.sleep(0.01)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End *task* while its database is still open: a connection that is being made must not be left behind."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_forgetting_goes_on_after_a_fault(postgres: Postgres) -> None:
    """Whatever goes wrong, such as a table that is not there yet, is logged by its type and tried again."""
    unmigrated = records_settings(postgres.create_database("records_unmigrated"))
    async with open_database(unmigrated, "records") as opened:
        with structlog.testing.capture_logs() as logged:
            task = asyncio.create_task(forget_keys_forever(opened, OLD, interval_s=0.001))
            async with asyncio.timeout(20):
                while len(logged) < 2 and not task.done():
                    await asyncio.sleep(0.01)
            assert not task.done()
            await cancelled(task)

    fault = {"event": "idempotency_keys_not_forgotten", "exception": "ProgrammingError", "log_level": "warning"}
    assert logged[:2] == [fault, fault]


async def test_forgetting_goes_on_after_the_database_was_away(tmp_path: Any) -> None:
    """A failure is no end: the next time it is tried again."""
    away = records_settings(f"postgresql://records@/records?host={tmp_path}")
    async with open_database(away, "records") as opened:
        task = asyncio.create_task(forget_keys_forever(opened, OLD, interval_s=0.001))
        done, _ = await asyncio.wait({task}, timeout=0.5)
        assert not done
        await cancelled(task)
