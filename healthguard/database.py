"""
The way to PostgreSQL: a bounded pool, one transaction a request, and a deadline on all of it.

    | what happens in the transaction      | it         | the client gets        |
    |--------------------------------------|------------|------------------------|
    | the block ends                       | commits    | the answer             |
    | the block raises a problem           | rolls back | the problem            |
    | the block raises anything else       | rolls back | 500                    |
    | the commit fails                     | rolls back | 500, or 503 as below   |
    | the database is away, full or slow   | rolls back | 503 with Retry-After   |

Where the connection is lost during the commit nobody can know whether it took effect: the answer is a 503, and only
what is safe to repeat (an Idempotency-Key makes it so) can be sent again.

Only auth and records import this module; the other images have no database driver.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from healthguard.problems import Unavailable
from healthguard.settings import DatabaseSettings

log = structlog.get_logger()

RETRY_AFTER_MS = 1000

# Beginnings of the SQLSTATEs that say "not now" rather than "not so": connection, rollback (deadlock), resources, a
# lock's timeout, operator intervention (shutdown, starting up, cancelled by timeout), system.
# Source: PostgreSQL manual, appendix "PostgreSQL Error Codes".
_NOT_NOW = ("08", "40", "53", "55P03", "57", "58")
# For who wants to write, also "read-only": this server became a standby. For who wants to read it is a fault of ours.
_NOT_NOW_WRITING = (*_NOT_NOW, "25006")


@dataclass(frozen=True)
class Database:
    """Where sessions come from: those that may write, and those that cannot."""

    engine: AsyncEngine
    writing: async_sessionmaker[AsyncSession]
    reading: async_sessionmaker[AsyncSession]
    single: async_sessionmaker[AsyncSession]

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """
        Open a session whose transaction commits when the block ends and rolls back when it raises.

        Raises:
            Unavailable: the database is away, full or too slow.
        """
        async with _transaction(self.writing, writes=True) as session:
            yield session

    @asynccontextmanager
    async def write_one(self) -> AsyncIterator[AsyncSession]:
        """
        Open a session for one statement, which is its own transaction: one round trip instead of three.

        Raises:
            Unavailable: the database is away, full or too slow.
        """
        async with _transaction(self.single, writes=True) as session:
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """
        Open a session whose transaction cannot write.

        Raises:
            Unavailable: the database is away, full or too slow.
        """
        async with _transaction(self.reading, writes=False) as session:
            yield session

    async def check(self) -> None:
        """
        Return when the database answers.

        Raises:
            Unavailable: it does not.
        """
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    def connections_in_use(self) -> int:
        """Return how many connections are lent at the moment."""
        return int(self.engine.pool.checkedout())  # type: ignore[attr-defined]  # QueuePools have it


@asynccontextmanager
async def _transaction(sessions: async_sessionmaker[AsyncSession], *, writes: bool) -> AsyncIterator[AsyncSession]:
    try:
        async with sessions.begin() as session:
            yield session
    except (DBAPIError, PoolTimeout, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        if not is_unavailable(exc, writes=writes):
            raise
        log.warning("database_unavailable", exception=type(getattr(exc, "orig", exc)).__qualname__)
        raise Unavailable("The database cannot be reached at the moment.", retry_after_ms=RETRY_AFTER_MS) from exc


def is_unavailable(exc: Exception, *, writes: bool) -> bool:
    """
    Tell whether a repeat may succeed: the database was away, full or slow, and the statement is not to blame.

    Args:
        writes: whether the transaction was one that may write.
    """
    not_now = _NOT_NOW_WRITING if writes else _NOT_NOW
    if isinstance(exc, DBAPIError):
        sqlstate = getattr(exc.orig, "sqlstate", None) or ""
        return exc.connection_invalidated or isinstance(exc.orig, OSError) or sqlstate.startswith(not_now)
    if isinstance(exc, asyncpg.PostgresError):
        return (exc.sqlstate or "").startswith(not_now)
    return True


@asynccontextmanager
async def open_database(settings: DatabaseSettings, service: str, **parameters: str) -> AsyncIterator[Database]:
    """
    Yield the database of *settings*; nothing connects before the first transaction.

    Args:
        service: what the server calls our connections, as `healthguard-<service>`.
        parameters: further settings of PostgreSQL for every connection.
    """
    engine = _engine(settings, {"application_name": f"healthguard-{service}"} | parameters)
    _guard(engine, settings.transaction_timeout_s)
    reader = engine.execution_options(postgresql_readonly=True)
    single = engine.execution_options(isolation_level="AUTOCOMMIT")
    try:
        # Rows stay readable after their transaction ended: handlers answer from them. Nothing is written unless a
        # `store` function flushes, so that an error arises where its cause is.
        yield Database(
            engine,
            async_sessionmaker(engine, expire_on_commit=False, autoflush=False),
            async_sessionmaker(reader, expire_on_commit=False, autoflush=False),
            async_sessionmaker(single, expire_on_commit=False, autoflush=False),
        )
    finally:
        await engine.dispose()


def connect_with(dsn: str, **options: Any) -> Callable[[], Awaitable[Any]]:
    """
    Return a function that connects to *dsn* with asyncpg's own reading of a libpq URI.

    SQLAlchemy's would hand `sslmode`, `sslrootcert` or several hosts on as arguments that asyncpg does not have.
    """
    uri = dsn.replace("postgresql+asyncpg://", "postgresql://", 1)

    async def connect() -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any] = await asyncpg.connect(uri, **options)
        return connection

    return connect


def _engine(settings: DatabaseSettings, parameters: dict[str, str]) -> AsyncEngine:
    timeouts = {
        "statement_timeout": str(round(settings.statement_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": str(round(settings.transaction_timeout_s * 1000)),
    }
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect_with(
            settings.dsn.get_secret_value(),
            timeout=settings.connect_timeout_s,
            server_settings=parameters | timeouts,
        ),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_wait_s,
        pool_use_lifo=True,
        # An error's text would repeat the parameters of its statement: e-mail addresses, scores.
        hide_parameters=True,
    )


def _guard(engine: AsyncEngine, transaction_timeout_s: float) -> None:
    """
    Lend nobody a dead connection, and nobody one for long.

    A connection that the server closed is known here without a question to it; SQLAlchemy's pre-ping would ask one
    before every transaction. A connection whose server fell silent is cut at its deadline, so that whoever waits on it
    fails at once; cancelling the statement instead would wait for the same silent server.
    """

    def lend(_dbapi: Any, record: Any, proxy: Any) -> None:
        driver = proxy.driver_connection
        if driver.is_closed():
            raise DisconnectionError
        record.info["deadline"] = asyncio.get_running_loop().call_later(transaction_timeout_s, driver.terminate)

    def take_back(_dbapi: Any, record: Any) -> None:
        if (deadline := record.info.pop("deadline", None)) is not None:
            deadline.cancel()

    event.listen(engine.sync_engine.pool, "checkout", lend)
    event.listen(engine.sync_engine.pool, "checkin", take_back)
