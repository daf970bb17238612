"""The chart on a real node: installed, used, upgraded, rolled back and uninstalled, as a platform team would."""

import json
import secrets
import ssl
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import committed
from tests.cluster import caller
from tests.cluster.caller import REFUSED, SERVED
from tests.cluster.cluster import Cluster, CommandFailed
from tests.cluster.product import CHART, HOST, OLD_CHART, RELEASE, Installed, door, make_door, values
from tests.cluster.runs import wait_until
from tests.deploy.charts import PROFILES, SITE, merged

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(2400)]

KEPT = {"hg-auth", "hg-auth-database", "hg-gateway", "hg-postgresql", "hg-records", "hg-records-database"}
"""Secrets without which the kept volume cannot be read, or its records not be recognised."""
KEPT_TLS = {"hg-ca", *(f"hg-{holder}-tls" for holder in ("auth", "gateway", "models", "records"))}

MODEL = "model-cancer-v{version}"
ADDRESSES = {
    "auth": ("hg-auth", 8000),
    "records": ("hg-records", 8002),
    "gateway": ("hg-gateway", 80),
    "postgresql": ("hg-postgresql", 5432),
    "operator": ("hg-operator", 8080),
    "model-server": (MODEL, 8500),
    "outside": ("kubernetes.default.svc", 443),
}
REACHED = {
    "gateway": {"auth", "records", "model-server", "outside"},
    "auth": {"postgresql"},
    "records": {"auth", "postgresql"},
    "operator": {"gateway", "outside"},
}
"""Who gets through to whom, as docs/kubernetes.md has it."""

ANSWERED = {
    # Whoever has no token is a 401, and where there is no such page a 404: both have been let in.
    "auth": {"plain": REFUSED, "nameless": "404", "known": "404", "another name": REFUSED},
    "records": {"plain": REFUSED, "nameless": "403", "known": "401", "another name": REFUSED},
    "model-server": {"plain": REFUSED, "nameless": REFUSED, "known": SERVED, "another name": REFUSED},
}
"""What the gateway's pod is answered, as who it is and as nobody."""

DEFINITION = "servedmodels.serving.healthguard.io"
NEWER = "ssl_config_file"
"""A word of the newest definition that the first one does not have."""

Right = tuple[str, str, str]
"""An account, a resource, and what is done with it."""

MADE_BY_PATCH = ("deployments", "services", "configmaps", "networkpolicies", "poddisruptionbudgets", "events")
UNUSED: set[Right] = {
    *(("hg-operator", resource, "create") for resource in MADE_BY_PATCH),
    *(("hg-operator", "horizontalpodautoscalers", verb) for verb in ("get", "create", "patch", "delete")),
    ("hg-secrets", "secrets", "patch"),
    ("hg-leave", "servedmodels", "patch"),
}
"""
Rights that one life of a release does not show: adding to a Secret that is there, freeing a model that something holds,
scaling a model (test_autoscaling.py does); and the right to create, without which the API server refuses a patch that
would make the object, while its log tells of the patch only.
"""

NOT_OF_OLD: set[Right] = {
    ("hg-operator", "events", "patch"),
    ("hg-operator", "endpointslices", "list"),
    ("hg-operator", "horizontalpodautoscalers", "list"),
    *(
        ("hg-operator", resource, "list")
        for resource in ("services", "configmaps", "networkpolicies", "poddisruptionbudgets")
    ),
}
"""What today's operator would like to do and the first chart's Role does not grant: it goes on without."""

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


@pytest.fixture
def release(
    request: pytest.FixtureRequest, cluster: Cluster, namespace: str, product_images: dict[str, str]
) -> Iterator[Installed]:
    """Have a place for a release, by Helm 4 unless the test asks for another; what is left of it goes with the test."""
    installed = Installed(cluster, namespace, getattr(request, "param", 4))
    yield installed
    installed.helm("uninstall", RELEASE, "--no-hooks", "--ignore-not-found")


