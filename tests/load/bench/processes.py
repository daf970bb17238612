"""The processes of a benchmark: talking to them line by line, and what they cost, from /proc."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 120.0


class Failed(Exception):
    """A process of the benchmark ended, or did not say what it should."""


class Worker:
    """A process that answers lines with JSON; see bare.py and closed_loop.py."""

    def __init__(self, python: Path, module: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        self.name = module
        self.process = subprocess.Popen(
            [str(python), "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )

    def wait_ready(self) -> None:
        """
        Wait until it is ready.

        Raises:
            Failed: it ended before.
        """
        if self._line() != "ready":
            raise Failed(f"{self.name} did not start")

    def tell(self, line: str) -> None:
        """Give it something to do."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """
        Return what it says.

        Raises:
            Failed: it ended.
        """
        found: dict[str, Any] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended")
        return line.strip()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def workers(
    python: Path, module: str, calls: Sequence[Sequence[object]], env: Mapping[str, str] | None = None
) -> Iterator[list[Worker]]:
    """Run a worker for each list of arguments, all ready, until the block ends."""
    with ExitStack() as stack:
        started = []
        for arguments in calls:
            worker = Worker(python, module, *arguments, env=env)
            stack.callback(worker.close)
            started.append(worker)
        for worker in started:
            worker.wait_ready()
        yield started


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, with the children of it that have ended."""
    return sum(map(int, _stat(pid)[11:15])) / TICKS_PER_S


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name; source: proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family_cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its children have used: PostgreSQL has one for each connection."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(cpu_s, (pid, *map(int, children))))


def memory_mb(pid: int) -> Mapping[str, float]:
    """Return what a process has in memory, all of it and its share of what is shared."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:] if line.endswith("kB")}
    return {"rss_mb": round(found["Rss:"], 1), "pss_mb": round(found["Pss:"], 1)}


def machine_busy_s() -> float:
    """Return the CPU seconds that all of this machine has been busy."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def python_of(backend: str) -> Path:
    """Return the Python that a backend runs in."""
    return ROOT / ".venv-train/bin/python" if backend == "tensorflow" else Path(sys.executable)
