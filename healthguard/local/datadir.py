"""The one folder that holds an installation's data, who runs on it, and how it stands."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthguard.private_files import write_private
from healthguard.terminal import command_line

POLL_S = 0.05
_STATE_BYTES_MAX = 64 * 1024


class InUse(RuntimeError):
    """Another `healthguard up` runs on this folder."""


class Unusable(RuntimeError):
    """The folder cannot be made, or is not ours alone."""


def default() -> Path:
    """Return where data lies if nobody says otherwise. Source: XDG Base Directory Specification."""
    base = os.environ.get("XDG_STATE_HOME")
    # The specification tells to ignore a relative path.
    state = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return state / "healthguard"


@dataclass(frozen=True, slots=True)
class DataDir:
    """An installation's folder."""

    path: Path

    def option(self) -> list[str]:
        """Return the words of a command line that name this folder; none where it is the default one."""
        return [] if self.path == default().resolve() else ["--data-dir", str(self.path)]

    @property
    def secrets(self) -> Path:
        """The secrets, mode 0600."""
        return self.path / "secrets.json"

    @property
    def demo(self) -> Path:
        """The demo user's key, mode 0600; its password is nowhere."""
        return self.path / "demo.json"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data."""
        return self.path / "postgres"

    @property
    def logs(self) -> Path:
        """One log a service."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """What is written anew at each start: configuration that the processes read, and the state."""
        return self.path / "run"

    @property
    def state(self) -> Path:
        """How the running installation stands: JSON."""
        return self.run / "state.json"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor as long as it lives; holds its process id."""
        return self.path / "lock"

    def make(self) -> None:
        """
        Make the folder, for its owner only.

        Raises:
            Unusable: it cannot be made, or belongs to somebody else.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise Unusable(f"{self.path} belongs to another user: choose another --data-dir.")
            self.path.chmod(0o700)
            self.run.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise Unusable(f"{self.path} cannot be used: {exc.strerror}. Choose another --data-dir.") from exc

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Hold the folder for this process; the kernel lets go when the process ends, however it ends.

        Raises:
            InUse: another process holds it.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                if exc.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                    raise
                stop = command_line("down", *self.option())
                raise InUse(f"HealthGuard already runs on {self.path}: stop it with `{stop}`.") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process id of the supervisor that runs on this folder; none where nobody does."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # A shared lock, so that two who look at once do not take each other for a supervisor.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(descriptor, 32, 0)
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)
        return None

    def wait_until_free(self, timeout_s: float) -> bool:
        """Wait until no supervisor runs on this folder; tell whether that came true in time."""
        deadline = time.monotonic() + timeout_s
        while self.holder() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def write_state(self, state: dict[str, Any]) -> None:
        """Write how the installation stands."""
        write_private(self.state, json.dumps(state))

    def read_state(self) -> dict[str, Any] | None:
        """Return how the installation stands; none where it does not run."""
        if self.holder() is None:
            return None
        with suppress(FileNotFoundError, ValueError):
            found = json.loads(self.state.read_bytes()[:_STATE_BYTES_MAX])
            return found if isinstance(found, dict) else None
        return None
