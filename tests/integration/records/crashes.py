"""
A PostgreSQL of a test's own, which it may kill, stop and start again.

Start it in the main thread, never by `asyncio.to_thread`: the kernel ends it with the thread that started it.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import alembic.command
import pytest

from healthguard.migrations import alembic_config
from records.commands import MIGRATIONS
from tests import postgres
from tests.postgres import Server


@contextlib.contextmanager
def migrated_server(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server with the newest schema for the block."""
    with (
        tempfile.TemporaryDirectory(prefix="hg-crash-") as folder,
        postgres.start(Path(folder), databases=("records",), settings=settings) as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RECORDS_DSN", server.dsn("records"))
        alembic.command.upgrade(alembic_config(MIGRATIONS), "head")
        yield server


def processes(server: Server) -> list[int]:
    """Return the ids of the server's processes, the parent first."""
    assert server.process is not None
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def crash(server: Server) -> None:
    """Kill all of the server at once; what it had not handed to the kernel is lost."""
    for pid in processes(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.kill()


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop the server's processes for the block: its sockets stay open, and nothing answers."""
    stopped = processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
