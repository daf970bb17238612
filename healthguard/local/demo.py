"""
The demo user of a local installation: a doctor with a random password, which is shown once and kept nowhere.

What is kept is an API key of theirs, in the data folder and in the log-ins of the `healthguard` command, so that the
line to paste works as it is, today and after the next start, with no password in a process list.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from healthguard import logins
from healthguard.client import Client
from healthguard.local.process import Command
from healthguard.local.stack import ROOT, Stack
from healthguard.logins import Login
from healthguard.private_files import write_private

EMAIL = "doctor@healthguard.example"
_CREATE_S_MAX = 30.0
_FILE_BYTES_MAX = 16 * 1024


class NoDemoUser(RuntimeError):
    """The demo user could not be made."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo user and their key."""

    email: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewDemo:
    """The demo user on the day they were made: the only time that the password is known."""

    demo: Demo
    password: str = field(repr=False)


def read(path: Path) -> Demo | None:
    """Return the demo user of an earlier start; none where there was none."""
    try:
        found = json.loads(path.read_bytes()[:_FILE_BYTES_MAX])
        return Demo(str(found["email"]), str(found["api_key"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def create(stack: Stack) -> NewDemo:
    """
    Make the demo user, with auth's own command and the public API.

    Raises:
        NoDemoUser: auth refused.
        ClientError: the log-in failed.
    """
    # The address may be taken by an earlier start that was interrupted right here; its password is lost then.
    made = _create_user(stack, EMAIL) or _create_user(stack, f"doctor-{token_hex(4)}@healthguard.example")
    if made is None:
        raise NoDemoUser("The demo user could not be made: see the log of auth.")
    email, password = str(made["email"]), str(made["password"])
    with Client(stack.url) as client:
        client.login(email, password)
        demo = Demo(email, client.create_api_key("healthguard up"))
    write_private(stack.data.demo, json.dumps(asdict(demo)) + "\n")
    return NewDemo(demo, password)


def _create_user(stack: Stack, email: str) -> dict[str, Any] | None:
    arguments = ("auth", "create-user", "--email", email, "--role", "doctor", "--generate", "--json")
    env = stack.settings(stack.cluster())["auth"]
    command = Command((sys.executable, "-m", "healthguard", *arguments), ROOT, env)
    try:
        done = subprocess.run(  # noqa: S603 - our own command line, no shell
            command.guarded_argv(),
            cwd=command.folder,
            env=command.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CREATE_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoDemoUser(f"The demo user could not be made within {_CREATE_S_MAX:.0f} s.") from None
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    return found if isinstance(found, dict) else None


def log_in(url: str, demo: Demo, *, first_start: bool) -> None:
    """
    Leave the demo user's key with the `healthguard` command, unless a person is logged in at this address.

    After a first start whatever was there belongs to an installation that is gone.
    """
    known = logins.find(url)
    if first_start or known is None or known.api_key is not None:
        logins.save(url, Login(demo.email, access_token="", expires_at=0.0, api_key=demo.api_key))
