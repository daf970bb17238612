"""The operator on a real node, in its own image and with its own rights: what it serves, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import committed
from tests.cluster.cluster import Cluster
from tests.cluster.operator_pod import Manifest, a_container, a_pod, apply
from tests.cluster.runs import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
_SOON_S = 180.0
_CHILDREN = "deployment,service,configmap,networkpolicy,poddisruptionbudget,pod"


@pytest.fixture
def models(cluster: Cluster, namespace: str, product_images: dict[str, str]) -> str:
    """Fill the claim `models` with the demonstration models; return its name."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    filler = a_pod("filler", a_container("copy", product_images["models"]))
    filler["spec"]["containers"][0]["volumeMounts"] = [{"name": "models", "mountPath": "/mnt/models"}]
    filler["spec"] |= {
        "restartPolicy": "Never",
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    }
    apply(cluster, namespace, claim, filler)
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", "pod", "filler", f"--namespace={namespace}", succeeded, "--timeout=120s")
    return "models"


def a_model(name: str, **changes: Any) -> Manifest:
    """Return the committed ServedModel of the cancer model under another name; *changes* are of its spec."""
    document: Manifest = yaml.safe_load((ROOT / "models" / "cancer" / "servedmodel.yaml").read_text())
    document["metadata"]["name"] = name
    document["spec"] |= changes
    return document


def conditions(cluster: Cluster, namespace: str, name: str) -> dict[str, tuple[str, str, str]]:
    """Return status, reason and message of a model's conditions, by type."""
    found: Any = cluster.get("servedmodel", name, f"--namespace={namespace}")
    listed = found.get("status", {}).get("conditions", [])
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in listed}


def wait_for(cluster: Cluster, namespace: str, name: str, condition: str, reason: str) -> tuple[str, str, str]:
    """Wait until a model's condition has a reason, and return it; fail with all conditions and the operator's log."""

    def reached() -> bool:
        return conditions(cluster, namespace, name).get(condition, ("", "", ""))[1] == reason

    try:
        wait_until(reached, f"{condition}={reason} of {name}", _SOON_S)
    except TimeoutError as late:
        log = cluster.kubectl("logs", "operator", f"--namespace={namespace}", "--tail=20")
        pods = cluster.kubectl("get", "pods", f"--namespace={namespace}")
        raise AssertionError(f"{late}\n{conditions(cluster, namespace, name)}\n{pods}\n{log}") from late
    return conditions(cluster, namespace, name)[condition]


@pytest.mark.usefixtures("operator", "models")
def test_operator_serves_a_model_that_is_verified_and_right(cluster: Cluster, namespace: str) -> None:
    """From one object to a pod that has fetched, checked, loaded and proved the model; removed, nothing stays."""
    apply(cluster, namespace, a_model("cancer"))
    wait_for(cluster, namespace, "cancer", "Ready", "Serving")
    found = conditions(cluster, namespace, "cancer")
    expected = ("Scheduled", "ArtifactVerified", "Loaded", "GoldenTestPassed", "TrafficReady", "VersionsServed")
    assert {kind: found[kind][0] for kind in expected} == dict.fromkeys(expected, "True")
    where = f"--namespace={namespace}"
    metadata: Any = cluster.get("servedmodel", "cancer", where)["metadata"]
    # Neither of these may ever keep an object, or a GitOps tool, from doing what it wants.
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    endpoints: Any = cluster.get("endpoints", f"model-cancer-v{committed.version('cancer')}", where)
    assert len(endpoints["subsets"][0]["addresses"]) == 1
    # What `kubectl wait` and `helm --wait` ask for.
    cluster.kubectl("wait", "servedmodel", "cancer", where, "--for=condition=Ready", "--timeout=5s")
    cluster.kubectl("delete", "servedmodel", "cancer", where, "--timeout=60s")
    selector = "--selector=serving.healthguard.io/model=cancer"
    wait_until(
        lambda: not cluster.kubectl("get", _CHILDREN, where, selector, "--output=name", "--ignore-not-found"),
        "the model's objects to go",
        _SOON_S,
    )


@pytest.mark.usefixtures("operator", "models")
def test_operator_refuses_and_tells_why(cluster: Cluster, namespace: str) -> None:
    """A digest that is another's, a GPU that no node has, and a server that is not there each have their reason."""
    version = a_model("x")["spec"]["versions"][0]
    cluster.set_gpus(0)
    apply(
        cluster,
        namespace,
        a_model("changed", versions=[version | {"digest": "sha256:" + "0" * 64}]),
        a_model("gpu", resources={"limits": {"nvidia.com/gpu": 1}}),
        a_model("unpulled", runtime={"name": "tensorflow-serving"}),
    )
    changed = wait_for(cluster, namespace, "changed", "ArtifactVerified", "DigestMismatch")
    assert changed[0] == "False"
    assert version["digest"] in changed[2]
    _, _, message = wait_for(cluster, namespace, "gpu", "Scheduled", "InsufficientGPU")
    assert "Insufficient nvidia.com/gpu" in message
    assert "Add a node that has it free" in message
    wait_for(cluster, namespace, "unpulled", "Loaded", "ImageNotPulled")
    ready: Any = cluster.get("pods", f"--namespace={namespace}", "--selector=serving.healthguard.io/model=changed")
    assert not any(status["ready"] for pod in ready["items"] for status in pod["status"].get("containerStatuses", []))
