"""The embedded PostgreSQL: who gets in, what is left behind, and what a crash costs."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from healthguard.local import postgres
from healthguard.local.postgres import Cluster, Installation, PostgresError
from healthguard.local.process import alive
from healthguard.local.schema import needs_migration
from healthguard.local.stack import ROOT
from tests.postgres import Server, start

DEADLINE_S = 20.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="hg-pg-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a running server with two databases; a test that ends it starts it again."""
    with tempfile.TemporaryDirectory(prefix="hg-pg-") as name, start(Path(name)) as found:
        yield found


def _dsn(server: Server, database: str) -> str:
    return server.dsn(database).replace("postgresql+asyncpg", "postgresql")


async def _ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_each_service_reaches_its_own_database_only(server: Server) -> None:
    """A service's role opens its own database, no other, and is no superuser."""
    assert await _ask(_dsn(server, "auth"), "SELECT current_user || '@' || current_database()") == "auth@auth"
    assert await _ask(_dsn(server, "auth"), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    foreign = _dsn(server, "auth").replace("@/auth", "@/records")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _ask(foreign, "SELECT 1")


async def test_nobody_gets_in_without_the_password(server: Server) -> None:
    """Not even who can open the socket, and the socket is for one user only."""
    wrong = _dsn(server, "auth").replace(server.passwords["auth"], "another-password")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _ask(wrong, "SELECT 1")
    socket = server.cluster.folder / postgres.SOCKET_NAME
    assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(server.cluster.folder.stat().st_mode) & 0o077 == 0


async def test_server_opens_no_port_and_is_never_root(server: Server) -> None:
    """The socket is the only way in; who runs it has no rights of the machine's administrator."""
    assert await _ask(_dsn(server, "auth"), "SHOW listen_addresses") == ""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert int(uid) == (postgres.SERVER_UID if os.geteuid() == 0 else os.geteuid())
    assert uid != "0"


async def test_log_holds_no_value(server: Server) -> None:
    """An error's text quotes the row; the server's log must not."""
    connection = await asyncpg.connect(_dsn(server, "auth"))
    await connection.execute("CREATE TABLE people (name text PRIMARY KEY)")
    await connection.execute("INSERT INTO people VALUES ('Erika Mustermann')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO people VALUES ('Erika Mustermann')")
    await connection.close()
    assert "Mustermann" not in (server.cluster.folder.parent / "log").read_text()


async def test_databases_are_made_once(server: Server) -> None:
    """To ensure them again changes nothing but a changed password."""
    await _ask(_dsn(server, "auth"), "SELECT 1")
    connection = await asyncpg.connect(_dsn(server, "auth"))
    await connection.execute("CREATE TABLE kept (n int)")
    await connection.close()
    server.passwords = {**server.passwords, "auth": "another-password-of-24-chars"}
    server.cluster.ensure_databases(server.passwords)
    assert await _ask(_dsn(server, "auth"), "SELECT count(*) FROM kept") == 0


async def test_acknowledged_rows_survive_a_kill(server: Server) -> None:
    """After kill -9 the server starts again by itself on what it finds, with every committed row."""
    connection = await asyncpg.connect(_dsn(server, "records"))
    await connection.execute("CREATE TABLE acknowledged (n int)")
    for number in range(200):
        await connection.execute("INSERT INTO acknowledged VALUES ($1)", number)
    server.kill()
    connection.terminate()
    server.start()
    assert await _ask(_dsn(server, "records"), "SELECT count(*) FROM acknowledged") == 200


def test_stale_pid_file_does_not_stop_a_start(server: Server) -> None:
    """Its number may be another program's by now; that program is left alone."""
    server.kill()
    with subprocess.Popen(["sleep", "600"]) as other:
        (server.cluster.folder / "postmaster.pid").write_text(f"{other.pid}\n{server.cluster.folder}\n")
        server.start()
        assert alive(other.pid)
        other.kill()
    assert server.cluster.ready()


def test_leftover_server_is_ended_before_a_start(server: Server) -> None:
    """A server that nobody watches any more gives way; two on one folder would destroy it."""
    assert server.process is not None
    left = server.process.pid
    again = Server(server.cluster, server.passwords)
    again.start()
    assert not alive(left)
    assert again.process is not None
    assert again.process.pid != left
    again.stop()
    server.kill()  # it ended already: this only counts it
    server.start()


async def test_long_and_closed_folders_work(folder: Path) -> None:
    """A data folder may be deeper than a socket's name may be long, and lie below one that only we may enter."""
    deep = folder / "closed" / ("x" * 120)
    deep.mkdir(parents=True)
    deep.parent.chmod(0o700)
    with start(deep, databases=("auth",)) as server:
        assert await _ask(_dsn(server, "auth"), "SELECT 1") == 1
        link = server.cluster.socket_folder()
        assert link != server.cluster.folder
    assert not link.is_symlink()


def test_runtime_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared folder under a shared one could lead our clients to another server."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    (folder / f"healthguard-{os.geteuid()}").mkdir(mode=0o777)
    (folder / f"healthguard-{os.geteuid()}").chmod(0o777)
    cluster = Cluster(folder / ("x" * 120) / "postgres", "password")
    with pytest.raises(PostgresError, match="not a private folder"):
        cluster.socket_folder()


def test_interrupted_initdb_leaves_no_half_cluster(folder: Path) -> None:
    """What an interrupted first start left is cleared, and the next one is whole."""
    (folder / ".initdb-interrupted" / "base").mkdir(parents=True)
    cluster = Cluster(folder / "postgres", "a-password-of-16-or-more")
    cluster.initialise()
    assert [path.name for path in folder.iterdir()] == ["postgres"]
    assert (cluster.folder / "PG_VERSION").read_text().strip() == cluster.installation.major


def test_data_of_another_major_version_is_refused(folder: Path) -> None:
    """It is not touched, and the message names both versions."""
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(PostgresError, match=r"PostgreSQL 15.*PostgreSQL 18"):
        Cluster(folder / "postgres", "password").initialise()


def test_binaries_are_copied_where_the_server_can_reach_them(folder: Path) -> None:
    """Below a closed folder, such as root's home, the server could not even be executed; the copy works."""
    original = postgres.find_installation().bin.parents[1]
    copy = postgres.copied(original, folder / "cache")
    assert postgres.copied(original, folder / "cache") == copy
    for program in ("postgres", "initdb", "psql"):
        subprocess.run([copy / "pginstall" / "bin" / program, "--version"], check=True, capture_output=True)
    assert list(folder.iterdir()) == [folder / "cache"]


def test_needs_migration_until_the_newest_revision_is_noted(server: Server, folder: Path) -> None:
    """An empty database needs it, one that is behind too; in doubt it is needed."""
    versions = folder / "versions"
    versions.mkdir()
    (versions / "one.py").write_text('revision = "1"\ndown_revision = None\n')
    assert needs_migration(server.cluster, "auth", versions)
    noted = "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('1')"
    server.cluster.run_sql(noted, database="auth")
    assert not needs_migration(server.cluster, "auth", versions)
    (versions / "two.py").write_text('revision = "2"\ndown_revision = "1"\n')
    assert needs_migration(server.cluster, "auth", versions)
    shutil.rmtree(versions)
    assert needs_migration(server.cluster, "auth", versions)


def test_server_ends_with_whoever_started_it(folder: Path) -> None:
    """When the supervisor is killed the kernel tells PostgreSQL, and all of it ends."""
    code = (
        "from tests.postgres import start; from pathlib import Path; import time\n"
        f"with start(Path({str(folder)!r})) as server: print(server.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


@pytest.mark.parametrize("program", ["initdb", "psql"])
def test_program_that_hangs_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """It is ended after its time, and what is raised is what the supervisor logs; no half of a cluster is left."""
    monkeypatch.setattr(postgres, "_INITDB_S_MAX", 0.3)
    monkeypatch.setattr(postgres, "_SQL_S_MAX", 0.3)
    (folder / program).write_text("#!/bin/sh\nexec sleep 600\n")
    (folder / program).chmod(0o755)
    folder.chmod(0o711)  # as root the maker of a cluster is a user without rights
    (folder / "data").mkdir()
    cluster = Cluster(folder / "data" / "postgres", "a-password-of-16-or-more", Installation(folder, "18"))
    with pytest.raises(PostgresError, match="within 0 s"):
        cluster.initialise() if program == "initdb" else cluster.run_sql("SELECT 1")
    assert list((folder / "data").iterdir()) == []
