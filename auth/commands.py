"""The `healthguard auth …` commands. They speak to auth's database, so they run where the service's settings are."""

import asyncio
import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
import typer
from pydantic import TypeAdapter, ValidationError

from auth import keyring, store
from auth.passwords import PROFILES, HashingPool, Passwords, check_new_password
from auth.schemas import Email
from auth.settings import AuthSettings
from auth.signing import WrongKeyEncryptionKey
from auth.tables import SigningKey, User
from healthguard import migrations
from healthguard.database import open_database
from healthguard.problems import Problem
from healthguard.settings import wrong_settings
from healthguard.terminal import fail
from healthguard.tokens import Role

app = typer.Typer(help="People and keys of the auth service.", no_args_is_help=True)

MIGRATIONS = Path(__file__).parent / "migrations"
GENERATED_PASSWORD_BYTES = 15
"""120 random bits, 20 characters."""

Json = Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")]


@app.callback()
def auth() -> None:
    """Log to standard error: standard output is for the outcome."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


@app.command()
def migrate(*, as_json: Json = False) -> None:
    """Bring the database (AUTH_DSN) to the newest schema; safe to repeat, and from several places at once."""
    migrations.migrate("auth", MIGRATIONS, as_json=as_json)


@app.command()
def create_user(
    *,
    email: Annotated[str, typer.Option(help="The e-mail to log in with.")],
    role: Annotated[Role, typer.Option(help="What the person is to HealthGuard.")] = Role.PATIENT,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")] = False,
    as_json: Json = False,
) -> None:
    """Add a person; the password is asked for, read from standard input, or made with --generate."""
    settings = _settings()
    try:
        email = TypeAdapter(Email).validate_python(email)
    except ValidationError:
        _fail("This is not an e-mail address.", code=2)
    password = secrets.token_urlsafe(GENERATED_PASSWORD_BYTES) if generate else _read_password()
    try:
        check_new_password(password, email=email, length_min=settings.password_length_min)
        user = asyncio.run(_insert_user(settings, email=email, password=password, role=role))
    except Problem as problem:
        _fail(problem.detail or problem.title)
    outcome: dict[str, Any] = {"id": user.id, "subject": str(user.subject), "email": user.email, "role": user.role}
    text = f"auth: added {user.email} as {user.role}"
    if generate:
        outcome["password"] = password
        text += f"\npassword (shown once): {password}"
    _print(as_json, text, outcome)


@app.command()
def rotate_keys(
    *,
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Withdraw all old keys at once: everybody must log in again."),
    ] = False,
    as_json: Json = False,
) -> None:
    """
    Make a new signing key.

    It is published now and used ten minutes later, when every verifier has fetched it; old keys stay published until
    their tokens have expired. With --compromised it is used within a minute, and the old keys are refused everywhere
    within five.
    """
    settings = _settings()
    try:
        key = asyncio.run(_rotate(settings, compromised=compromised))
    except WrongKeyEncryptionKey:
        _fail("AUTH_KEY_ENCRYPTION_KEY is not the key that the stored signing keys were encrypted with.")
    except Problem as problem:
        _fail(problem.detail or problem.title)
    use_from = key.use_from.isoformat()
    _print(as_json, f"auth: new key {key.kid}, used from {use_from}", {"kid": key.kid, "use_from": use_from})


async def _insert_user(settings: AuthSettings, *, email: str, password: str, role: Role) -> User:
    pool = HashingPool(threads=1, queue_max=0)
    password_hash = await Passwords(PROFILES[settings.password_profile], pool).hash(password)
    pool.close()
    async with open_database(settings, "auth") as database, database.write() as session:
        return await store.insert_user(session, email=email, password_hash=password_hash, role=role)


async def _rotate(settings: AuthSettings, *, compromised: bool) -> SigningKey:
    async with open_database(settings, "auth") as database:
        return await keyring.rotate(database, settings, compromised=compromised)


def _read_password() -> str:
    """Return the password from a prompt where a person sits, from standard input where none does."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _settings() -> AuthSettings:
    """Return the settings, or name what is wrong with the environment, never its values."""
    try:
        return AuthSettings()
    except ValidationError as exc:
        _fail(wrong_settings("AUTH_", exc), code=2)


def _print(as_json: bool, text: str, outcome: dict[str, Any]) -> None:
    typer.echo(json.dumps(outcome) if as_json else text)


def _fail(text: str, *, code: int = 1) -> NoReturn:
    fail(text, code)
