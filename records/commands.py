"""The `healthguard records …` commands."""

from pathlib import Path
from typing import Annotated

import typer

from healthguard import migrations

app = typer.Typer(help="The records service.", no_args_is_help=True)

MIGRATIONS = Path(__file__).parent / "migrations"


@app.callback()
def records() -> None:
    """The records service."""


@app.command()
def migrate(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")] = False
) -> None:
    """Bring the database (RECORDS_DSN) to the newest schema; safe to repeat, and from several places at once."""
    migrations.migrate("records", MIGRATIONS, as_json=as_json)
