"""The APIService is kept ours, never another's, and withdrawn before our namespace goes."""

import base64
from typing import Any

import pytest

from serving.operator.registration import AUTHORITIES_MAX, NAME, Registration, bundled


def pem(text: str) -> bytes:
    """Return what looks like a certificate."""
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode()


class Cluster:
    """An API server with one APIService and one namespace, as far as a registration asks."""

    def __init__(self, service: str | None = "hg-metrics") -> None:
        self.calls: list[str] = []
        self.bundle = ""
        self.service = service
        self.leaving = False

    async def get(self, kind: str, namespace: str | None, name: str) -> Any:
        """Return the object of that kind."""
        if kind == "Namespace":
            return {"metadata": {"name": name} | ({"deletionTimestamp": "now"} if self.leaving else {})}
        if self.service is None:
            return None
        spec = {"service": {"namespace": "hg", "name": self.service}, "caBundle": self.bundle}
        return {"metadata": {"uid": "7"}, "spec": spec}

    async def apply(self, manifest: Any) -> Any:
        """Take a new bundle."""
        assert manifest["metadata"] == {"name": NAME, "uid": "7"}
        assert list(manifest["spec"]) == ["caBundle"]
        self.bundle = manifest["spec"]["caBundle"]
        self.calls.append("apply")
        return manifest

    async def delete(self, kind: str, namespace: str | None, name: str, *, uid: str) -> None:
        """Remove the APIService."""
        assert (kind, namespace, name, uid) == ("APIService", None, NAME, "7")
        self.calls.append("delete")
        self.service = None


def registration(cluster: Cluster, authority: bytes = pem("a")) -> Registration:
    """Return our registration with a cluster."""
    return Registration(cluster, namespace="hg", service="hg-metrics", authority=authority)  # type: ignore[arg-type]


async def test_registration_tells_the_authority_once() -> None:
    """What is there already is not written again."""
    cluster = Cluster()
    ours = registration(cluster)
    await ours.uphold()
    await ours.uphold()
    assert base64.b64decode(cluster.bundle) == pem("a")
    assert cluster.calls == ["apply"]
    assert ours.holds


@pytest.mark.parametrize("service", ["keda-metrics", None], ids=["another provider's", "none"])
async def test_registration_leaves_what_is_not_ours(service: str | None) -> None:
    """An APIService of KEDA stays KEDA's, also while we leave; and none is made."""
    cluster = Cluster(service)
    ours = registration(cluster)
    await ours.uphold()
    cluster.leaving = True
    assert await ours.withdraw_if_leaving()
    assert not cluster.calls
    assert not ours.holds


async def test_registration_is_withdrawn_while_the_namespace_goes() -> None:
    """Only then: an operator that restarts stays known."""
    cluster = Cluster()
    ours = registration(cluster)
    await ours.uphold()
    assert not await ours.withdraw_if_leaving()
    cluster.leaving = True
    assert await ours.withdraw_if_leaving()
    assert cluster.calls == ["apply", "delete"]


def test_two_operators_are_both_known() -> None:
    """Each has an authority of its own: neither takes the other's away, and old ones go at last."""
    bundle = bundled("", pem("a"))
    bundle = bundled(bundle, pem("b"))
    assert bundled(bundle, pem("a")) == bundle
    assert base64.b64decode(bundle) == pem("b") + pem("a")
    for name in "cdefg":
        bundle = bundled(bundle, pem(name))
    assert base64.b64decode(bundle).count(b"BEGIN") == AUTHORITIES_MAX
    assert base64.b64decode(bundle).startswith(pem("g"))
    assert base64.b64decode(bundled("not base64!", pem("a"))) == pem("a")
