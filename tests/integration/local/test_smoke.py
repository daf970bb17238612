"""`make smoke`: the whole product, used as a client would use it, in one command."""

import json
import tempfile
from pathlib import Path

import pytest

from models import artifact
from tests.integration.local.product import MODELS, command

pytestmark = pytest.mark.timeout(240)


def test_smoke_uses_every_golden_case_and_leaves_nothing(tmp_path: Path) -> None:
    """All cases of all models are predicted and found again; the temporary folder is gone."""
    done = command("smoke", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["predictions"] == sum(
        len(artifact.golden(path.parent / "1").cases) for path in artifact.manifests(MODELS)
    )
    assert list(Path(tempfile.gettempdir()).glob("healthguard-smoke-*")) == []
