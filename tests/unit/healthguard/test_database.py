"""Which failures of the database are "not now", and which are our own."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from healthguard.database import is_unavailable


def wrapped(cause: Exception, kind: type[DBAPIError] = DBAPIError) -> DBAPIError:
    """Return *cause* as SQLAlchemy's asyncpg dialect hands it on."""
    return kind("insert", {}, cause)


@pytest.mark.parametrize(
    ("failure", "unavailable"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (PoolTimeout(), True),
        (wrapped(asyncpg.exceptions.AdminShutdownError("x")), True),
        (wrapped(asyncpg.exceptions.CannotConnectNowError("x")), True),
        (wrapped(asyncpg.exceptions.QueryCanceledError("x")), True),
        (wrapped(asyncpg.exceptions.TooManyConnectionsError("x")), True),
        (wrapped(asyncpg.exceptions.DiskFullError("x")), True),
        (wrapped(asyncpg.exceptions.DeadlockDetectedError("x")), True),
        (wrapped(asyncpg.exceptions.ReadOnlySQLTransactionError("x")), True),
        (asyncpg.exceptions.CannotConnectNowError("x"), True),
        (asyncpg.exceptions.InterfaceError("x"), True),
        (wrapped(asyncpg.exceptions.UniqueViolationError("x"), IntegrityError), False),
        (wrapped(asyncpg.exceptions.UndefinedColumnError("x"), ProgrammingError), False),
        (asyncpg.exceptions.InvalidPasswordError("x"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_failure_is_unavailable(failure: Exception, unavailable: bool) -> None:
    """A repeat may succeed: 503. It cannot: 500, which somebody must look at."""
    assert is_unavailable(failure, writes=True) is unavailable


def test_read_only_server_is_a_fault_of_who_reads() -> None:
    """A standby may be promoted in a moment, so a writer may try again; a reader that writes is a defect."""
    refused = wrapped(asyncpg.exceptions.ReadOnlySQLTransactionError("x"))

    assert is_unavailable(refused, writes=True)
    assert not is_unavailable(refused, writes=False)
