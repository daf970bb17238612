"""A run of the cluster: its folder, what is recorded of it, and how to remove what a run left behind."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.cluster.folders import RUNS

_GONE_S = 180.0
"""How long the kernel may take to end a node's processes; seconds, but minutes on a machine that does much else."""
_STARTING_S = 60.0
"""How long a run may be without a record: its keeper writes one as its first act."""
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one with the same number by when it started."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Record the process that has *pid* now."""
        return cls(pid, _started(pid) or "")

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return bool(self.started) and _started(self.pid) == self.started

    def end(self, how: signal.Signals) -> None:
        """Send it *how*, and wait until it is gone; do nothing if it is not there."""
        if not self.alive:
            return
        os.kill(self.pid, how)
        wait_until(lambda: not self.alive, f"process {self.pid} to end", _GONE_S)


@dataclass(frozen=True)
class Record:
    """What `record.json` in a run's folder says."""

    keeper: Process
    node: Process | None = None
    api_port: int = 0
    http_port: int = 0
    https_port: int = 0


@dataclass(frozen=True)
class Run:
    """One cluster, by name."""

    name: str

    @property
    def folder(self) -> Path:
        """Where all of its files are."""
        return RUNS / self.name

    @property
    def cgroup(self) -> str:
        """Under which name its pods' control groups are made."""
        return f"healthguard-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """How to reach its API server from this machine, as administrator."""
        return self.folder / "kubeconfig"

    def write(self, record: Record) -> None:
        """Record *record*, whole or not at all."""
        fresh = self.folder / "record.fresh"
        fresh.write_text(json.dumps(asdict(record)))
        fresh.rename(self.folder / "record.json")

    def read(self) -> Record | None:
        """Return what was recorded last, or None for a run that is not there."""
        try:
            found = json.loads((self.folder / "record.json").read_text())
        except FileNotFoundError:
            return None
        keeper, node = found.pop("keeper"), found.pop("node")
        return Record(keeper=Process(**keeper), node=Process(**node) if node else None, **found)

    @property
    def alive(self) -> bool:
        """Tell whether somebody still looks after it."""
        record = self.read()
        return bool(record and record.keeper.alive)

    def make_cgroups(self) -> None:
        """Make the control groups under which the kubelet keeps its pods'."""
        for hierarchy in _hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)
            _inherit_cpus(hierarchy, hierarchy / self.cgroup)

    def remove(self) -> None:
        """Take away what the kernel does not take away by itself: control groups and files."""
        for hierarchy in _hierarchies():
            _remove_cgroups(hierarchy / self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)


def clear_crashed() -> None:
    """Remove every run whose keeper died without doing so itself."""
    for folder in sorted(RUNS.glob("*/")):
        run = Run(folder.name)
        record = run.read()
        if record is None and time.time() - folder.stat().st_mtime < _STARTING_S:
            continue
        if record and record.keeper.alive:
            continue
        if record and record.node:
            record.node.end(signal.SIGKILL)
        run.remove()


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """
    Return once *condition* is true.

    Raises:
        TimeoutError: it was not, *timeout_s* seconds long; the message names *what*.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)


def _started(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _hierarchies() -> list[Path]:
    """Return the roots of the control group trees: one under version 2, one a controller under version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _inherit_cpus(hierarchy: Path, group: Path) -> None:
    # A version 1 cpuset starts empty, and then nothing may run in it.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / name).read_text().strip():
            (group / name).write_text((hierarchy / name).read_text())


def _remove_cgroups(group: Path) -> None:
    # Only the folders can be removed, innermost first; the files in them belong to the kernel.
    for path in sorted((Path(root) for root, _, _ in os.walk(group)), reverse=True):
        wait_until(partial(_rmdir, path), f"{path} to be empty", _GONE_S)


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
