"""What is served by default follows the models of the repository, mechanically."""

import importlib.util
from typing import Any

import pytest
import yaml

from tests.deploy.charts import ROOT


def _command() -> Any:
    spec = importlib.util.spec_from_file_location("chart_models", ROOT / "helm" / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMAND = _command()
DIGEST = f"sha256:{'cd' * 32}"
NEXT = {
    "cancer": {
        "versions": [
            {"version": number, "storageUri": f"pvc://models/cancer/{number}", "digest": DIGEST} for number in (7, 8)
        ],
        "traffic": {"stable": 8},
    }
}


def test_the_committed_files_are_in_line() -> None:
    """`python helm/models.py` changes nothing."""
    models = COMMAND.manifests()
    assert models.keys() >= {"cancer", "anemia"}
    assert COMMAND.values(COMMAND.VALUES.read_text(), models) == COMMAND.VALUES.read_text()
    assert COMMAND.compose(COMMAND.COMPOSE.read_text(), models) == COMMAND.COMPOSE.read_text()


def test_a_new_version_reaches_both_files_and_leaves_the_rest() -> None:
    """Several versions at once, too; the other model and every comment stay as they were."""
    before = COMMAND.VALUES.read_text()
    after = yaml.safe_load(COMMAND.values(before, NEXT))["models"]
    assert after["cancer"]["spec"]["versions"] == NEXT["cancer"]["versions"]
    assert after["cancer"]["spec"]["traffic"] == {"stable": 8}
    assert after["anemia"] == yaml.safe_load(before)["models"]["anemia"]
    comments = [line for line in before.splitlines() if "#" in line]
    assert [line for line in COMMAND.values(before, NEXT).splitlines() if "#" in line] == comments
    compose = COMMAND.compose(COMMAND.COMPOSE.read_text(), NEXT)
    assert '"name": "cancer", "stable": 8,' in compose
    assert 'name: "cancer" base_path: "/models/cancer" model_platform: "tensorflow" model_version_policy { specific { versions: 8 }' in compose  # fmt: skip  # noqa: E501


def test_a_model_that_the_values_do_not_know_is_told() -> None:
    """A third model is a decision about its resources, which nobody makes by accident."""
    with pytest.raises(SystemExit, match="skin"):
        COMMAND.values(COMMAND.VALUES.read_text(), {"skin": NEXT["cancer"]})
