"""Idempotency keys are forgotten once their life is over; without this their table would grow for ever."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from healthguard.database import Database
from records import store

log = structlog.get_logger()

INTERVAL_S = 600.0


BATCH = 10_000
"""Keys removed in one transaction: a second's work at most, within a statement's time."""


async def forget_keys(database: Database, life: timedelta, batch: int = BATCH) -> int:
    """
    Remove all keys whose life is over, in short transactions of *batch* keys; return how many.

    Raises:
        Unavailable: the database is.
    """
    before = datetime.now(UTC) - life
    removed = last = await _forget_some(database, before, batch)
    while last == batch:
        last = await _forget_some(database, before, batch)
        removed += last
    return removed


async def _forget_some(database: Database, before: datetime, limit: int) -> int:
    async with database.write() as session:
        return await store.forget_keys(session, before, limit)


async def forget_keys_forever(database: Database, life: timedelta, interval_s: float = INTERVAL_S) -> None:
    """Do so every *interval_s* seconds until cancelled; whatever goes wrong, it is tried again the next time."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            log.info("idempotency_keys_forgotten", count=await forget_keys(database, life))
        except Exception as exc:
            # Were the task to end here, the table would grow from then on and nobody would know.
            log.warning("idempotency_keys_not_forgotten", exception=type(exc).__qualname__)
