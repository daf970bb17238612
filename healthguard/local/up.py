"""`healthguard up`: everything from an empty folder to the first answer, then watch until told to stop."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthguard.client import ClientError
from healthguard.local import demo, keys, ports, probe, stack
from healthguard.local.datadir import DataDir
from healthguard.local.demo import Demo, NewDemo
from healthguard.local.display import Display
from healthguard.local.lifecycle import UP
from healthguard.local.ports import Ports
from healthguard.local.stack import Stack
from healthguard.local.supervisor import Report, ServiceFailed, Supervisor
from healthguard.terminal import command_line, short
from models import artifact

ALL_READY_S_MAX = 120.0
_POLL_S = 0.05


class NotReady(RuntimeError):
    """The processes run, and the product does not answer."""


def prepare(data: DataDir, wanted: Ports, models_folder: Path) -> Stack:
    """
    Check everything that can be checked before anything starts, and write what the processes read.

    Raises:
        PortTaken, NoModels, KeysLost: what is in the way; the message says what to do.
    """
    ports.check(wanted)
    served = stack.verified(models_folder)
    made = Stack(data, keys.load_or_make(data.secrets, data_exists=data.postgres.exists()), wanted, served)
    made.write_files()
    return made


@dataclass
class Progress:
    """Keeps the state file and the display up to date."""

    stack: Stack
    display: Display
    supervisor: Supervisor | None = None
    welcomed: bool = False
    """Whether everything answered once and the demo user is there."""

    def change(self, report: Report) -> None:
        """Take a change of one service."""
        self.display.change(report)
        self.write()

    def write(self) -> None:
        """Write the state file, for `status` and for tests."""
        if self.supervisor is not None:
            with suppress(OSError):  # a full disk is no reason to end what still works
                self.stack.data.write_state(snapshot(self.stack, self.supervisor, welcomed=self.welcomed))


def snapshot(running: Stack, supervisor: Supervisor, *, welcomed: bool) -> dict[str, Any]:
    """Return how an installation stands, for machines."""
    services = {
        name: {
            "phase": state.phase,
            "pid": supervisor.pid(name),
            "restarts": state.restarts,
            "reason": supervisor.reason(name),
        }
        for name, state in supervisor.states.items()
    }
    ready = welcomed and all(state.phase in UP for state in supervisor.states.values())
    return {"pid": os.getpid(), "url": running.url, "ready": ready, "services": services}


async def run(running: Stack, display: Display, tell: Callable[[dict[str, Any]], None]) -> None:
    """
    Run an installation until SIGINT or SIGTERM.

    Args:
        tell: told the facts once everything answers, the new demo user's password among them.

    Raises:
        ServiceFailed, NotReady, NoDemoUser, ClientError: it did not come up; nothing is left running.
    """
    started_at = time.monotonic()
    progress = Progress(running, display)
    supervisor = Supervisor(running.services(), running.data.logs, on_change=progress.change, on_line=display.line)
    progress.supervisor = supervisor
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, supervisor.stop)
    keeping = asyncio.create_task(supervisor.run())
    try:
        if await until_ready(running, supervisor, keeping):
            progress.welcomed = True
            facts = await asyncio.to_thread(_welcome, running, time.monotonic() - started_at)
            progress.write()
            tell(facts)
    except BaseException:
        supervisor.stop()  # and what went wrong first is what is told
        raise
    finally:
        await asyncio.wait([keeping])
        running.cluster().remove_link()
    keeping.result()


async def until_ready(running: Stack, supervisor: Supervisor, keeping: "asyncio.Task[None]") -> bool:
    """
    Wait until the gateway says that all it needs is well; tell whether that was before the end of everything.

    Raises:
        NotReady: it does not say so in time.
    """
    deadline = time.monotonic() + ALL_READY_S_MAX
    while not keeping.done():
        all_up = all(state.phase in UP for state in supervisor.states.values())
        if all_up and await probe.http_ready(running.ports.gateway, "/health/ready"):
            return True
        if time.monotonic() > deadline:
            raise NotReady(f"The gateway does not become ready: see {running.data.logs}.")
        await asyncio.sleep(_POLL_S)
    return False


def _welcome(running: Stack, seconds: float) -> dict[str, Any]:
    """Make the demo user at the first start, leave their key with the command, and return what to tell."""
    known = demo.read(running.data.demo)
    new = demo.create(running) if known is None else None
    who: Demo = new.demo if new is not None else known  # type: ignore[assignment]  # one of them is there
    demo.log_in(running.url, who, first_start=new is not None)
    return facts_of(running, who, new, seconds)


def facts_of(running: Stack, who: Demo, new: NewDemo | None, seconds: float) -> dict[str, Any]:
    """Return what a person or a program wants to know of an installation that is ready."""
    facts: dict[str, Any] = {
        "url": running.url,
        "seconds": round(seconds, 1),
        "data_dir": str(running.data.path),
        "email": who.email,
        "try": example_line(running),
        "another_user": another_user_line(running),
    }
    return facts | ({"password": new.password} if new is not None else {})


def greeting(facts: dict[str, Any]) -> list[str]:
    """Return the lines that a person reads when everything is ready."""
    lines = ["", f"HealthGuard is ready at {facts['url']} after {facts['seconds']} s."]
    if "password" in facts:
        lines += [
            f"Demo user {facts['email']} (doctor), password {facts['password']}",
            "The password is shown this once. The `healthguard` command is logged in on this machine already.",
        ]
    else:
        lines.append(f"Demo user {facts['email']} (doctor). Another user: {facts['another_user']}")
    return [*lines, "Try, in a second terminal:", "", f"  {facts['try']}", "", "Ctrl-C stops everything."]


def example_line(running: Stack) -> str:
    """Return a command line to paste, for a golden case of the first model."""
    model = running.served[0]
    case = artifact.golden(model.base_path / str(model.stable)).cases[0]
    elsewhere = [] if running.ports.gateway == Ports().gateway else ["--url", running.url]
    return command_line("predict", short(case.path), "--model", model.name, *elsewhere)


def another_user_line(running: Stack) -> str:
    """Return a command line that adds a doctor with a password made for them: a lost password cannot be set anew."""
    create = ("auth", "create-user", "--email", "you@example.org", "--role", "doctor", "--generate")
    return command_line("exec", *running.data.option(), *create)


def sentence(exc: BaseException) -> str:
    """Return what went wrong and what to do, for a person."""
    if isinstance(exc, ServiceFailed):
        words = "\n".join(f"  {line}" for line in exc.last_lines[-5:])
        return f"{exc.name} does not start. Its last words:\n{words}"
    if isinstance(exc, ClientError):
        return f"The first log-in failed: {exc}"
    return str(exc)
