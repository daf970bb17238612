"""The chart on a real node: installed, used, changed, rolled back and uninstalled, as a platform team would."""

import json
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster import tools
from tests.cluster.cluster import Cluster, CommandFailed
from tests.cluster.product import CHART, HOST, RELEASE, ROOT, Installed, door, load_images, make_door, values
from tests.cluster.runs import wait_until
from tests.deploy.charts import PROFILES

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(2400)]

KEPT = {"hg-auth", "hg-auth-database", "hg-gateway", "hg-postgresql", "hg-records", "hg-records-database"}
"""Secrets without which the kept volume cannot be read, or its records not be recognised."""


ADDRESSES = {
    "auth": ("hg-auth", 8000),
    "records": ("hg-records", 8002),
    "gateway": ("hg-gateway", 80),
    "postgresql": ("hg-postgresql", 5432),
    "operator": ("hg-operator", 8080),
    "model-server": ("model-cancer-v1", 8500),
}
REACHED = {
    "gateway": {"auth", "records", "model-server"},
    "auth": {"postgresql"},
    "records": {"auth", "postgresql"},
    "operator": set(),
}
"""Who gets through to whom, as docs/kubernetes.md has it."""

Right = tuple[str, str, str]
"""An account, a resource, and what is done with it."""

UNUSED: set[Right] = {
    *(("hg-operator", resource, "delete") for resource in ("deployments", "services", "configmaps")),
    *(("hg-operator", resource, "delete") for resource in ("networkpolicies", "poddisruptionbudgets")),
    *(("hg-operator", resource, "create") for resource in ("deployments", "services", "configmaps")),
    *(("hg-operator", resource, "create") for resource in ("networkpolicies", "poddisruptionbudgets")),
    ("hg-secrets", "secrets", "patch"),
    ("hg-leave", "servedmodels", "patch"),
}
"""
Rights that one life of a release does not show: removing a version that is no longer served, adding to a Secret that is
there, freeing a model that something holds; and the right to create, without which the API server refuses a patch that
would make the object, while its log tells of the patch only.
"""

_PROBE = """
import concurrent.futures, json, socket, sys
def open(entry):
    name, (host, port) = entry
    try:
        socket.create_connection((host, port), timeout=4).close()
        return name
    except OSError:
        return None
with concurrent.futures.ThreadPoolExecutor() as pool:
    print(json.dumps([name for name in pool.map(open, json.loads(sys.argv[1]).items()) if name]))
"""


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> None:
    """Have the product's images on the node."""
    try:
        load_images(cluster)
    except tools.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def release(request: pytest.FixtureRequest, cluster: Cluster, namespace: str, images: None) -> Iterator[Installed]:
    """Have a place for a release, by Helm 3 and by Helm 4; what is left of it goes with the test."""
    installed = Installed(cluster, namespace, request.param)
    yield installed
    if RELEASE in installed.helm("list", "--all", "--short").split():
        installed.helm("uninstall", RELEASE, "--no-hooks")


def test_product_is_installed_used_changed_rolled_back_and_uninstalled(
    cluster: Cluster, namespace: str, release: Installed, tmp_path: Path
) -> None:
    """One life of a release in a namespace that enforces *restricted*; hooks and tests are admitted too."""
    trusted = make_door(cluster, namespace, tmp_path)
    ingress = {"enabled": True, "host": HOST, "tls": {"enabled": True, "secretName": "door"}}
    told = release.apply(tmp_path, values(ingress=ingress))
    assert f"https://{HOST}/" in told
    release.wait_for_models()
    release.helm("test", RELEASE, "--timeout=6m")
    record = _predict_through_the_door(cluster, trusted)
    assert {source: _reached(release, source) for source in REACHED} == REACHED

    release.apply(
        tmp_path,
        values(ingress=ingress, internalTLS={"enabled": True}, gateway={"settings": {"log_level": "DEBUG"}}),
        command="upgrade",
    )
    release.wait_for_models()
    release.helm("test", RELEASE, "--timeout=6m")
    _finds(cluster, trusted, record)

    release.helm("rollback", RELEASE, "1", "--wait", "--timeout=10m")
    _finds(cluster, trusted, record)

    granted = _granted(release)
    release.helm("uninstall", RELEASE, "--wait", "--timeout=5m")
    if cluster.audit_log:
        assert _used(cluster.audit_log, namespace) == granted - UNUSED
    wait_until(lambda: _left(release) == [], "the namespace to be empty", 120)
    found = {one["metadata"]["name"] for one in release.get("secrets")["items"]}
    assert found - {"door"} == KEPT | {"hg-ca", "hg-auth-tls", "hg-records-tls"}
    claims = [one["metadata"]["name"] for one in release.get("persistentvolumeclaims")["items"]]
    assert claims == ["data-hg-postgresql-0"]

    # The data is found again by a new release with the kept secrets.
    release.apply(tmp_path, values(ingress=ingress))
    _finds(cluster, trusted, record)