@pytest.mark.parametrize("release", [3, 4], ids=["helm3", "helm4"], indirect=True)
def test_one_life_of_a_release(cluster: Cluster, namespace: str, release: Installed, tmp_path: Path) -> None:
    """
    From the first chart to the newest, changed, rolled back, uninstalled and found again: a record stays throughout.

    All of it in a namespace that enforces *restricted*: hooks and tests are admitted too.
    """
    trusted = make_door(cluster, namespace, tmp_path)
    given = values(
        ingress={"enabled": True, "host": HOST, "tls": {"enabled": True, "secretName": "door"}},
        operator={"settings": {"drain_pods_s": 2, "resync_s": 10.0}},
    )
    _have_the_first_definitions(cluster)
    told = release.apply(tmp_path, given, chart=OLD_CHART)
    assert f"https://{HOST}/" in told
    release.wait_for_models()
    record = _predict_through_the_door(cluster, trusted)
    assert NEWER not in cluster.kubectl("get", "crd", DEFINITION, "--output=yaml")

    # PostgreSQL of the wheel, which this node runs, is built without SSL.
    tls = {"internalTLS": {"enabled": True, "postgresql": False}}
    newest = merged(given, tls | {"gateway": {"autoscaling": {"enabled": True}}})
    release.apply(tmp_path, newest, command="upgrade")
    release.wait_for_models()
    release.helm("test", RELEASE, "--timeout=6m")
    _finds(cluster, trusted, record)
    assert NEWER in cluster.kubectl("get", "crd", DEFINITION, "--output=yaml")
    version = _stable(release)
    assert {source: _reached(release, source, version) for source in REACHED} == REACHED
    assert _reached_by_a_stranger(release, version) == {"gateway", "outside"}
    assert {called: _without(one, "certificate") for called, one in _answered(release, version).items()} == ANSWERED

    # A busy machine may make it ask for more; one is what an upgrade would set it back to.
    wait_until(lambda: _replicas(release) >= 2, "the autoscaler to ask for more gateways than one", 120)
    before = _forget_certificates(release)
    changed = merged(newest, {"gateway": {"settings": {"log_level": "DEBUG"}}})
    release.apply(tmp_path, changed, command="upgrade")
    assert _replicas(release) >= 2
    _finds(cluster, trusted, record)
    wait_until(lambda: _renewed(release, version, before), "every server to show its new certificate", 240)

    granted = _granted(release, changed, tmp_path)
    release.helm("rollback", RELEASE, "1", "--wait", "--timeout=10m")
    _finds(cluster, trusted, record)
    release.apply(tmp_path, newest, command="upgrade")

    # Before the release goes: what still runs while its Roles are already deleted is refused, and nobody minds.
    refused = _used(cluster.audit_log, namespace, refused=True) if cluster.audit_log else set()
    assert refused <= NOT_OF_OLD
    release.helm("uninstall", RELEASE, "--wait", "--timeout=5m")
    if cluster.audit_log:
        assert _used(cluster.audit_log, namespace) == granted - UNUSED
    wait_until(lambda: _left(release) == _kept(), "nothing but what is kept to be there", 120)
    assert _left_of_the_cluster(release) == ["PersistentVolume"]

    # The data is found again by a new release with the kept secrets.
    release.apply(tmp_path, newest)
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


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_passes_the_api_servers_strict_validation(
    cluster: Cluster, namespace: str, profile: str, tmp_path: Path
) -> None:
    """Each object is what the API server knows, to the last field."""
    # The server judges ServedModels by the definition that it has.
    definitions = (CHART / "crds" / "servedmodels.yaml").read_text()
    cluster.apply(definitions, "--force-conflicts", "--field-manager=helm")
    # No profile has a route; the node knows the Gateway API's definitions, so it is judged too.
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE.get(profile, {})))
    values_files = (f"--values={CHART / 'values' / f'{profile}.yaml'}", f"--values={tmp_path / 'site.yaml'}")
    route = ("--set=httpRoute.enabled=true", "--set=httpRoute.parentRefs[0].name=door")
    rendered = cluster.helm(4, "template", RELEASE, str(CHART), f"--namespace={namespace}", *values_files, *route)
    told = cluster.apply(rendered, "--dry-run=server", f"--namespace={namespace}")
    assert "servedmodel.serving.healthguard.io/cancer" in told
    assert "httproute.gateway.networking.k8s.io/hg-gateway" in told


