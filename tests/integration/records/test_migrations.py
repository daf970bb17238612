"""The migrations make the schema that the code expects, once, whoever runs them."""

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from records.tables import RecordsTable
from tests.postgres import Postgres

ROOT = Path(__file__).parents[3]
TABLES = "select count(*) from pg_tables where schemaname = 'public'"


async def test_schema_is_the_one_of_the_tables(records_dsn: str) -> None:
    """A column that was changed in the code and in no migration is found here."""

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, RecordsTable.metadata))

    engine = create_async_engine(records_dsn, poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert found == []


async def migrate(dsn: str) -> dict[str, Any]:
    """Run `healthguard records migrate --json` as a deployment does: a process of its own."""
    command = "from records.commands import app; app()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", command, "migrate", "--json"),
        cwd=ROOT,
        env=os.environ | {"RECORDS_DSN": dsn},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(output)
    return found


async def test_migrations_run_once_when_started_twice_at_once(postgres: Postgres) -> None:
    """Two deployments start together: one makes the schema, the other waits and finds it made."""
    dsn = await asyncio.to_thread(postgres.create_database, f"records_{uuid.uuid4().hex[:8]}")

    first, second = await asyncio.gather(migrate(dsn), migrate(dsn))

    assert first["after"] == second["after"] == "0001"
    assert {first["before"], second["before"]} == {None, "0001"}


async def test_migration_that_fails_leaves_nothing(postgres: Postgres) -> None:
    """All steps are one transaction: no half of a schema stays."""
    dsn = await asyncio.to_thread(postgres.create_database, f"records_{uuid.uuid4().hex[:8]}")
    connection = await asyncpg.connect(dsn.replace("+asyncpg", ""))
    await connection.execute("create view idempotency_keys as select 1 as occupied")

    with pytest.raises(AssertionError):
        await migrate(dsn)

    assert await connection.fetchval(TABLES) == 0
    await connection.close()
