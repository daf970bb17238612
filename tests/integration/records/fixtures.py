"""Fixtures: the records service on a real database, in this process, with an issuer of its own."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from records.settings import RecordsSettings
from tests.asgi import client_of
from tests.integration.records.service import records_app, records_settings
from tests.issuer import Issuer


@pytest.fixture
def issuer() -> Issuer:
    """Return the issuer that the service trusts."""
    return Issuer()


@pytest.fixture
def settings(records_dsn: str) -> RecordsSettings:
    """Return settings for the test database."""
    return records_settings(records_dsn)


@pytest.fixture
async def client(settings: RecordsSettings, issuer: Issuer, empty_tables: None) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the service on empty tables."""
    async with client_of(records_app(settings, issuer)) as found:
        yield found


@pytest.fixture
async def database(records_dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Return a connection beside the service's, to see what is really stored."""
    connection = await asyncpg.connect(records_dsn.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def empty_tables(database: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Empty the tables: doctors see all rows, those of other tests too."""
    await database.execute("truncate predictions, patients, idempotency_keys restart identity")