def _have_the_first_definitions(cluster: Cluster) -> None:
    """Have the definitions of the first chart, whatever another test has left: they are all namespaces' own."""
    with tarfile.open(OLD_CHART) as package:
        found = package.extractfile("healthguard/crds/servedmodels.yaml")
        assert found is not None
        # As Helm writes them: Helm 4 would see a conflict with anybody else.
        cluster.apply(found.read().decode(), "--force-conflicts", "--field-manager=helm")


def _predict_through_the_door(cluster: Cluster, trusted: ssl.SSLContext) -> dict[str, Any]:
    """Register, log in, predict and read the record back, over HTTPS; return the record with who may read it."""
    person = {"email": f"ada-{secrets.token_hex(4)}@example.org", "password": secrets.token_urlsafe(16)}
    image = committed.folder("cancer") / "assets.extra" / "golden" / "positive-01.png"
    with door(cluster, trusted) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200, "everything to be ready", 180)
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
        wait_until(lambda: client.get("/health/ready").status_code == 200, "everything to be ready", 180)
        path = f"/api/v1/predictions/{record['prediction']['id']}"
        found = client.get(path, headers=_token(client, record["person"]))
        assert found.status_code == 200, found.text
        # The answer to a prediction says more than is stored: whether it was kept from an earlier one, for example.
        assert found.json()["id"] == record["prediction"]["id"]
        assert found.json().items() <= record["prediction"].items()


def _token(client: httpx.Client, person: dict[str, str]) -> dict[str, str]:
    answer = client.post("/api/v1/auth/login", data={"username": person["email"], "password": person["password"]})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _stable(release: Installed) -> int:
    """Return the number of the version that answers."""
    return int(release.get("servedmodel", "cancer")["spec"]["traffic"]["stable"])


def _replicas(release: Installed) -> int:
    return int(release.get("deployment", "hg-gateway")["spec"]["replicas"])


def _reached(release: Installed, source: str, version: int) -> set[str]:
    """Return which of the addresses a pod of *source* can open a connection to."""
    where = f"--namespace={release.namespace}"
    others = {name: (host.format(version=version), port) for name, (host, port) in ADDRESSES.items() if name != source}
    command = ("exec", where, f"deploy/hg-{source}", "--", "python", "-c", _PROBE, json.dumps(others))
    found: list[str] = json.loads(release.cluster.kubectl(*command))
    return set(found)


