"""The commands of the local installation: `healthguard up`, `down`, `status`, `smoke`."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import models
from healthguard.client import ClientError
from healthguard.local import datadir, detach, display, keys, ports, smoke, up
from healthguard.local.datadir import DataDir, InUse, Unusable
from healthguard.local.demo import NoDemoUser
from healthguard.local.keys import KeysLost
from healthguard.local.ports import Ports, PortTaken
from healthguard.local.postgres import PostgresError
from healthguard.local.process import Command, GuardMissing
from healthguard.local.stack import ROOT, NoModels, Stack
from healthguard.local.supervisor import ServiceFailed
from healthguard.terminal import EXIT_FAILED, EXIT_NOT_POSSIBLE, EXIT_UNREACHABLE, command_line, fail, say

DOWN_S_MAX = 60.0
PROGRESS_POLL_S = 0.2
MODELS = Path(models.__file__).parent
DEFAULT = Ports()
SERVICES_WITH_COMMANDS = ("auth", "records")

app = typer.Typer(rich_markup_mode=None)

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="The installation's folder.", show_default="~/.local/state/healthguard"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT")]


@app.command("up", short_help="Start everything on this machine.")
def up_command(
    *,
    data_dir: DataDirOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Port of the gateway.")] = DEFAULT.gateway,
    auth_port: PortOption = DEFAULT.auth,
    records_port: PortOption = DEFAULT.records,
    modelserver_port: PortOption = DEFAULT.modelserver,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Any free ports, for trials.")] = False,
    models_dir: Annotated[Path, typer.Option("--models", help="The folder of models.", show_default=False)] = MODELS,
    detached: Annotated[bool, typer.Option("--detach", help="Return once everything is ready.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every log line.")] = False,
    as_json: JsonOption = False,
    announce: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """
    Start the whole product on this machine, and keep it running until Ctrl-C.

    Exit codes: 0 stopped as asked; 1 something did not come up; 2 it could not begin (the folder is in use, a port is
    taken, there is no model).
    """
    data = _data(data_dir)
    wanted = ports.free_ports() if free_ports else Ports(port, auth_port, records_port, modelserver_port)
    try:
        data.make()
        if detached:
            _detach(data, wanted, models_dir, as_json=as_json)
        else:
            _up(data, wanted, models_dir, display.make(as_json=as_json, verbose=verbose), announce)
    except (InUse, Unusable, PortTaken, NoModels, KeysLost, GuardMissing) as exc:
        fail(str(exc), EXIT_NOT_POSSIBLE)
    except detach.NotStarted as exc:
        fail(str(exc), exc.status)
    except (ServiceFailed, up.NotReady, NoDemoUser, ClientError) as exc:
        fail(up.sentence(exc), EXIT_FAILED)


def _data(named: Path | None) -> DataDir:
    return DataDir((named or datadir.default()).expanduser().resolve())


def _up(data: DataDir, wanted: Ports, models_dir: Path, shown: display.Display, announce: int | None) -> None:
    def tell(facts: dict[str, Any]) -> None:
        # In the background our output is a log file, where a password has no business.
        if announce is not None:
            detach.announce(announce, facts)
        else:
            shown.ready(facts, up.greeting(facts))

    with data.locked():
        try:
            asyncio.run(up.run(up.prepare(data, wanted, models_dir.resolve()), shown, tell))
        finally:
            data.state.unlink(missing_ok=True)
            shown.close()


def _detach(data: DataDir, wanted: Ports, models_dir: Path, *, as_json: bool) -> None:
    with data.locked():  # a clear answer at once where another supervisor runs
        pass
    data.logs.mkdir(mode=0o700, exist_ok=True)
    options = {"--data-dir": data.path, "--models": models_dir.resolve()}
    options |= {option: getattr(wanted, name) for name, option in ports.OPTIONS.items()}
    with _progress(data):
        facts = detach.start([f"{option}={value}" for option, value in options.items()], data.logs / "supervisor.log")
    if as_json:
        typer.echo(json.dumps({"event": "ready", **facts}))
        return
    stop = command_line("down", *data.option())
    for line in [*up.greeting(facts)[:-1], f"It runs in the background: stop it with `{stop}`."]:
        typer.echo(line)


@contextmanager
def _progress(data: DataDir) -> Iterator[None]:
    """Tell a person who waits how the services in the background come up; on standard error, a line a change."""
    over = threading.Event()

    def watch() -> None:
        shown: dict[str, str] = {}
        while not over.wait(PROGRESS_POLL_S):
            for name, service in ((data.read_state() or {}).get("services") or {}).items():
                if shown.get(name) != service["phase"]:
                    say(f"{name:<15} {service['phase']}")
                shown[name] = service["phase"]

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


@app.command(
    "exec", short_help="Run an auth or records command here.", context_settings={"allow_interspersed_args": False}
)
def exec_command(
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="Such as: auth create-user --email …", show_default=False)
    ],
    data_dir: DataDirOption = None,
) -> None:
    """
    Run an auth or records command with the settings of the installation on this machine, which must be running.

    Exit codes: those of the command; 2 it is no such command; 3 the installation does not run.
    """
    data = _data(data_dir)
    if words[0] not in SERVICES_WITH_COMMANDS:
        fail(f"Only the commands of {' and '.join(SERVICES_WITH_COMMANDS)} can be run so.", EXIT_NOT_POSSIBLE)
    if data.holder() is None:
        _not_running(data)
    try:
        running = Stack(data, keys.load_or_make(data.secrets, data_exists=True), Ports(), [])
        cluster = running.cluster()
        if not cluster.ready():
            fail(f"PostgreSQL is not ready: see {data.logs}.", EXIT_UNREACHABLE)
        env = running.settings(cluster)[words[0]]
    except (KeysLost, PostgresError) as exc:
        fail(str(exc), EXIT_NOT_POSSIBLE)
    command = Command((sys.executable, "-m", "healthguard", *words), ROOT, env)
    sys.stdout.flush()
    os.chdir(command.folder)
    os.execve(sys.executable, command.argv, command.environment())  # noqa: S606 - our own command line, no shell


def _not_running(data: DataDir) -> NoReturn:
    start = command_line("up", *data.option())
    fail(f"Nothing runs on {data.path}.", EXIT_UNREACHABLE, hint=f"Start it with `{start}`.")


@app.command("down")
def down_command(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Stop the product on this machine. Exit codes: 0 nothing runs any more; 1 it does not end."""
    data = _data(data_dir)
    holder = data.holder()
    if holder is not None:
        os.kill(holder, signal.SIGTERM)
        if not data.wait_until_free(DOWN_S_MAX):
            fail(f"The supervisor (process {holder}) does not end: see {data.logs}.", EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps({"event": "stopped", "was_running": holder is not None}))
    else:
        typer.echo("Stopped." if holder is not None else f"Nothing runs on {data.path}.")


