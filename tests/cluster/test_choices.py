"""What a person may choose at an installation, on a real node: a database of their own, and GPUs."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster import postgresql
from tests.cluster.cluster import Cluster
from tests.cluster.fake_nodes import fake_nodes
from tests.cluster.product import HOST, RELEASE, Installed, door, make_door, values
from tests.cluster.runs import wait_until
from tests.deploy.charts import merged

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(1200)]

DATABASE = "their-database"
_SERVE = """
umask 077
initdb --pgdata=/data/pgdata --username=postgres --auth=scram-sha-256 --pwfile=/secrets/superuser > /tmp/made
for service in auth records; do
  echo "CREATE ROLE $service LOGIN PASSWORD '$(cat /secrets/$service)'"
  echo "CREATE DATABASE $service OWNER $service"
done | postgres --single -D /data/pgdata postgres > /tmp/made
echo 'host all all all scram-sha-256' > /data/pgdata/pg_hba.conf
exec postgres -D /data/pgdata -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
GPU_MODEL = {
    "enabled": True,
    "spec": {
        "runtime": {"name": "embedded"},
        # Nothing is fetched: what stands on a node without a machine does nothing.
        "versions": [{"version": 1, "storageUri": "https://models.example/1.tar", "digest": f"sha256:{'0' * 64}"}],
        "traffic": {"stable": 1},
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    },
}


@pytest.fixture
def database(cluster: Cluster, namespace: str, product_images: dict[str, str]) -> str:
    """Run the wheel's PostgreSQL, built without SSL, put its addresses into Secrets, and return its name."""
    passwords = {name: secrets.token_urlsafe(24) for name in ("superuser", "auth", "records")}
    addresses = {
        service: f"postgresql://{service}:{passwords[service]}@{DATABASE}:5432/{service}?sslmode=disable"
        for service in ("auth", "records")
    }
    objects = [
        _secret("their-secrets", passwords),
        *(_secret(f"their-{service}", {"dsn": address}) for service, address in addresses.items()),
        _pod(),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": DATABASE},
            "spec": {"selector": {"app": DATABASE}, "ports": [{"port": 5432}]},
        },
    ]
    cluster.apply(yaml.safe_dump_all(objects), f"--namespace={namespace}")
    cluster.kubectl("wait", f"pod/{DATABASE}", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s")
    return DATABASE


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def _pod() -> dict[str, Any]:
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    folders = {"data": "/data", "tmp": "/tmp", "shm": "/dev/shm", "secrets": "/secrets"}
    container = {
        "name": "postgresql",
        "image": f"{postgresql.REGISTRY}/{postgresql.REPOSITORY}:{postgresql.TAG}",
        "imagePullPolicy": "Never",
        "command": ["sh", "-ec", _SERVE],
        "securityContext": locked,
        "readinessProbe": {"exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in folders.items()],
    }
    user = {"runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999}
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": {}} for name in ("data", "tmp", "shm")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": DATABASE, "labels": {"app": DATABASE}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [*volumes, {"name": "secrets", "secret": {"secretName": "their-secrets", "defaultMode": 0o440}}],
        },
    }


@pytest.fixture
def release(cluster: Cluster, namespace: str) -> Iterator[Installed]:
    """Have a place for a release by Helm 3, whose --wait does not wait for models that are to wait."""
    installed = Installed(cluster, namespace, 3)
    yield installed
    installed.helm("uninstall", RELEASE, "--no-hooks", "--ignore-not-found")


def test_a_database_of_ones_own_and_a_gpu_that_no_node_has(
    cluster: Cluster, namespace: str, database: str, release: Installed, tmp_path: Path
) -> None:
    """The schema is there before the services; the model waits and says why, until a node has what it asks for."""
    trusted = make_door(cluster, namespace, tmp_path)
    given = merged(
        values(ingress={"enabled": True, "host": HOST, "tls": {"enabled": True, "secretName": "door"}}),
        {
            "database": {"mode": "external"},
            "auth": {"database": {"existingSecret": "their-auth"}},
            "records": {"database": {"existingSecret": "their-records"}},
            "models": {"cancer": {"enabled": False}, "anemia": {"enabled": False}, "scan": GPU_MODEL},
            "demonstrationModels": {"enabled": False},
        },
    )
    cluster.set_gpus(0)
    told = release.apply(tmp_path, given)
    assert "scan asks for a GPU: it waits until a node has one free" in told
    with door(cluster, trusted) as client:
        _uses_the_database(client)
    assert not [one for one in release.get("pods")["items"] if "postgresql" in one["metadata"]["name"]]

    wait_until(lambda: _why(release)[:2] == ("False", "InsufficientGPU"), "the model to say what it waits for", 60)
    assert "Add a node that has it free" in _why(release)[2]
    assert _event_reasons(release) >= {"InsufficientGPU"}
    with fake_nodes(cluster, 2, gpus=1) as nodes:
        wait_until(lambda: _node(release) != "", "the model's pod to have a node", 60)
        assert _node(release) in nodes
        release.helm("uninstall", RELEASE, "--wait", "--timeout=3m")


def _uses_the_database(client: httpx.Client) -> None:
    """Register, log in, and ask records for one's history."""
    wait_until(lambda: client.get("/livez").status_code == 200, "the ingress controller to know the route", 60)
    person = {"email": f"ada-{secrets.token_hex(4)}@example.org", "password": secrets.token_urlsafe(16)}
    assert client.post("/api/v1/auth/register", json=person).status_code == 201
    form = {"username": person["email"], "password": person["password"]}
    token = client.post("/api/v1/auth/login", data=form).json()["access_token"]
    page = client.get("/api/v1/predictions", headers={"Authorization": f"Bearer {token}"})
    assert (page.status_code, page.json()["items"]) == (200, [])


def _why(release: Installed) -> tuple[str, str, str]:
    """Return status, reason and message of the model's Ready."""
    found = release.get("servedmodel", "scan").get("status", {}).get("conditions", [])
    ready = next((one for one in found if one["type"] == "Ready"), {"status": "", "reason": "", "message": ""})
    return ready["status"], ready["reason"], ready["message"]


def _event_reasons(release: Installed) -> set[str]:
    """Return the reasons of the events about the model."""
    found = release.get("events.events.k8s.io")["items"]
    return {one["reason"] for one in found if one["regarding"].get("kind") == "ServedModel"}


def _node(release: Installed) -> str:
    """Return the node of the model's pod; an empty text while it has none."""
    pods = release.get("pods", "--selector=serving.healthguard.io/model=scan")["items"]
    return str(pods[0]["spec"].get("nodeName", "")) if pods else ""
