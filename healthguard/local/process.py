"""
How a child process of ours is started: no shell, few variables, and never left behind.

`setpriv` (util-linux, which Debian and Ubuntu always have) asks the kernel to signal the child when its parent dies,
so that `kill -9` of the supervisor leaves nothing behind. The road not taken is Popen's `preexec_fn`, which runs
Python between fork and exec, and from Python 3.12 on warns that this can deadlock.
"""

import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "PYTHONPATH", "PYTHONWARNINGS")


class GuardMissing(RuntimeError):
    """`setpriv` is not on this machine."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and as whom."""

    argv: tuple[str, ...]
    folder: Path
    """The working directory, entered before rights are dropped."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the few that every child inherits."""
    uid: int | None = None
    """The user (and group) id to run as; none: ours."""
    stop_signal: signal.Signals = signal.SIGTERM
    """What asks it to stop."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when we die."""

    def guarded_argv(self) -> list[str]:
        """
        Return the whole command line, guard first.

        Raises:
            GuardMissing: there is no `setpriv`.
        """
        guard = shutil.which("setpriv")
        if guard is None:
            raise GuardMissing("`setpriv` is missing: install the package util-linux.")
        rights = [] if self.uid is None else [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        death = self.death_signal.name.removeprefix("SIG")
        return [guard, "--pdeathsig", death, "--no-new-privs", *rights, "--", *self.argv]

    def environment(self) -> dict[str, str]:
        """Return the child's whole environment: what it needs, not what our caller happened to have."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return inherited | dict(self.env)


def alive(pid: int) -> bool:
    """Tell whether *pid* runs; a zombie, which only waits to be counted, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
