"""The auth service over a real database: in a transaction that is rolled back, or over an engine of its own."""

import base64
import os
from collections.abc import AsyncIterator

import argon2
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker

from auth.app import create_app, running
from auth.passwords import HashingPool, Passwords
from auth.settings import AuthSettings
from healthguard.database import Database, open_database
from tests.asgi import client_of
from tests.databases import migrated
from tests.postgres import Postgres

KEY_ENCRYPTION_KEY = base64.b64encode(os.urandom(32)).decode()


def cheap_passwords(queue_max: int = 16) -> Passwords:
    """Return real hashing with the cheapest parameters that Argon2 takes: milliseconds, not a third of a second."""
    return Passwords(argon2.profiles.CHEAPEST, HashingPool(threads=2, queue_max=queue_max))


@pytest.fixture(scope="session")
def auth_dsn(postgres: Postgres) -> str:
    """Return the address of a database that only these tests use: theirs alone is the key that encrypts its keys."""
    return migrated(postgres, "auth", "auth_alone")


@pytest.fixture
def settings(auth_dsn: str) -> AuthSettings:
    """Return the settings of an auth service on the session's database."""
    return AuthSettings(dsn=auth_dsn, key_encryption_key=KEY_ENCRYPTION_KEY)


@pytest.fixture
def rolled_back(auth_connection: AsyncConnection) -> Database:
    """Return a database whose every commit is a savepoint of a transaction that the test's end rolls back."""
    sessions = async_sessionmaker(auth_connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
    return Database(auth_connection.engine, sessions, sessions, sessions)


@pytest.fixture
async def client(settings: AuthSettings, rolled_back: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the service; it takes one request at a time, and leaves nothing behind."""
    passwords = cheap_passwords()
    async with client_of(create_app(settings, lambda app: running(app, settings, rolled_back, passwords))) as found:
        yield found


@pytest.fixture
async def parallel_client(settings: AuthSettings) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the service over its own pool; it takes requests at once, and what it commits stays."""
    passwords = cheap_passwords()
    async with (
        # Thirty at once queue for the pool; on a busy machine for longer than a service would let them.
        open_database(settings.model_copy(update={"pool_wait_s": 30.0}), "auth") as database,
        client_of(create_app(settings, lambda app: running(app, settings, database, passwords))) as found,
    ):
        yield found
