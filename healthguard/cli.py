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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit
from uuid import UUID

import typer
from typer.core import TyperGroup

from healthguard import __version__
from healthguard.terminal import (
    EXIT_FAILED,
    EXIT_LOG_IN,
    EXIT_NOT_POSSIBLE,
    EXIT_UNREACHABLE,
    command_line,
    error_document,
    fail,
    say,
    wants_json,
)

if TYPE_CHECKING:
    from healthguard.client import Client, ClientError
    from healthguard.faults import Fault

GROUP = "healthguard.commands"
LOCAL_COMMANDS = ("up", "down", "status", "exec", "smoke")
DEFAULT_URL = "http://127.0.0.1:8004"


class LazyGroup(TyperGroup):
    """A group that knows the names of all commands, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names: the local installation's, ours, the contributed ones, which may extend one of ours."""
        contributed = sorted(entry.name for entry in entry_points(group=GROUP))
        return list(dict.fromkeys([*LOCAL_COMMANDS, *super().list_commands(ctx), *contributed]))

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
    each: Any
    for each in (command, *command.commands.values()):
        each.rich_markup_mode = None  # as the application below
    return command


app = typer.Typer(
    cls=LazyGroup,
    help="HealthGuard: models for medical images, and the record that belongs to them.",
    epilog="Exit codes: 0 done; 1 refused or failed; 2 not possible; 3 nothing answers; 4 log in first.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich would take "[default: …]" in a help text for markup, and break lines that are to be pasted.
    rich_markup_mode=None,
)


def _address(url: str) -> str:
    """Return *url*, or end the command where it is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"{url!r} is no address: it looks like {DEFAULT_URL}.")
    return url


UrlOption = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="HEALTHGUARD_URL",
        metavar="URL",
        callback=_address,
        help="Address of the gateway; each has a log-in of its own, localhost and 127.0.0.1 too.",
    ),
]


def _authority(file: Path | None) -> Path | None:
    """Return *file*, or end the command where it holds no certificate."""
    import ssl  # noqa: PLC0415 - as httpx below

    try:
        if file is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise typer.BadParameter(f"{file} holds no certificate in PEM.") from None
    except OSError as exc:
        raise typer.BadParameter(f"{file} cannot be read: {exc.strerror}.") from None
    return file


CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="HEALTHGUARD_CA_FILE",
        metavar="FILE",
        callback=_authority,
        help="Certificate (PEM) of the gateway's authority, besides those that this system trusts.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


def _email_address(text: str | None) -> str | None:
    """Return *text*, or end the command where it is no e-mail address; the service looks closer."""
    name, _, host = (text or "").rpartition("@")
    if text is not None and not (name and host and len(text.split()) == 1):
        raise typer.BadParameter(f"{text!r} is no e-mail address: it looks like ada@example.org.")
    return text


EmailOption = Annotated[
    str | None,
    typer.Option(
        "--email",
        metavar="EMAIL",
        callback=_email_address,
        help="Asked for if it is not given.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Gateway:
    """Which gateway a command is about, and whom to trust that it is the one."""

    url: str
    ca_file: Path | None = None

    def client(self, token: str | None = None) -> "Client":
        """Return a client of it."""
        from healthguard.client import Client  # noqa: PLC0415 - httpx takes a tenth of a second to import

        return Client(self.url, token, ca_file=self.ca_file)

    def words(self) -> list[str]:
        """Return the words of a command line that name it; none where it is the default one."""
        url = [] if self.url == DEFAULT_URL else ["--url", self.url]
        return url if self.ca_file is None else [*url, "--ca-file", str(self.ca_file)]


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Answer a call that names no command."""
    if show_version:
        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    typer.echo(json.dumps({"version": __version__}) if as_json else __version__)