@app.command("status")
def status_command(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show what runs on this machine. Exit codes: 0 it is ready; 1 it runs and is not ready; 3 it does not run."""
    data = _data(data_dir)
    state = data.read_state()
    if state is None:
        _not_running(data)
    if as_json:
        typer.echo(json.dumps(state))
    else:
        typer.echo(f"{state['url']} is {'ready' if state['ready'] else 'not ready'}")
        for name, service in state["services"].items():
            pid = service["pid"] or "-"
            typer.echo(f"  {name:<15} {service['phase']:<10} pid {pid:<8} restarts {service['restarts']}")
            if service["reason"] is not None:
                typer.echo(f"    {service['reason']}")
    raise typer.Exit(0 if state["ready"] else EXIT_FAILED)


@app.command("smoke", short_help="Try everything in a temporary folder.")
def smoke_command(as_json: JsonOption = False) -> None:
    """
    Start everything in a temporary folder on free ports, use it as a client would, and stop it.

    Exit codes: 0 all of it was right; 1 something was not.
    """
    try:
        report = smoke.run(MODELS, tell=lambda text: typer.echo(text, err=True))
    except (smoke.NotRight, ServiceFailed, up.NotReady, NoDemoUser, ClientError, NoModels) as exc:
        fail(f"smoke: {up.sentence(exc)}", EXIT_FAILED)
    except asyncio.CancelledError:
        fail("smoke: stopped before its end", EXIT_FAILED)
    typer.echo(json.dumps(report) if as_json else f"smoke: ok ({report['seconds']} s)")
