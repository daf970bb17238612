"""
The `healthguard` command.

Here are the commands that any client of a HealthGuard needs. Those of the local installation, and those that other
packages contribute by the entry-point group `healthguard.commands`, are imported only when they are called, so that
`healthguard version` stays quick and an environment without a service's packages still has the rest.

Exit codes: 0 done; 1 the service refused or something failed; 2 the command line or the machine does not allow it;
3 nothing answers at the address; 4 log in first.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from healthguard import __version__
from healthguard.terminal import EXIT_FAILED, EXIT_LOG_IN, EXIT_NOT_POSSIBLE, EXIT_UNREACHABLE, fail, say

if TYPE_CHECKING:
    from healthguard.client import ClientError, Prediction

GROUP = "healthguard.commands"
LOCAL_COMMANDS = ("up", "down", "status", "smoke")
DEFAULT_URL = "http://127.0.0.1:8004"


class LazyGroup(TyperGroup):
    """A group that knows the names of all commands, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names: ours, the local installation's, the contributed ones."""
        contributed = sorted(entry.name for entry in entry_points(group=GROUP))
        return [*LOCAL_COMMANDS, *super().list_commands(ctx), *contributed]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; none where there is none of this name."""
        if cmd_name in LOCAL_COMMANDS:
            return _group("healthguard.local.commands").commands[cmd_name]
        for entry in entry_points(group=GROUP, name=cmd_name):
            return _group(entry.module, entry.attr)
        return super().get_command(ctx, cmd_name)


def _group(module: str, attribute: str = "app") -> Any:
    """Return the commands of a Typer application; where its packages are missing, say so and stop."""
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as exc:
        fail(f"This command needs the Python module {exc.name}, which is not installed here.", EXIT_NOT_POSSIBLE)
    command = typer.main.get_group(found)
    command.name = module.partition(".")[0]
    return command


app = typer.Typer(
    cls=LazyGroup,
    help="HealthGuard: models for medical images, and the record that belongs to them.",
    epilog="Exit codes: 0 done; 1 refused or failed; 2 not possible; 3 nothing answers; 4 log in first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

UrlOption = Annotated[str, typer.Option("--url", envvar="HEALTHGUARD_URL", help="Address of the gateway.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    typer.echo(json.dumps({"version": __version__}) if as_json else __version__)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PNG or JPEG images.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Which model, such as cancer or anemia.")],
    patient: Annotated[
        bool, typer.Option("--patient", help="Ask whom the images are about (or set HEALTHGUARD_PATIENT).")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Send images to a model, and print the predictions that were stored."""
    # A patient's number is no argument: command lines can be read by every user of a machine.
    about = os.environ.get("HEALTHGUARD_PATIENT") or (typer.prompt("Patient number", err=True) if patient else None)
    from healthguard.client import Client, ClientError  # noqa: PLC0415 - httpx takes a tenth of a second to import

    status = 0
    try:
        with Client(url, _token(url)) as client:
            for file in _with_progress(files):
                try:
                    found = client.predict(model, file, patient=about)
                except OSError as exc:
                    status = EXIT_FAILED
                    say(f"{file.name}: it cannot be read: {exc.strerror}.")
                except ClientError as exc:
                    if (status := _status_of(exc)) != EXIT_FAILED:
                        raise
                    say(f"{file.name}: {_sentence(exc)}")
                else:
                    typer.echo(json.dumps(asdict(found)) if as_json else _line(file.name, found))
    except ClientError as exc:
        fail(_sentence(exc), _status_of(exc))
    raise typer.Exit(status)


@app.command()
def login(
    email: Annotated[str, typer.Option("--email", prompt=True, help="Asked for if it is not given.")],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Log in; the password is asked for, or read from standard input where that is no terminal."""
    password = typer.prompt("Password", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    from healthguard import logins  # noqa: PLC0415 - as above
    from healthguard.client import Client, ClientError  # noqa: PLC0415

    try:
        with Client(url) as client:
            tokens = client.login(email, password.removesuffix("\n"))
    except ClientError as exc:
        # A refusal here is about this e-mail and password: advice to log in would be no help.
        refused = _status_of(exc) == EXIT_LOG_IN
        fail(str(exc) if refused else _sentence(exc), EXIT_FAILED if refused else _status_of(exc))
    logins.save(url, logins.Login.of(email, tokens))
    typer.echo(json.dumps({"url": url, "logged_in": True}) if as_json else f"Logged in at {url}.")


@app.command()
def logout(url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Forget the log-in, here and at the service."""
    from healthguard import logins  # noqa: PLC0415 - as above
    from healthguard.client import Client, ClientError  # noqa: PLC0415

    known = logins.forget(url)
    if known is not None and known.refresh_token is not None:
        try:
            with Client(url) as client:
                client.logout(known.refresh_token)
        except ClientError as exc:
            say(f"Forgotten here, but the service could not be told: {_sentence(exc)}")
    typer.echo(json.dumps({"url": url, "logged_in": False}) if as_json else f"Logged out at {url}.")


def _token(url: str) -> str:
    from healthguard import logins  # noqa: PLC0415 - as above

    token = logins.access_token(url.rstrip("/"))
    if token is None:
        fail(f"Nobody is logged in at {url}: run `healthguard login --url {url}`.", EXIT_LOG_IN)
    return token


def _status_of(exc: "ClientError") -> int:
    """Return the exit code for an error."""
    from healthguard.client import ProblemError  # noqa: PLC0415 - as above

    if not isinstance(exc, ProblemError):
        return EXIT_UNREACHABLE
    return EXIT_LOG_IN if exc.status == 401 else EXIT_FAILED


def _sentence(exc: "ClientError") -> str:
    """Return what went wrong and what to do."""
    advice = {
        EXIT_UNREACHABLE: " Is it running? `healthguard up` starts it on this machine.",
        EXIT_LOG_IN: " Log in again with `healthguard login`.",
    }
    request_id = getattr(exc, "request_id", None)
    return f"{exc}{advice.get(_status_of(exc), '')}" + (f" (request {request_id})" if request_id else "")


def _line(filename: str, found: "Prediction") -> str:
    """Return a stored prediction as one line, coloured where a terminal is attached."""
    outcome = typer.style(found.outcome, bold=True) if sys.stdout.isatty() else found.outcome
    sure = "" if found.confidence is None else f"  confidence {found.confidence:.2f}"
    strange = "" if found.ood_score is None else f"  out-of-distribution {found.ood_score:.1f}"
    return f"{filename}: {outcome}{sure}{strange}  {found.model} v{found.version}  {found.id}"


def _with_progress(files: list[Path]) -> Iterable[Path]:
    """Yield the files, with a bar on a terminal where there are several."""
    if len(files) < 2 or not sys.stderr.isatty():
        return files
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that most calls don't need
    from rich.progress import track  # noqa: PLC0415

    return track(files, "Predicting", console=Console(stderr=True), transient=True)


def main() -> None:
    """Run the command."""
    app()
