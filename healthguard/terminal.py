"""How the `healthguard` command speaks: results on standard output, messages on standard error, and exit codes."""

import sys
from typing import NoReturn

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


def fail(message: str, status: int) -> NoReturn:
    """End the command with a message."""
    typer.secho(message, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    raise typer.Exit(status)
