"""The product on the cluster: the chart's values for it, and a client that comes in by the ingress."""

import datetime
import json
import ssl
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography import x509

from healthguard.install import certificates
from tests.cluster import postgresql
from tests.cluster.cluster import Cluster
from tests.images.built import PREFIX

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "healthguard"
OLD_CHART = Path(__file__).parent / "fixtures" / "healthguard-0.1.0.tgz"
"""The chart as it was first installed by people; what it left has to be brought along."""
SERVICES = ("gateway", "auth", "records", "operator", "modelserver", "models")
RELEASE = "hg"
HOST = "healthguard.test"
_HELM_S = 900


def values(**over: Any) -> dict[str, Any]:
    """Return values for this node: the profile dev, with the images of `product_images`, which are never pulled."""
    registry, _, repository = PREFIX.partition("/")
    images: dict[str, Any] = {
        service: {"registry": registry, "repository": f"{repository}/{service}"} for service in SERVICES
    }
    images["postgresql"] = {"registry": postgresql.REGISTRY, "repository": postgresql.REPOSITORY, "tag": postgresql.TAG}
    return {"images": {"pullPolicy": "Never", **images}, **over}


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

    def apply(
        self,
        folder: Path,
        values: dict[str, Any],
        *,
        command: str = "install",
        chart: Path = CHART,
        timeout: str = "10m",
    ) -> str:
        """Install or upgrade with the chart's profile dev, and wait until all of it is ready."""
        file = folder / f"{command}.yaml"
        file.write_text(yaml.safe_dump(values))
        profile = f"--values={dev_profile(chart, folder)}"
        return self.helm(command, RELEASE, str(chart), profile, f"--values={file}", "--wait", f"--timeout={timeout}")

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get` finds in the namespace."""
        return self.cluster.get(*arguments, f"--namespace={self.namespace}")

    def run(self, component: str, program: Path, *arguments: str) -> str:
        """Run a Python file of this suite in a pod of *component*, and return what it wrote."""
        where = (f"--namespace={self.namespace}", f"deploy/{RELEASE}-{component}")
        return self.cluster.kubectl("exec", *where, "--", "python", "-c", program.read_text(), *arguments)

    def wait_for_models(self) -> None:
        """Wait until both models serve: Helm 3 does not know of them."""
        arguments = ("--all", f"--namespace={self.namespace}", "--for=condition=Ready", "--timeout=300s")
        self.cluster.kubectl("wait", "servedmodel", *arguments, timeout_s=320)


def dev_profile(chart: Path, folder: Path) -> Path:
    """Return the profile dev of a chart, be it a folder or a package."""
    inside = "values/dev.yaml"
    if chart.is_dir():
        return chart / inside
    with tarfile.open(chart) as package:
        found = package.extractfile(f"healthguard/{inside}")
        assert found is not None
        (folder / "dev.yaml").write_bytes(found.read())
    return folder / "dev.yaml"


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

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()
