"""`make smoke`: the whole product, used as a client would use it, in one command."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from healthguard.local.stack import ROOT
from models import artifact
from tests import committed
from tests.integration.local.product import MODELS, command, environment

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a temporary folder of our own for the command, with a short name: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def _left(folder: Path) -> list[Path]:
    """Return what smoke tests left."""
    return list(folder.glob("healthguard-smoke-*"))


def test_smoke_uses_every_golden_case_and_leaves_nothing(folder: Path) -> None:
    """All cases of all models are predicted and found again; the temporary folder is gone."""
    done = command("smoke", "--json", home=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["predictions"] == sum(
        len(artifact.golden(committed.folder(path.parent.name)).cases) for path in artifact.manifests(MODELS)
    )
    assert _left(folder) == []


def test_smoke_leaves_nothing_when_it_is_told_to_stop(folder: Path) -> None:
    """SIGTERM in the middle, as a CI system sends it, ends the processes and removes the folder."""
    with subprocess.Popen(
        [sys.executable, "-m", "healthguard", "smoke"],
        env=environment(folder),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "everything is ready" in first
        assert len(_left(folder)) == 1
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 1
    assert "stopped before its end" in said
    assert _left(folder) == []