def test_lost_secrets_are_not_made_anew(release: Installed, cluster: Cluster, tmp_path: Path) -> None:
    """A volume whose secrets are gone stops the install with the reason, before anything could lock it for good."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-hg-postgresql-0"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    cluster.apply(json.dumps(claim), f"--namespace={release.namespace}")
    with pytest.raises(CommandFailed):
        release.apply(tmp_path, values(), timeout="40s")
    told = cluster.kubectl("logs", "job/hg-secrets", f"--namespace={release.namespace}")
    assert "restore the Secret, or delete the claim" in told
    assert not KEPT & {one["metadata"]["name"] for one in release.get("secrets")["items"]}


def test_an_upgrade_leaves_the_autoscalers_replicas_alone(release: Installed, cluster: Cluster, tmp_path: Path) -> None:
    """What the autoscaler has decided stands, whatever is upgraded."""
    scaled = {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 2}}}
    release.apply(tmp_path, values(**scaled))
    wait_until(lambda: _replicas(release) == 2, "the autoscaler to ask for two gateways", 120)
    release.apply(tmp_path, values(**scaled, auth={"settings": {"log_level": "DEBUG"}}), command="upgrade")
    assert _replicas(release) == 2


def _replicas(release: Installed) -> int:
    return int(release.get("deployment", "hg-gateway")["spec"]["replicas"])


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_passes_the_api_servers_strict_validation(cluster: Cluster, namespace: str, profile: str) -> None:
    """Each object is what the API server knows, to the last field."""
    # The server judges ServedModels by the definition that it has.
    cluster.apply((CHART / "crds" / "servedmodels.yaml").read_text())
    files = [f"--values={CHART / 'values' / f'{profile}.yaml'}"]
    rendered = cluster.helm(4, "template", RELEASE, str(CHART), f"--namespace={namespace}", *files)
    told = cluster.apply(rendered, "--dry-run=server", f"--namespace={namespace}")
    assert "servedmodel.serving.healthguard.io/cancer" in told


def _predict_through_the_door(cluster: Cluster, trusted: ssl.SSLContext) -> dict[str, Any]:
    """Register, log in, predict and read the record back, over HTTPS; return the record with who may read it."""
    person = {"email": f"ada-{secrets.token_hex(4)}@example.org", "password": secrets.token_urlsafe(16)}
    image = ROOT / "models" / "cancer" / "1" / "assets.extra" / "golden" / "positive-01.png"
    with door(cluster, trusted) as client:
        wait_until(lambda: client.get("/livez").status_code == 200, "the ingress controller to know the route", 60)
        assert client.post("/api/v1/auth/register", json=person).status_code == 201
        made = client.post(
            "/api/v1/models/cancer/predictions",
            headers=_token(client, person),
            files={"file": ("image.png", image.read_bytes(), "image/png")},
        )
        assert made.status_code == 201, made.text
        assert made.json()["outcome"] == "Positive"
    record = {"person": person, "prediction": made.json()}
    _finds(cluster, trusted, record)
    return record


def _finds(cluster: Cluster, trusted: ssl.SSLContext, record: dict[str, Any]) -> None:
    """Check that the record is what it was."""
    with door(cluster, trusted) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200, "everything to be ready", 120)
        path = f"/api/v1/predictions/{record['prediction']['id']}"
        found = client.get(path, headers=_token(client, record["person"]))
        assert found.status_code == 200, found.text
        assert found.json() == record["prediction"]


def _token(client: httpx.Client, person: dict[str, str]) -> dict[str, str]:
    answer = client.post("/api/v1/auth/login", data={"username": person["email"], "password": person["password"]})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _reached(release: Installed, source: str) -> set[str]:
    """Return which of the addresses a pod of *source* can open a connection to."""
    where = f"--namespace={release.namespace}"
    others = {name: address for name, address in ADDRESSES.items() if name != source}
    command = ("exec", where, f"deploy/hg-{source}", "--", "python", "-c", _PROBE, json.dumps(others))
    found: list[str] = json.loads(release.cluster.kubectl(*command))
    return set(found)


def _granted(release: Installed) -> set[Right]:
    """Return the rights that the chart grants, hooks' too."""
    command = ("template", RELEASE, str(CHART), f"--values={CHART / 'values' / 'dev.yaml'}")
    found = [one for one in yaml.safe_load_all(release.helm(*command)) if one]
    roles = [one for one in found if one["kind"] in {"Role", "ClusterRole"}]
    return {
        (one["metadata"]["name"].removeprefix(f"{release.namespace}-"), resource, verb)
        for one in roles
        for rule in one["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _used(log: Path, namespace: str) -> set[Right]:
    """Return the rights that the namespace's accounts have used, as the API server has noted it."""
    prefix = f"system:serviceaccount:{namespace}:"
    used = set()
    with log.open() as lines:
        for event in (json.loads(line) for line in lines if prefix in line):
            target, user = event.get("objectRef"), event["user"]["username"]
            if target and user.startswith(prefix):
                assert event["responseStatus"]["code"] != 403, (
                    f"{user} was refused {event['verb']} {target['resource']}"
                )
                resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
                used.add((user.removeprefix(prefix), resource, event["verb"]))
    return used


def _left(release: Installed) -> list[str]:
    """Return what is left of the release, beside what it keeps on purpose."""
    kinds = "deployments,statefulsets,daemonsets,jobs,pods,services,configmaps,ingresses,networkpolicies,"
    kinds += "poddisruptionbudgets,horizontalpodautoscalers,serviceaccounts,roles,rolebindings,servedmodels"
    found = release.get(kinds)["items"]
    ours = ("kube-root-ca.crt", "default")
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found if one["metadata"]["name"] not in ours]