@app.command(short_help="Send images to a model.")
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="PNG or JPEG images.", show_default=False)],
    *,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Which model, such as cancer or anemia.")],
    patient: Annotated[
        bool, typer.Option("--patient", help="Ask whom the images are about (or set HEALTHGUARD_PATIENT).")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send images to a model, and print the predictions that were stored."""
    # A patient's number is no argument: command lines can be read by every user of a machine.
    about = os.environ.get("HEALTHGUARD_PATIENT") or (typer.prompt("Patient number", err=True) if patient else None)
    from healthguard import lines  # noqa: PLC0415 - as below
    from healthguard.client import ClientError  # noqa: PLC0415 - httpx takes a tenth of a second to import

    status, stored = 0, False
    gateway = Gateway(url, ca_file)
    with _connected(gateway) as client:

        @cache
        def contract() -> Mapping[str, Any]:
            return _contract(client, model)

        for file in _with_progress(files):
            try:
                found = client.predict(model, file, patient=about)
            except OSError as exc:
                status = EXIT_FAILED
                _tell_failed(file, f"it cannot be read: {exc.strerror}.")
            except ClientError as exc:
                _tell_failed(file, str(exc), _model_hint(exc, client) or _hint(exc, gateway), _problem(exc))
                if (status := _status_of(exc)) != EXIT_FAILED:
                    raise typer.Exit(status) from None
            else:
                stored = True
                limit = lines.limit_of(contract()) if not as_json and found.outcome == lines.INDETERMINATE else None
                shown = lines.prediction(file.name, found, limit)
                _print(shown, {"file": str(file), **asdict(found)}, as_json=as_json)
        if stored and not as_json and contract().get("demonstration") is True:
            typer.echo(lines.DEMONSTRATION)
    raise typer.Exit(status)


@app.command()
def history(
    *,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Of this model only.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", metavar="OUTCOME", help="With this one only.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many.")] = 20,
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List stored predictions, the newest first."""
    from healthguard import lines  # noqa: PLC0415 - as above

    filters = {name: value for name, value in {"model": model, "outcome": outcome}.items() if value is not None}
    with _connected(Gateway(url, ca_file)) as client:
        nothing = True
        for found in islice(client.predictions(**filters), limit):
            nothing = False
            _print([lines.history(found)], asdict(found), as_json=as_json)
        # A model that is served no more may have a history: only where there is none is its name looked at.
        if nothing and model is not None and model not in {each.name for each in client.models()}:
            fail(f"No model {model} is served, and nothing is stored of one.", EXIT_FAILED, hint=_named(client))


@app.command()
def show(
    prediction_id: Annotated[UUID, typer.Argument(metavar="ID", help="The prediction's.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of one stored prediction."""
    from healthguard import lines  # noqa: PLC0415 - as above

    with _connected(Gateway(url, ca_file)) as client:
        found = client.prediction(str(prediction_id))
    _print(lines.details(found), asdict(found), as_json=as_json)


@app.command()
def models(url: UrlOption = DEFAULT_URL, ca_file: CaFileOption = None, as_json: JsonOption = False) -> None:
    """List the models that are served."""
    from healthguard import lines  # noqa: PLC0415 - as above

    with _connected(Gateway(url, ca_file)) as client:
        for found in client.models():
            _print([lines.model(found)], asdict(found), as_json=as_json)


@app.command()
def stats(url: UrlOption = DEFAULT_URL, ca_file: CaFileOption = None, as_json: JsonOption = False) -> None:
    """Count the stored predictions by model and outcome."""
    from healthguard import lines  # noqa: PLC0415 - as above

    with _connected(Gateway(url, ca_file)) as client:
        found = client.statistics()
    _print(lines.statistics(found), asdict(found), as_json=as_json)


@app.command()
def register(
    email: EmailOption = None,
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Open an account as a patient, and log in.

    The password is asked for, or read from standard input where that is no terminal.
    """
    email = email or str(_email_address(str(typer.prompt("E-mail", err=True))))
    _log_in(Gateway(url, ca_file), email, _password(confirm=True), new=True)
    _print([f"Registered, and logged in at {url}."], {"url": url, "logged_in": True}, as_json=as_json)


@app.command(short_help="Log in.")
def login(
    email: EmailOption = None,
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log in; the password is asked for, or read from standard input where that is no terminal."""
    email = email or str(_email_address(str(typer.prompt("E-mail", err=True))))
    _log_in(Gateway(url, ca_file), email, _password(), new=False)
    _print([f"Logged in at {url}."], {"url": url, "logged_in": True}, as_json=as_json)


@app.command()
def logout(url: UrlOption = DEFAULT_URL, ca_file: CaFileOption = None, as_json: JsonOption = False) -> None:
    """Forget the log-in, here and at the service."""
    from healthguard import logins  # noqa: PLC0415 - as above
    from healthguard.client import ClientError  # noqa: PLC0415

    known = logins.forget(url)
    if known is not None and known.refresh_token is not None:
        try:
            with Gateway(url, ca_file).client() as client:
                client.logout(known.refresh_token)
        except ClientError as exc:
            say(f"Forgotten here, but the service could not be told: {exc}")
    _print([f"Logged out at {url}."], {"url": url, "logged_in": False}, as_json=as_json)


def _log_in(gateway: Gateway, email: str, password: str, *, new: bool) -> None:
    """Log a person in and keep that, after opening their account where it is *new*."""
    from healthguard import logins  # noqa: PLC0415 - as above
    from healthguard.client import ClientError  # noqa: PLC0415

    try:
        with gateway.client() as client:
            if new:
                client.register(email, password)
            tokens = client.login(email, password)
    except ClientError as exc:
        if _status_of(exc) != EXIT_LOG_IN:
            _refuse(exc, gateway)
        # A refusal here is about this e-mail and password: advice to log in would be no help.
        fail(str(exc), EXIT_FAILED, problem=_problem(exc))
    logins.save(gateway.url, logins.Login.of(email, tokens))


def _password(*, confirm: bool = False) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))
    return sys.stdin.readline().removesuffix("\n")


@contextmanager
def _connected(gateway: Gateway) -> Iterator["Client"]:
    """Give a client with the log-in there; a call that fails ends the command."""
    from healthguard.client import ClientError  # noqa: PLC0415 - as above

    try:
        with gateway.client(_token(gateway)) as client:
            yield client
    except ClientError as exc:
        _refuse(exc, gateway)


def _token(gateway: Gateway) -> str:
    from healthguard import logins  # noqa: PLC0415 - as above
    from healthguard.client import ProblemError  # noqa: PLC0415

    if (token := logins.access_token(gateway.url, gateway.ca_file)) is not None:
        return token
    with gateway.client() as client, suppress(ProblemError):
        client.models()  # where nothing answers, advice to log in would be no help
    return fail(f"Nobody is logged in at {gateway.url}.", EXIT_LOG_IN, hint=_log_in_hint(gateway))


def _log_in_hint(gateway: Gateway) -> str:
    log_in, register = (command_line(name, *gateway.words()) for name in ("login", "register"))
    return f"Log in with `{log_in}`, or open an account with `{register}`."


def _refuse(exc: "ClientError", gateway: Gateway) -> NoReturn:
    """End the command with what the service said, or with what is in the way to it."""
    fail(str(exc) + _reference(exc), _status_of(exc), hint=_hint(exc, gateway), problem=_problem(exc))


def _status_of(exc: "ClientError") -> int:
    """Return the exit code for an error."""
    from healthguard.client import ProblemError  # noqa: PLC0415 - as above

    if not isinstance(exc, ProblemError):
        return EXIT_UNREACHABLE
    return EXIT_LOG_IN if exc.status == 401 else EXIT_FAILED


def _hint(exc: "ClientError", gateway: Gateway) -> str | None:
    """Return what to do about an error; none where its own text says all."""
    from healthguard.client import Unreachable  # noqa: PLC0415 - as above

    if isinstance(exc, Unreachable):
        return _way_hint(exc.fault, gateway)
    if _status_of(exc) == EXIT_LOG_IN:
        return f"Log in again with `{command_line('login', *gateway.words())}`."
    # What nginx and Go's servers answer who are spoken to without TLS; ours says more with a 400.
    if getattr(exc, "status", None) == 400 and getattr(exc, "type", "") == "about:blank":
        return _tls_hint(gateway.url)
    return None


def _way_hint(fault: "Fault | None", gateway: Gateway) -> str | None:
    """Return what to do about what is in the way to a gateway."""
    from healthguard.faults import Fault, is_local  # noqa: PLC0415 - as above

    match fault:
        case Fault.UNTRUSTED if gateway.ca_file is None:
            return "Give its authority's certificate with --ca-file, or in HEALTHGUARD_CA_FILE."
        case Fault.UNTRUSTED:
            return f"It is of another authority than {gateway.ca_file}."
        case Fault.NOT_TLS:
            return f"Its address begins with http: http{gateway.url.removeprefix('https')}"
        case Fault.LOST if (hint := _tls_hint(gateway.url)) is not None:
            return hint
        case Fault.REFUSED | Fault.SLOW | Fault.LOST if is_local(gateway.url):
            return f"Is it running? `{command_line('up')}` starts it on this machine."
    right = f"Is the address right? It is named with --url or in HEALTHGUARD_URL, such as {DEFAULT_URL}."
    return None if fault in (None, Fault.OUT_OF_DATE) else right


def _tls_hint(url: str) -> str | None:
    """Return that a plain address is one of TLS, where it is."""
    from healthguard.faults import speaks_tls  # noqa: PLC0415 - as above

    if not url.startswith("http:") or not speaks_tls(url):
        return None
    return f"It speaks HTTPS: its address begins with https: https{url.removeprefix('http')}"


def _model_hint(exc: "ClientError", client: "Client") -> str | None:
    """Return which models there are, where there is none of the name that was given."""
    from healthguard.client import ClientError  # noqa: PLC0415 - as above

    if not getattr(exc, "type", "").endswith(":unknown-model"):
        return None
    with suppress(ClientError):
        return _named(client)
    return None


def _named(client: "Client") -> str:
    return f"There are: {', '.join(sorted(each.name for each in client.models())) or 'none'}."


def _problem(exc: "ClientError") -> dict[str, Any] | None:
    """Return what the service said, for a program; none where it said nothing."""
    from healthguard.client import ProblemError  # noqa: PLC0415 - as above

    if not isinstance(exc, ProblemError):
        return None
    members = {
        "type": exc.type,
        "title": exc.title,
        "status": exc.status,
        "detail": exc.detail,
        "request_id": exc.request_id,
        "retry_after_s": exc.retry_after_s,
        "errors": [{"location": location, "code": code} for location, code in exc.errors] or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def _reference(exc: "ClientError") -> str:
    request_id = getattr(exc, "request_id", None)
    return f" (request {request_id})" if request_id and not wants_json() else ""


def _contract(client: "Client", model: str) -> Mapping[str, Any]:
    """Return what a model says of itself; nothing where that cannot be had, since the prediction is stored already."""
    from healthguard.client import ClientError  # noqa: PLC0415 - as above

    try:
        found = {each.name: each.contract for each in client.models()}
    except ClientError:
        return {}
    return found.get(model) or {}


def _tell_failed(file: Path, message: str, hint: str | None = None, problem: Mapping[str, Any] | None = None) -> None:
    """Tell what became of one file of several: the others go on."""
    if wants_json():
        typer.echo(json.dumps({"file": str(file), **error_document(message, hint, problem)}))
        return
    request_id = (problem or {}).get("request_id")
    parts = [message, hint, f"(request {request_id})" if request_id else None]
    say(f"{file.name}: {' '.join(part for part in parts if part)}")


def _print(text: list[str], document: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: the lines for a person, or the document for a program."""
    for line in [json.dumps(document)] if as_json else text:
        typer.echo(line)


def _with_progress(files: list[Path]) -> Iterable[Path]:
    """Yield the files, with a bar on a terminal where there are several."""
    if len(files) < 2 or not sys.stderr.isatty():
        return files
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that most calls don't need
    from rich.progress import track  # noqa: PLC0415

    return track(files, "Predicting", console=Console(stderr=True), transient=True)


def main() -> None:
    """Run the command."""
    if not wants_json():
        app()
        return
    # A program is told in JSON what is wrong with its command line too.
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as exc:
        status = _tell(exc.format_message() if hasattr(exc, "format_message") else str(exc), EXIT_NOT_POSSIBLE)
    except typer.Abort:
        status = _tell("Stopped before its end.", EXIT_FAILED)
    sys.exit(status)


def _tell(message: str, status: int) -> int:
    typer.echo(json.dumps(error_document(message)))
    return status
