"""The CRD says what the typed spec says, in the API server's words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.operator import crd, rbac
from serving.operator.spec import InvalidSpec, read
from tests import committed
from tests.unit.serving.operator import served

K8S = Path(__file__).parents[4] / "k8s"


def nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a schema and all that it contains."""
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    return [schema, *(node for part in inner for node in nodes(part))]


def test_crd_file_is_what_the_code_makes() -> None:
    """k8s/crd holds the definition of this code."""
    assert (K8S / "crd" / "servedmodels.yaml").read_text() == crd.text()


def test_crd_schema_is_structural() -> None:
    """Every node has one type, or is an int-or-string; none has what the API server does not know."""
    for node in [*nodes(crd.spec_schema()), *nodes(crd.status_schema())]:
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string"))
        assert not node.keys() & {"$ref", "$defs", "anyOf", "oneOf", "const", "title"}
        assert node.get("default", 0) is not None


def test_crd_explains_every_field_of_the_spec() -> None:
    """`kubectl explain` has a sentence for each field."""
    for node in nodes(crd.spec_schema()):
        assert all(
            "description" in part or "x-kubernetes-int-or-string" in part
            for part in node.get("properties", {}).values()
        )


def test_crd_bounds_every_text_and_list_of_the_spec() -> None:
    """Nothing in an object can grow without a bound, which CEL's cost estimate needs, too."""
    for node in nodes(crd.spec_schema()):
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node
        if node.get("type") == "array":
            assert "maxItems" in node
        if "additionalProperties" in node:
            assert "maxProperties" in node


def test_committed_manifests_fit_the_spec() -> None:
    """The models of this repository are ServedModels that the operator understands."""
    manifests = sorted((K8S.parent / "models").glob("*/servedmodel.yaml"))
    assert manifests
    for path in manifests:
        assert read(yaml.safe_load(path.read_text())["spec"]).stable.version == committed.version(path.parent.name)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"traffic": {"stable": 2}}, "spec", id="a stable version that is not in versions"),
        pytest.param({"canary": {}}, "canary", id="a field that this release does not honour"),
        pytest.param({"minReplicas": 0}, "minReplicas", id="no replicas"),
        pytest.param(
            {"versions": [{"version": 1, "storageUri": "ftp://x/y", "digest": served.DIGEST}]},
            "storageUri",
            id="a store of an unknown kind",
        ),
        pytest.param(
            {"versions": [{"version": 1, "storageUri": "pvc://m/1", "digest": "sha256:secret"}]},
            "digest",
            id="a digest that is none",
        ),
    ],
)
def test_spec_refuses(change: dict[str, Any], field: str) -> None:
    """What the schema does not allow is refused by the field's name, without its value."""
    with pytest.raises(InvalidSpec, match=field) as refused:
        read(served.spec(**change))
    assert "secret" not in str(refused.value)


def test_rbac_file_is_what_the_code_makes() -> None:
    """k8s/operator holds the rights of this code, with a comment for each, and none is a wildcard."""
    text = (K8S / "operator" / "rbac.yaml").read_text()
    assert text == rbac.text(cluster_wide=False)
    assert yaml.safe_load(text) == rbac.role(cluster_wide=False)
    assert "*" not in text
    assert text.count("  # ") == len(rbac.RULES)
