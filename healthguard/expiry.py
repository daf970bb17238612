"""Idempotency keys are forgotten once their life is over; without this their tables would grow for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol, TypeVar

import structlog

log = structlog.get_logger()

INTERVAL_S = 600.0


BATCH = 10_000
"""Keys removed in one transaction: a second's work at most, within a statement's time."""

Session = TypeVar("Session")
Session_co = TypeVar("Session_co", covariant=True)


class Transactions(Protocol[Session_co]):
    """What opens transactions: `healthguard.database` for the services, which services alone may import."""

    def write(self) -> AbstractAsyncContextManager[Session_co]:
        """Open one that commits when its block ends."""


Forget = Callable[[Session, int], Awaitable[int]]
"""Removes keys whose life is over, so many at most, in a transaction; returns how many."""


async def forget_keys(database: Transactions[Session], forget: Forget[Session], batch: int = BATCH) -> int:
    """
    Remove all keys whose life is over, in short transactions of *batch* keys; return how many.

    Raises:
        Unavailable: the database is.
    """
    removed = last = await _forget_some(database, forget, batch)
    while last == batch:
        last = await _forget_some(database, forget, batch)
        removed += last
    return removed


async def _forget_some(database: Transactions[Session], forget: Forget[Session], limit: int) -> int:
    async with database.write() as session:
        return await forget(session, limit)


async def forget_keys_forever(database: Transactions[Session], forget: Forget[Session], interval_s: float) -> None:
    """Do so every *interval_s* seconds until cancelled; whatever goes wrong, it is tried again the next time."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            log.info("idempotency_keys_forgotten", count=await forget_keys(database, forget))
        except Exception as exc:
            # Were the task to end here, the table would grow from then on and nobody would know.
            log.warning("idempotency_keys_not_forgotten", exception=type(exc).__qualname__)


@asynccontextmanager
async def forgetting_keys(database: Transactions[Session], forget: Forget[Session]) -> AsyncIterator[None]:
    """Do so beside the block, and end with it."""
    task = asyncio.create_task(forget_keys_forever(database, forget, INTERVAL_S))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
