"""The product on the cluster: its images, the chart's values for it, and a client that comes in by the ingress."""

import datetime
import json
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography import x509

from healthguard.install import certificates
from tests.cluster import postgresql, tools
from tests.cluster.cluster import Cluster
from tests.images.base import Unavailable, base

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "healthguard"
ARCHIVES = ROOT / "build" / "images"
SERVICES = ("gateway", "auth", "records", "operator", "modelserver", "models")
RELEASE = "hg"
HOST = "healthguard.test"
_BUILD_S = 1800
_HELM_S = 900


def load_images(cluster: Cluster) -> None:
    """
    Build the product's images, and load them and PostgreSQL's into the node.

    Raises:
        tools.Unavailable: this machine cannot build them.
    """
    try:
        command = [sys.executable, "k8s/images/build.py", *SERVICES, "--base", base(), "--output", str(ARCHIVES)]
    except Unavailable as reason:
        raise tools.Unavailable(str(reason)) from reason
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    if run.returncode:
        raise AssertionError(f"the images could not be built: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    for archive in (*(ARCHIVES / f"{service}.tar" for service in SERVICES), postgresql.archive()):
        cluster.load_image(archive)


def values(**over: Any) -> dict[str, Any]:
    """Return values for this node: the profile dev, with images that are loaded and never pulled."""
    image = {"registry": postgresql.REGISTRY, "repository": postgresql.REPOSITORY, "tag": postgresql.TAG}
    return {"images": {"pullPolicy": "Never", "postgresql": image}, **over}


@dataclass(frozen=True)
class Installed:
    """A release of the chart in a namespace, by Helm 3 or 4."""

    cluster: Cluster
    namespace: str
    helm_version: int

    def helm(self, *arguments: str) -> str:
        """Run Helm in the release's namespace."""
        where = f"--namespace={self.namespace}"
        return self.cluster.helm(self.helm_version, *arguments, where, timeout_s=_HELM_S)

    def apply(self, folder: Path, values: dict[str, Any], *, command: str = "install", timeout: str = "10m") -> str:
        """Install or upgrade, and wait until all of it is ready."""
        file = folder / f"{command}.yaml"
        file.write_text(yaml.safe_dump(values))
        profile = f"--values={CHART / 'values' / 'dev.yaml'}"
        return self.helm(command, RELEASE, str(CHART), profile, f"--values={file}", "--wait", f"--timeout={timeout}")

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get` finds in the namespace."""
        return self.cluster.get(*arguments, f"--namespace={self.namespace}")

    def wait_for_models(self) -> None:
        """Wait until both models serve: Helm 3 does not know of them."""
        arguments = ("--all", f"--namespace={self.namespace}", "--for=condition=Ready", "--timeout=300s")
        self.cluster.kubectl("wait", "servedmodel", *arguments, timeout_s=320)


def make_door(cluster: Cluster, namespace: str, folder: Path) -> ssl.SSLContext:
    """Put a certificate of an authority of our own into the Secret `door`; return who trusts that authority alone."""
    now = datetime.datetime.now(datetime.UTC)
    authority = certificates.make_authority(now)
    pair = certificates.issue(authority, [HOST], now)
    assert x509.load_pem_x509_certificate(pair.certificate)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "door"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()},
    }
    cluster.apply(json.dumps(secret), f"--namespace={namespace}")
    (folder / "ca.pem").write_bytes(authority.certificate)
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def door(cluster: Cluster, trusted: ssl.SSLContext) -> httpx.Client:
    """Return a client that comes in over HTTPS through the ingress, checking name and chain."""
    # The name is ours alone, so it is asked for by SNI and Host, and the connection goes to the node's door.
    transport = httpx.HTTPTransport(verify=trusted)
    return httpx.Client(
        base_url=f"https://127.0.0.1:{cluster.https_port}",
        headers={"Host": HOST},
        transport=_Named(transport),
        timeout=30.0,
        trust_env=False,
    )


class _Named(httpx.BaseTransport):
    """Asks for the certificate of HOST, whatever the address."""

    def __init__(self, inner: httpx.HTTPTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": HOST}
        return self._inner.handle_request(request)
