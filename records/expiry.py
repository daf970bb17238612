"""Idempotency keys are forgotten once their life is over; without this their table would grow for ever."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from healthguard.database import Database
from healthguard.problems import Unavailable
from records import store

log = structlog.get_logger()

INTERVAL_S = 600.0


async def forget_keys(database: Database, life: timedelta) -> int:
    """
    Remove the keys whose life is over, in one short transaction; return how many.

    Raises:
        Unavailable: the database is.
    """
    async with database.write() as session:
        return await store.forget_keys(session, datetime.now(UTC) - life)


async def forget_keys_forever(database: Database, life: timedelta, interval_s: float = INTERVAL_S) -> None:
    """Do so every *interval_s* seconds until cancelled; a database that is away is asked again the next time."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            log.info("idempotency_keys_forgotten", count=await forget_keys(database, life))
        except Unavailable:
            continue
