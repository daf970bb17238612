"""The `healthguard` command itself: names, exit codes, what it imports."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from healthguard import __version__
from healthguard.cli import LOCAL_COMMANDS

SCRIPT = Path(sys.executable).parent / "healthguard"
HEAVY = ("httpx", "fastapi", "sqlalchemy", "grpc", "rich.progress", "asyncio")


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [(str(SCRIPT),), (sys.executable, "-m", "healthguard")], ids=["script", "module"])
def test_version_is_printed_by_script_and_module(words: tuple[str, ...]) -> None:
    """Both ways of calling it are the same command."""
    done = _run(*words, "version", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"version": __version__})


def test_version_imports_nothing_heavy() -> None:
    """The command stays quick because it imports what it needs only."""
    code = "import sys; from healthguard.cli import app; app(['version'], standalone_mode=False); print(*sys.modules)"
    modules = _run(sys.executable, "-c", code).stdout.split()
    assert "typer" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_help_names_every_command() -> None:
    """Ours, the local installation's, and those that other packages contribute."""
    done = _run(str(SCRIPT), "--help")
    contributed = [entry.name for entry in entry_points(group="healthguard.commands")]
    assert contributed
    assert [
        name for name in (*LOCAL_COMMANDS, "predict", "login", "logout", *contributed) if name not in done.stdout
    ] == []


def test_missing_module_is_a_sentence() -> None:
    """Where a service's packages are not installed its commands say so, and the others go on working."""
    code = "import sys; sys.modules['alembic'] = None; from healthguard.cli import main; main()"
    done = _run(sys.executable, "-c", code, "auth", "migrate")
    assert done.returncode == 2
    assert "needs the Python module alembic" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_command_is_a_usage_error() -> None:
    """A typing mistake ends with 2 and no traceback."""
    done = _run(str(SCRIPT), "pred")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
