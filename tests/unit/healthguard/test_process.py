"""How a child process is started."""

import os
from pathlib import Path

import pytest

from healthguard.local import process
from healthguard.local.process import Command


def test_environment_of_a_child_holds_only_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our caller happened to have, such as another database's password, does not reach a service."""
    monkeypatch.setenv("PGPASSWORD", "secret")
    env = Command(("true",), Path("/"), {"AUTH_PORT": "1"}).environment()
    assert "PGPASSWORD" not in env
    assert env["AUTH_PORT"] == "1"
    assert env["PATH"] == os.environ["PATH"]


def test_guard_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard nothing is started unguarded."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(process.GuardMissing, match="util-linux"):
        Command(("true",), Path("/")).guarded_argv()
