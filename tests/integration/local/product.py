"""
The whole product for tests, in two ways: by the command in a process of its own, as users run it, and by a supervisor
in this process, where a test needs the processes in its hand.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from healthguard.client import Client
from healthguard.local import demo, ports, up
from healthguard.local.datadir import DataDir
from healthguard.local.stack import ROOT, Stack
from healthguard.local.supervisor import Service, Supervisor

MODELS = ROOT / "models"
COMMAND_S_MAX = 60.0
START_S_MAX = 100.0


def command(*arguments: str, home: Path, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `healthguard` to its end, with a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "healthguard", *arguments],
        env=environment(home),
        cwd=ROOT,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    """Return an environment whose folders for settings and state lie in *home*."""
    own = {name: str(home / name) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
    (home / "XDG_RUNTIME_DIR").mkdir(mode=0o700, parents=True, exist_ok=True)
    return {name: value for name, value in os.environ.items() if not name.startswith("HEALTHGUARD_")} | own


@dataclass
class Up:
    """A `healthguard up` in a process of its own; use it as a context, at whose end it is stopped."""

    home: Path
    process: "subprocess.Popen[str]"
    facts: Mapping[str, Any] = field(repr=False)
    """What it announced: url, email, password, the line to try."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with self.process:  # closes the pipe, then waits
            self.process.terminate()

    @property
    def url(self) -> str:
        """Where the product answers."""
        return str(self.facts["url"])

    @property
    def data(self) -> DataDir:
        """Its folder."""
        return DataDir(Path(self.facts["data_dir"]))

    def run(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run another `healthguard` of the same user."""
        return command(*arguments, home=self.home, stdin=stdin)

    def pids(self) -> list[int]:
        """Return the process ids of all services."""
        state = self.data.read_state()
        assert state is not None
        return [service["pid"] for service in state["services"].values() if service["pid"] is not None]


def start(home: Path, *options: str) -> Up:
    """Start `healthguard up` with JSON lines, and return when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "healthguard", "up", "--json", *options],
        env=environment(home),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:  # the test's own time limit ends a wait that is too long
        seen.append(line)
        if (event := json.loads(line))["event"] == "ready":
            return Up(home, process, event)
    raise AssertionError(f"it ended with {process.wait()} after:\n{''.join(seen)}")


@dataclass
class Product:
    """A product under a supervisor of this process."""

    stack: Stack
    supervisor: Supervisor
    token: str = field(repr=False)


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, change: Callable[[Service], Service] = lambda service: service
) -> AsyncIterator[Product]:
    """
    Run the product for the block.

    Args:
        change: what to start in place of a service.
    """
    data = DataDir(folder)
    data.make()
    with data.locked():
        stack = up.prepare(data, ports.free_ports(), MODELS)
        supervisor = Supervisor([change(service) for service in stack.services()], data.logs)
        keeping = asyncio.create_task(supervisor.run())
        try:
            assert await up.until_ready(stack, supervisor, keeping), "it ended before it was ready"
            yield Product(stack, supervisor, await asyncio.to_thread(_token, stack))
        finally:
            supervisor.stop()
            await asyncio.wait_for(keeping, START_S_MAX)


def _token(stack: Stack) -> str:
    new = demo.create(stack)
    with Client(stack.url) as client:
        return client.login(new.demo.email, new.password).access_token
