"""
The log-ins of the `healthguard` command: one per address, in a file that only its owner can read.

Addresses are compared as they are written, but for capitals in the host and a slash at the end; so `localhost` and
`127.0.0.1` are two, since a token must not go to a host that nobody named.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from healthguard.client import Client
from healthguard.private_files import write_private
from healthguard.results import Tokens

_FRESH_S = 30.0
_FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """What is kept of a log-in; never a password."""

    email: str
    access_token: str = field(repr=False)
    expires_at: float
    """When the access token ends; seconds since 1970."""
    refresh_token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    """Traded for access tokens; `healthguard up` leaves the demo user's here."""

    @classmethod
    def of(cls, email: str, tokens: Tokens) -> "Login":
        """Return what is to be kept of a log-in made now."""
        return cls(email, tokens.access_token, time.time() + tokens.expires_in, tokens.refresh_token)


def path() -> Path:
    """Return the file's place. Source: XDG Base Directory Specification."""
    base = os.environ.get("XDG_CONFIG_HOME")
    config = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    return config / "healthguard" / "logins.json"


def read(file: Path) -> dict[str, Login]:
    """Return the log-ins by address; a file or an entry that is damaged is as if it were not there."""
    try:
        found = json.loads(file.read_bytes()[:_FILE_BYTES_MAX])
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {_address(url): login for url, entry in entries if (login := _login(entry)) is not None}


def _login(entry: Any) -> Login | None:
    """Return an entry as a log-in; none where it is not of that form."""
    match entry:
        case {"email": str(email), "access_token": str(token), "expires_at": float() | int() as expires_at}:
            keys = {name: entry.get(name) for name in ("refresh_token", "api_key")}
            if all(key is None or isinstance(key, str) for key in keys.values()):
                return Login(email, token, float(expires_at), **keys)
    return None


def _address(url: str) -> str:
    """Return *url* as it is looked up: host in lower case, no slash at the end."""
    scheme, separator, rest = url.strip().partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{separator}{host.lower()}{slash}{path}".rstrip("/")


def find(url: str) -> Login | None:
    """Return the log-in at an address."""
    return read(path()).get(_address(url))


def save(url: str, login: Login) -> None:
    """Keep a log-in, in place of an earlier one at the same address."""
    with _changing() as logins:
        logins[_address(url)] = login


def forget(url: str) -> Login | None:
    """Drop the log-in at an address, and return it."""
    with _changing() as logins:
        return logins.pop(_address(url), None)


@contextmanager
def _changing() -> Iterator[dict[str, Login]]:
    """Let one process at a time read, change and write the file."""
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        logins = read(file)
        yield logins
        write_private(file, json.dumps({url: asdict(login) for url, login in logins.items()}, indent=1) + "\n")
    finally:
        os.close(descriptor)


def access_token(url: str, ca_file: Path | None = None) -> str | None:
    """
    Return a token for *url* that still holds, renewed if need be; none where nobody is logged in.

    Args:
        ca_file: as `Client` has it.

    Raises:
        ClientError: the log-in cannot be renewed.
    """
    login = find(url)
    if login is None or login.expires_at > time.time() + _FRESH_S:
        return login.access_token if login else None
    tokens = _renewed(login, url, ca_file)
    if tokens is None:
        return None
    fresh = Login.of(login.email, tokens)
    save(url, replace(fresh, api_key=login.api_key))
    return fresh.access_token


def _renewed(login: Login, url: str, ca_file: Path | None) -> Tokens | None:
    """Return new tokens for a log-in whose access token has ended; none where it leaves no way to them."""
    with Client(url, ca_file=ca_file) as client:
        if login.api_key is not None:
            return client.trade(login.api_key)
        if login.refresh_token is not None:
            return client.refresh(login.refresh_token)
    return None
