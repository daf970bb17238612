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


def test_bare_call_is_help_and_no_error() -> None:
    """A person who only types the name learns what there is."""
    done = _run(str(SCRIPT))
    assert (done.returncode, done.stderr) == (0, "")
    assert "predict" in done.stdout
    assert _run(str(SCRIPT), "--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (2, ("predict", "--model", "cancer"), "FILE"),
        (2, ("pred",), "pred"),
        (2, ("models", "--url", "foo"), "is no address"),
        (2, ("models", "--url", "http://127.0.0.1:x"), "is no address"),
        (2, ("exec", "gateway"), "auth and records"),
        (3, ("models", "--url", "http://127.0.0.1:1"), "Nothing answers"),
        (3, ("status",), "Nothing runs"),
        (3, ("exec", "auth", "rotate-keys"), "Nothing runs"),
        (2, ("auth", "rotate-keys"), "AUTH_DSN"),
        (2, ("records", "migrate"), "RECORDS_DSN"),
    ],
)
def test_error_with_json_is_one_line_on_standard_output(
    status: int, words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program reads every error in one form, those of its own command line too; the exit code is the same."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done = _run(str(SCRIPT), *words, "--json")
    assert (done.returncode, done.stderr) == (status, "")
    assert said in json.loads(done.stdout)["error"]["message"]
    assert _run(str(SCRIPT), *words).returncode == status


def test_hint_calls_the_command_as_the_person_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the search path the command is called by its place, on the folder that was named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = _run(str(SCRIPT), "status", "--data-dir", str(tmp_path), "--json")
    script = SCRIPT.relative_to(Path.cwd()) if SCRIPT.is_relative_to(Path.cwd()) else SCRIPT
    assert json.loads(done.stdout)["error"]["hint"] == f"Start it with `{script} up --data-dir {tmp_path}`."


def test_unknown_command_is_a_usage_error() -> None:
    """A typing mistake ends with 2 and no traceback."""
    done = _run(str(SCRIPT), "pred")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_predict_imports_nothing_of_the_local_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of a HealthGuard elsewhere needs none of what runs one here."""
    code = (
        "import sys; from healthguard.cli import app\n"
        "try: app(['predict', sys.argv[1], '--model', 'cancer'])\n"
        "except SystemExit as ended: print(ended.code, *sys.modules)"
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HEALTHGUARD_URL", "http://127.0.0.1:1")
    image = tmp_path / "x.png"
    image.touch()
    status, *modules = _run(sys.executable, "-c", code, str(image)).stdout.split()
    assert status in {"3", "4"}  # it came as far as to look for a gateway and a log-in: neither is there
    assert "healthguard.logins" in modules
    assert [name for name in modules if name.startswith("healthguard.local")] == []
