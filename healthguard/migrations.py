"""
How a service brings its schema up to date: Alembic over asyncpg, all steps in one transaction, one run at a time.

A service has a folder `migrations` with its steps and an `env.py` that calls `run`, and a command `migrate` that calls
`migrate`. Only auth and records import this module.
"""

import asyncio
import json
from pathlib import Path

import alembic.command
import asyncpg
import typer
from alembic import context
from alembic.config import Config
from pydantic import ValidationError
from sqlalchemy import Connection, MetaData, NullPool, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from healthguard.database import connect_with
from healthguard.settings import DatabaseSettings, wrong_settings
from healthguard.terminal import EXIT_FAILED, EXIT_NOT_POSSIBLE, fail

LOCK = 4_820_001
"""An advisory lock of the service's database that stands for "the schema is being changed"."""

CONNECT_TIMEOUT_S = 10.0
TURN_TIMEOUT = "60s"
"""Longer than all steps should take: the second of two deployments waits for the first, and finds nothing to do."""
LOCK_TIMEOUT = "10s"
"""Steps have no statement timeout, but must not queue behind a long read and so hold up all writes."""


def alembic_config(folder: Path) -> Config:
    """Return Alembic's configuration for the migrations in *folder*; no ini file, since all of it is known here."""
    config = Config()
    # A percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(service: str, folder: Path, *, as_json: bool) -> None:
    """
    Bring the database of *service* to the newest schema, and print what came of it.

    Raises:
        typer.Exit: with 2 where the database's address is missing, with 1 where it cannot be migrated.
    """
    prefix = _prefix(service)
    try:
        DatabaseSettings(_env_prefix=prefix)
    except ValidationError as exc:
        fail(wrong_settings(prefix, exc), EXIT_NOT_POSSIBLE)
    config = alembic_config(folder)
    try:
        alembic.command.upgrade(config, "head")
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        # The kind alone: the text of an error in a step that moves data would hold some of it.
        fail(f"The database cannot be migrated: {type(getattr(exc, 'orig', exc)).__name__}.", EXIT_FAILED)
    before, after = config.attributes["before"], config.attributes["after"]
    if as_json:
        typer.echo(json.dumps({"service": service, "before": before, "after": after}))
    elif before == after:
        typer.echo(f"{service}: the schema is at {after} already")
    else:
        typer.echo(f"{service}: the schema went from {before or 'nothing'} to {after}")


def run(service: str, metadata: MetaData) -> None:
    """Do what Alembic asks of an `env.py`, on the database that `<SERVICE>_DSN` names."""
    asyncio.run(_run(DatabaseSettings(_env_prefix=_prefix(service)).dsn.get_secret_value(), metadata))


def _prefix(service: str) -> str:
    return f"{service.upper()}_"


async def _run(dsn: str, metadata: MetaData) -> None:
    """Run everything in one transaction: a step that fails leaves the schema as it was."""
    connect = connect_with(dsn, timeout=CONNECT_TIMEOUT_S)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_take_steps, metadata)
    finally:
        await engine.dispose()


def _take_steps(connection: Connection, metadata: MetaData) -> None:
    """Take the steps that are missing; whoever starts at the same time waits for the first to finish."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{TURN_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    progress = context.get_context()
    # What `migrate` tells its caller.
    context.config.attributes["before"] = progress.get_current_revision()
    context.run_migrations()
    context.config.attributes["after"] = progress.get_current_revision()