def _reached_by_a_stranger(release: Installed, version: int) -> set[str]:
    """
    Return which of the addresses a pod of another namespace can open a connection to.

    No policy keeps it from calling anybody: what it does not reach is what the release's pods do not let in.
    """
    name = f"{release.namespace}-stranger"
    where = f"--namespace={name}"
    ours = f".{release.namespace}.svc"
    called = {
        who: (host if host.endswith("svc") else host.format(version=version) + ours, port)
        for who, (host, port) in ADDRESSES.items()
    }
    operator = release.get("deployment", "hg-operator")["spec"]["template"]["spec"]["containers"][0]["image"]
    container = {"name": "probe", "image": operator, "command": ["python", "-c", _PROBE, json.dumps(called)]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": name},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }
    release.cluster.kubectl("create", "namespace", name)
    try:
        release.cluster.kubectl("wait", "serviceaccount", "default", where, "--for=create", "--timeout=60s")
        release.cluster.apply(json.dumps(pod))
        release.cluster.kubectl("wait", "pod/probe", where, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
        return set(json.loads(release.cluster.kubectl("logs", "probe", where)))
    finally:
        release.cluster.kubectl("delete", "namespace", name, "--wait=false")


def _answered(release: Installed, version: int) -> dict[str, dict[str, str]]:
    """Return what the gateway's pod is answered by those whom it calls, and the certificates that they show."""
    models = f"hg-models.{release.namespace}.svc"
    called = {
        "auth": ("hg-auth", 8000, "hg-auth"),
        "records": ("hg-records", 8002, "hg-records"),
        "model-server": (MODEL.format(version=version), 8500, models),
    }
    told: dict[str, dict[str, str]] = json.loads(
        release.run("gateway", Path(caller.__file__), json.dumps(called)),
    )
    return told


def _without(found: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in found.items() if name != key}


def _certificates(release: Installed) -> dict[str, str]:
    """Return the certificates in the Secrets, by holder."""
    found = {holder: release.get("secret", f"hg-{holder}-tls") for holder in ("auth", "records", "models")}
    return {holder: b64decode(secret["data"]["tls.crt"]).decode() for holder, secret in found.items()}


def _forget_certificates(release: Installed) -> dict[str, str]:
    """Remove the servers' certificates, so that the next upgrade makes new ones; return the old."""
    before = _certificates(release)
    names = [f"hg-{holder}-tls" for holder in before]
    release.cluster.kubectl("delete", "secret", *names, f"--namespace={release.namespace}")
    return before


def _renewed(release: Installed, version: int, before: dict[str, str]) -> bool:
    """Tell whether all servers show what is in the Secrets now, which is not what was there before."""
    wanted = _certificates(release)
    assert not set(wanted.values()) & set(before.values())
    try:
        shown = _answered(release, version)
    except CommandFailed:
        # Pods are being replaced: the one that asks may go meanwhile, or a name be nobody's for a moment.
        return False
    by_holder = {"auth": shown["auth"], "records": shown["records"], "models": shown["model-server"]}
    return {holder: one["certificate"] for holder, one in by_holder.items()} == wanted


def _granted(release: Installed, given: dict[str, Any], folder: Path) -> set[Right]:
    """Return the rights that the chart grants, hooks' too."""
    (folder / "granted.yaml").write_text(yaml.safe_dump(given))
    profile = f"--values={CHART / 'values' / 'dev.yaml'}"
    where = f"--namespace={release.namespace}"
    # Helm 3 renders for the Kubernetes that it was built with, if it was not told one; the rights are the same.
    rendered = release.cluster.helm(
        4, "template", RELEASE, str(CHART), where, profile, f"--values={folder / 'granted.yaml'}"
    )
    found = [one for one in yaml.safe_load_all(rendered) if one]
    roles = [one for one in found if one["kind"] in {"Role", "ClusterRole"}]
    return {
        (one["metadata"]["name"].removeprefix(f"{release.namespace}-"), resource, verb)
        for one in roles
        for rule in one["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _used(log: Path, namespace: str, *, refused: bool = False) -> set[Right]:
    """Return the rights that the namespace's accounts have used, or were refused, as the API server has noted it."""
    prefix = f"system:serviceaccount:{namespace}:"
    used = set()
    with log.open() as lines:
        for event in (json.loads(line) for line in lines if prefix in line):
            target, user = event.get("objectRef"), event["user"]["username"]
            if target and user.startswith(prefix):
                resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
                if (event["responseStatus"]["code"] == HTTPStatus.FORBIDDEN) == refused:
                    used.add((user.removeprefix(prefix), resource, event["verb"]))
    return used


def _kept() -> set[str]:
    return {
        "PersistentVolumeClaim/data-hg-postgresql-0",
        *(f"Secret/{name}" for name in KEPT | KEPT_TLS | {"door"}),
        # Kubernetes' own, in every namespace.
        "ConfigMap/kube-root-ca.crt",
        "ServiceAccount/default",
    }


def _left(release: Installed) -> set[str]:
    """Return every object in the namespace, of every kind that the API server knows."""
    # Events tell of what was; the API server forgets them by itself.
    kinds = [
        kind for kind in _kinds(release.cluster, namespaced=True) if not kind.startswith(("events", "pods.metrics"))
    ]
    found = release.get(",".join(kinds), "--ignore-not-found")["items"]
    return {f"{one['kind']}/{one['metadata']['name']}" for one in found}


def _left_of_the_cluster(release: Installed) -> list[str]:
    """Return the kinds of the objects beside any namespace that speak of ours, beside itself."""
    kinds = _kinds(release.cluster, namespaced=False)
    found: list[Any] = release.get(",".join(kinds), "--ignore-not-found")["items"]
    return sorted(one["kind"] for one in found if release.namespace in json.dumps(one) and one["kind"] != "Namespace")


def _kinds(cluster: Cluster, *, namespaced: bool) -> list[str]:
    """Return every kind of object that can be listed, namespaced or not."""
    listed = cluster.kubectl(
        "api-resources", f"--namespaced={str(namespaced).lower()}", "--verbs=list", "--output=name"
    )
    return listed.split()
