"""What the API server admits of a ServedModel, by the CRD alone: no webhook has to be up for it."""

import json
from typing import Any

import pytest

from serving.operator import crd
from serving.operator.drift import stands
from serving.operator.kubernetes import CallFailed, connect
from serving.operator.manifests import MODEL_LABEL, Owner, Size, children
from serving.operator.spec import API_VERSION, GROUP, KIND, read
from tests.cluster.cluster import Cluster, CommandFailed
from tests.unit.serving.operator import refusals, served

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served_models(cluster: Cluster) -> None:
    """Teach the cluster the definition: that it takes it says that no rule is too costly."""
    cluster.apply(crd.text(), "--force-conflicts")
    cluster.kubectl("wait", "crd/servedmodels.serving.healthguard.io", "--for=condition=Established", "--timeout=60s")


def a_model(name: str = "cancer", **changes: Any) -> str:
    """Return a ServedModel; *changes* are of its spec."""
    document = {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "metadata": {"name": name}}
    return json.dumps(document | {"spec": served.spec(**changes)})


def refusal(cluster: Cluster, namespace: str, document: str) -> str:
    """Return the words with which the API server refuses an object; fail where it takes it."""
    with pytest.raises(CommandFailed) as refused:
        cluster.apply(document, f"--namespace={namespace}", "--dry-run=server")
    return str(refused.value)


@pytest.mark.usefixtures("served_models")
@pytest.mark.parametrize(("changes", "sentence"), refusals.SENTENCES)
def test_api_server_refuses_what_breaks_a_rule(
    cluster: Cluster, namespace: str, changes: dict[str, Any], sentence: str
) -> None:
    """A rule across fields is told by a sentence that says what to do."""
    assert sentence in refusal(cluster, namespace, a_model(**changes))


@pytest.mark.usefixtures("served_models")
def test_api_server_refuses_fields_that_are_not_as_the_schema_has_them(cluster: Cluster, namespace: str) -> None:
    """Each is told by its name; a field that there is not is refused, and never silently ignored."""
    for case in refusals.FIELDS:
        changes, field = case.values
        assert str(field) in refusal(cluster, namespace, a_model(**changes)), case.id


@pytest.mark.usefixtures("served_models")
def test_api_server_refuses_names_that_children_could_not_have(cluster: Cluster, namespace: str) -> None:
    """A model's name becomes a part of its objects' names and of metrics."""
    assert "metadata.name" in refusal(cluster, namespace, a_model("cancer.v2"))
    assert "metadata.name" in refusal(cluster, namespace, a_model("c" * 41))


@pytest.mark.usefixtures("served_models")
@pytest.mark.parametrize("changes", refusals.WHOLE)
def test_api_server_admits_and_fills_in(cluster: Cluster, namespace: str, changes: dict[str, Any]) -> None:
    """What is right is taken, with the defaults that the operator would read, under its short name and category."""
    where = f"--namespace={namespace}"
    cluster.apply(a_model(**changes), where)
    found: Any = cluster.get("sm", "cancer", where)["spec"]
    assert (found["minReplicas"], found["goldenTest"]["required"]) == (changes.get("minReplicas", 1), True)
    if "rollout" in changes:
        assert (found["rollout"]["intervalSeconds"], found["autoscaling"]["cpuPercent"]) == (120, 80)
    assert "cancer" in cluster.kubectl("get", "healthguard", where, "--output=name")


@pytest.mark.usefixtures("served_models")
def test_version_keeps_its_digest_for_ever(cluster: Cluster, namespace: str) -> None:
    """Other bytes are another version; a version may move to another place, and traffic may move between versions."""
    where = f"--namespace={namespace}"
    cluster.apply(a_model(versions=refusals.THREE), where)
    changed = [refusals.THREE[0] | {"digest": "sha256:" + "cd" * 32}, *refusals.THREE[1:]]
    assert "add a version with a new number" in refusal(cluster, namespace, a_model(versions=changed))
    moved = [refusals.THREE[0] | {"storageUri": "pvc://elsewhere/cancer/1"}, *refusals.THREE[1:]]
    cluster.apply(a_model(versions=moved, traffic={"stable": 2}), where)


@pytest.mark.usefixtures("served_models")
def test_columns_tell_how_a_rollout_stands(cluster: Cluster, namespace: str) -> None:
    """`kubectl get sm` shows who answers, who is tried, with which share, and whether all is well."""
    where = f"--namespace={namespace}"
    cluster.apply(a_model(versions=refusals.THREE, traffic=refusals.CANARY), where)
    told = {"answering": 1, "rollout": {"version": 2, "phase": "Progressing", "canaryPercent": 5}}
    cluster.kubectl("patch", "sm", "cancer", where, "--subresource=status", "--type=merge", f"--patch={_status(told)}")
    heads, row = (line.split() for line in cluster.kubectl("get", "sm", "cancer", where).splitlines())
    shown = dict(zip(heads, row, strict=False))
    assert (shown["STABLE"], shown["ANSWERS"], shown["CANARY"], shown["SHARE"]) == ("1", "1", "2", "5")
    assert shown["ROLLOUT"] == "Progressing"


def test_api_server_keeps_objects_as_they_were_applied(cluster: Cluster, namespace: str) -> None:
    """What was applied is found to stand, defaults and all: a steady reconcile writes nothing, on a real server too."""
    owner = Owner("cancer", namespace, "0d9f3c1e-0000-4000-8000-000000000001")
    settings = served.settings(metrics_provider="builtin", metrics_service="metrics", own_namespace=namespace)
    changes = {
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"nvidia.com/gpu": 1}},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "autoscaling": {"target": 4},
        "maxReplicas": 4,
        "batching": {},
    }
    made = children(owner, read(served.spec(**changes)), settings, size=Size(1, scaled=True))
    where = f"--namespace={namespace}"
    for manifest in made:
        # The owner is made up, and would be missed: what it owns is removed at once.
        del manifest["metadata"]["ownerReferences"]
        cluster.apply(json.dumps(manifest), where)
        listed: Any = cluster.get(manifest["kind"], where, f"--selector={MODEL_LABEL}=cancer")["items"]
        assert [stands(manifest, found) for found in listed] == [True], manifest["kind"]


@pytest.mark.usefixtures("served_models")
async def test_status_is_written_into_a_cluster_with_an_older_definition(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field unknown to the definition is left out, and the rest told; not of another object, nor by an older form."""
    where = f"--namespace={namespace}"
    cluster.apply(a_model(), where)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    async with connect() as api:
        older: Any = cluster.get("sm", "cancer", where)["metadata"]
        await api.write_status(KIND, older, {"answering": 1, "readyReplicas": 3})
        newer: Any = cluster.get("sm", "cancer", where)["metadata"]
        await api.write_status(KIND, newer, {"answering": 1, "ofALaterRelease": 2})
        found: Any = cluster.get("sm", "cancer", where)["metadata"]
        for wrong in (found | {"uid": "another"}, older):
            with pytest.raises(CallFailed) as refusal:
                await api.write_status(KIND, wrong, {"answering": 7})
            assert refusal.value.status == 422
    assert cluster.get("sm", "cancer", where)["status"] == {"answering": 1}


def _status(told: dict[str, Any]) -> str:
    return json.dumps({"status": told})
