"""The way to PostgreSQL on a real server: what may write, and what ends in time."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from healthguard.database import open_database
from healthguard.problems import Unavailable
from healthguard.settings import DatabaseSettings
from tests.postgres import Postgres

HANG_S = 10.0
"""Beyond this a transaction hangs; the machine may be busy."""


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> str:
    """Return the address of an empty database."""
    return postgres.create_database("plain")


@pytest.fixture
def settings(dsn: str) -> DatabaseSettings:
    """Return settings whose limits no test here meets by accident."""
    return DatabaseSettings(
        dsn=dsn, pool_size=1, connect_timeout_s=HANG_S, statement_timeout_s=30.0, transaction_timeout_s=30.0
    )


async def insert_and_raise(session: AsyncSession) -> None:
    """Write something, and fail after it."""
    await session.execute(text("INSERT INTO notes VALUES ('gone')"))
    raise LookupError


async def test_transaction_that_ends_is_there_and_one_that_raises_is_not(settings: DatabaseSettings) -> None:
    """The end of the block commits; an error rolls back, and reaches the caller as it is."""
    async with open_database(settings, "test") as database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE notes (note text)"))
        with pytest.raises(LookupError):
            async with database.write() as session:
                await insert_and_raise(session)
        async with database.write() as session:
            await session.execute(text("INSERT INTO notes VALUES ('there')"))

        async with database.read() as session:
            assert (await session.execute(text("SELECT note FROM notes"))).scalars().all() == ["there"]


async def test_reading_transaction_cannot_write(settings: DatabaseSettings) -> None:
    """Who asked to read is refused by the database when it writes, and that is a fault of ours: no 503."""
    async with open_database(settings, "test") as database:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            async with database.read() as session:
                await session.execute(text("CREATE TABLE never (made int)"))


async def test_connections_carry_the_service_and_its_parameters(settings: DatabaseSettings) -> None:
    """An administrator sees whose connection it is, and records' way of committing holds on each."""
    expected = {"application_name": "healthguard-test", "synchronous_commit": "remote_apply"}
    async with (
        open_database(settings, "test", synchronous_commit="remote_apply") as database,
        database.read() as session,
    ):
        shown = {name: (await session.execute(text(f"SHOW {name}"))).scalar_one() for name in expected}

    assert shown == expected


async def test_silent_database_is_cut_at_the_deadline(settings: DatabaseSettings) -> None:
    """A statement that the database does not end is ended here, and the pool is whole afterwards."""
    hurried = settings.model_copy(update={"transaction_timeout_s": 0.3})
    async with open_database(hurried, "test") as database:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(HANG_S), database.read() as session:
                await session.execute(text("SELECT pg_sleep(20)"))

        assert database.connections_in_use() == 0
        await database.check()


async def test_slow_statement_is_cancelled_by_the_database(settings: DatabaseSettings) -> None:
    """A statement beyond its time is a 503's problem, not a hang."""
    hurried = settings.model_copy(update={"statement_timeout_s": 0.2})
    async with open_database(hurried, "test") as database:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(HANG_S), database.read() as session:
                await session.execute(text("SELECT pg_sleep(20)"))


async def test_full_pool_is_not_waited_for_long(settings: DatabaseSettings) -> None:
    """Who gets no connection in time is told so; who has one goes on."""
    hurried = settings.model_copy(update={"pool_wait_s": 0.1})
    async with open_database(hurried, "test") as database, database.read() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(Unavailable):
            async with asyncio.timeout(HANG_S):
                await database.check()
        assert database.connections_in_use() == 1


async def test_connection_that_the_database_closed_is_replaced(settings: DatabaseSettings, postgres: Postgres) -> None:
    """After the database dropped it, the next transaction gets a new one and no error."""
    drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'healthguard-dropped'"
    async with open_database(settings, "dropped") as database:
        async with database.read() as session:
            raw = await (await session.connection()).get_raw_connection()
            driver: Any = raw.driver_connection
        await asyncio.to_thread(postgres.cluster.run_sql, drop)
        async with asyncio.timeout(HANG_S):
            while not driver.is_closed():
                await asyncio.sleep(0.01)

        await database.check()
