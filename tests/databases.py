"""Fixtures: one PostgreSQL server a session, one database a service, its schema from the migrations."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from healthguard.migrations import alembic_config
from tests import postgres as test_postgres
from tests.postgres import Postgres

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run one PostgreSQL for the whole session (one a worker under xdist)."""
    with test_postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def auth_dsn(postgres: Postgres) -> str:
    """Return the address of auth's database, migrated to its newest schema."""
    return migrated(postgres, "auth")


@pytest.fixture(scope="session")
def records_dsn(postgres: Postgres) -> str:
    """Return the address of records' database, migrated to its newest schema."""
    return migrated(postgres, "records")


@pytest.fixture
async def auth_connection(auth_dsn: str) -> AsyncIterator[AsyncConnection]:
    """
    Yield a connection to auth's database, in an outer transaction that is rolled back after the test.

    Sessions made by `async_sessionmaker(connection, join_transaction_mode="create_savepoint")` commit only a
    savepoint of it. One connection serves one request at a time: a test of parallel requests makes an engine from the
    DSN instead, and keeps apart by values of its own.
    """
    engine = create_async_engine(auth_dsn, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            outer = await connection.begin()
            yield connection
            await outer.rollback()
    finally:
        await engine.dispose()


def migrated(postgres: Postgres, service: str, database: str | None = None) -> str:
    """Create a database for *service* and run its migrations as a deployment does, through Alembic."""
    dsn = postgres.create_database(database or service)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(f"{service.upper()}_DSN", dsn)
        alembic.command.upgrade(alembic_config(ROOT / service / "migrations"), "head")
    return dsn
