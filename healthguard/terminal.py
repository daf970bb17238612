"""How the `healthguard` command speaks: results on standard output, messages on standard error, and exit codes."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import typer

EXIT_FAILED = 1
"""The service refused, or something went wrong on the way."""
EXIT_NOT_POSSIBLE = 2
"""Nothing was tried: the command line or the machine does not allow it."""
EXIT_UNREACHABLE = 3
"""Nothing answers at the address."""
EXIT_LOG_IN = 4
"""Nobody is logged in, or the log-in has ended."""


def say(message: str) -> None:
    """Tell a person something that is not a result."""
    typer.echo(message, err=True)


def fail(message: str, status: int, *, hint: str | None = None, problem: Mapping[str, Any] | None = None) -> NoReturn:
    """
    End the command with a message; for a program, one JSON line on standard output.

    Args:
        hint: what the person can do about it.
        problem: what the service said, as RFC 9457 calls it.
    """
    if wants_json():
        typer.echo(json.dumps(error_document(message, hint, problem)))
    else:
        text = f"{message} {hint}" if hint else message
        typer.secho(text, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    raise typer.Exit(status)


def error_document(message: str, hint: str | None = None, problem: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a program is told of an error."""
    members = {"message": message, "hint": hint, "problem": problem}
    return {"error": {name: value for name, value in members.items() if value}}


def wants_json() -> bool:
    """
    Tell whether our caller is a program.

    The command line is asked and not the parsed options, which are not there where they cannot be parsed.
    """
    words = sys.argv[1:]
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def command_line(*words: str) -> str:
    """Return a line to paste that calls this very `healthguard` from a second terminal in this folder."""
    script = Path(sys.executable).parent / "healthguard"
    found = shutil.which("healthguard")
    if found is not None and Path(found).resolve() == script.resolve():
        ours = ["healthguard"]
    elif script.exists():
        ours = [short(script)]
    else:
        ours = [sys.executable, "-m", "healthguard"]
    return shlex.join([*ours, *words])


def short(path: Path) -> str:
    """Return *path* from the working folder where it lies below it: second terminals open in the same place."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
