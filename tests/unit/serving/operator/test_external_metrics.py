"""The external metrics API answers the API server alone, with what is known and nothing else."""

import asyncio
import base64
import datetime
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from healthguard.install.certificates import Pair, issue, make_authority
from serving.operator import external_metrics, registration
from serving.operator.external_metrics import model_of, values
from serving.operator.front_proxy import Door, NotConfigured, read
from serving.operator.settings import OperatorSettings
from tests.unit.serving.operator.served import settings

NOW = datetime.datetime.now(datetime.UTC)
PROXIES, OTHERS = make_authority(NOW), make_authority(NOW)
NAME = "hg-metrics.hg.svc"
PATH = "/apis/external.metrics.k8s.io/v1beta1"
QUESTION = f"{PATH}/namespaces/clinic/healthguard_predictions_in_flight"


class Cluster:
    """An API server that says who its front proxy is, and takes our authority."""

    def __init__(self) -> None:
        self.bundle = ""
        self.authority = PROXIES.certificate.decode()
        self.told = asyncio.Event()
        self.asked = asyncio.Event()

    async def get(self, kind: str, namespace: str | None, name: str) -> Any:
        """Return the object of that kind."""
        if kind == "ConfigMap":
            self.asked.set()
            names = json.dumps(["front-proxy"])
            data = {"requestheader-client-ca-file": self.authority, "requestheader-allowed-names": names}
            return {"data": data}
        if kind == "Namespace":
            return {"metadata": {"name": name}}
        service = {"namespace": "hg", "name": "hg-metrics"}
        return {"metadata": {"uid": "7"}, "spec": {"service": service, "caBundle": self.bundle}}

    async def apply(self, manifest: Any) -> Any:
        """Take the authority."""
        self.bundle = manifest["spec"]["caBundle"]
        self.told.set()
        return manifest


@dataclass
class Served:
    """The API as it runs, and what it measures."""

    port: int
    cluster: Cluster
    gauge: float | None
    registry: CollectorRegistry

    async def ask(self, path: str, pair: Pair | None, folder: Path) -> tuple[int, Any]:
        """
        Ask as who *pair* says.

        Raises:
            ClientError: the server lets nobody in who shows that.
        """
        context = shown(self, pair, folder)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{self.port}{path}", ssl=context, server_hostname=NAME) as response,
        ):
            return response.status, await response.json()

    async def refreshed(self) -> None:
        """Wait until the server has looked again who is let in."""
        self.cluster.asked.clear()
        await asyncio.wait_for(self.cluster.asked.wait(), 10)


def shown(served: Served, pair: Pair | None, folder: Path) -> ssl.SSLContext:
    """Return the TLS of who shows *pair*."""
    context = ssl.create_default_context(cadata=told_authority(served.cluster))
    if pair:
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def told_authority(cluster: Cluster) -> str:
    """Return the authority that the APIService has."""
    return base64.b64decode(cluster.bundle).decode()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Run the API for the namespace `clinic`, until the API server was told of it."""
    monkeypatch.setattr(external_metrics, "SAMPLE_S", 0.01)
    monkeypatch.setattr(external_metrics, "LEAVING_S", 0.05)
    monkeypatch.setattr(external_metrics, "UPHOLD_S", 0.05)
    port = free_port()
    given: OperatorSettings = settings(
        host="127.0.0.1",
        metrics_provider="builtin",
        metrics_service="hg-metrics",
        metrics_port=port,
        own_namespace="hg",
        namespaces=["clinic"],
    )
    found = Served(port, Cluster(), 3.5, CollectorRegistry())
    serving = asyncio.create_task(
        external_metrics.serve(found.cluster, given, lambda _namespace, _model: found.gauge, found.registry)  # type: ignore[arg-type]
    )
    await asyncio.wait_for(found.cluster.told.wait(), 10)
    yield found
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
def proxy() -> Pair:
    """Return the front proxy's certificate."""
    return issue(PROXIES, ["front-proxy"], NOW, client=True)


async def test_api_server_is_told_what_is_in_flight(served: Served, proxy: Pair, tmp_path: Path) -> None:
    """The discovery names the metric, and the metric has a value, to a thousandth."""
    status, found = await served.ask(PATH, proxy, tmp_path)
    assert (status, [one["name"] for one in found["resources"]]) == (200, ["healthguard_predictions_in_flight"])
    status = 503
    async with asyncio.timeout(10):
        while status == 503:
            # Nothing is known before it was looked at for a while.
            status, found = await served.ask(f"{QUESTION}?labelSelector=model%3Dcancer", proxy, tmp_path)
    assert status == 200
    assert found["kind"] == "ExternalMetricValueList"
    assert (found["items"][0]["value"], found["items"][0]["metricLabels"]) == ("3500m", {"model": "cancer"})


async def test_unknown_is_an_error_and_no_zero(served: Served, proxy: Pair, tmp_path: Path) -> None:
    """An autoscaler freezes at an error, and shrinks at 0."""
    served.gauge = None
    status, found = await served.ask(f"{QUESTION}?labelSelector=model%3Dcancer", proxy, tmp_path)
    assert (status, found["kind"], found["status"]) == (503, "Status", "Failure")
    assert served.registry.get_sample_value("healthguard_operator_external_metrics_total", {"result": "unknown"}) == 1.0
    assert served.registry.get_sample_value("healthguard_operator_external_metrics_registered") == 1.0


@pytest.mark.parametrize(
    "path",
    [
        f"{QUESTION}?labelSelector=model%21%3Dcancer",
        f"{QUESTION}?labelSelector=model%3D..%2Fcancer",
        QUESTION,
        f"{PATH}/namespaces/clinic/another_metric?labelSelector=model%3Dcancer",
        f"{PATH}/namespaces/elsewhere/healthguard_predictions_in_flight?labelSelector=model%3Dcancer",
    ],
)
async def test_other_questions_have_no_answer(served: Served, proxy: Pair, tmp_path: Path, path: str) -> None:
    """Another selector, metric or namespace is not guessed at."""
    status, found = await served.ask(path, proxy, tmp_path)
    assert (status, found["reason"]) == (404, "NotFound")


async def test_nobody_else_is_answered(served: Served, tmp_path: Path) -> None:
    """Neither who shows nothing, nor who shows another authority's certificate; another name of it is refused."""
    question = f"{QUESTION}?labelSelector=model%3Dcancer"
    for stranger in (None, issue(OTHERS, ["front-proxy"], NOW, client=True)):
        with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
            await served.ask(question, stranger, tmp_path)
    status, found = await served.ask(question, issue(PROXIES, ["kubelet"], NOW, client=True), tmp_path)
    assert (status, found["reason"]) == (403, "Forbidden")


async def test_withdrawn_authority_lets_in_nobody(served: Served, proxy: Pair, tmp_path: Path) -> None:
    """Neither by a new connection nor by one that was made before; the one in its place does, unless it is nonsense."""
    keeps = aiohttp.TCPConnector(ssl=shown(served, proxy, tmp_path))
    async with aiohttp.ClientSession(connector=keeps) as session:
        url = f"https://127.0.0.1:{served.port}{PATH}"
        async with session.get(url, server_hostname=NAME) as response:
            assert response.status == 200
        served.cluster.authority = OTHERS.certificate.decode()
        await served.refreshed()
        async with session.get(url, server_hostname=NAME) as response:
            assert response.status == 403
        with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
            await session.get(url, server_hostname=NAME)
    successor = issue(OTHERS, ["front-proxy"], NOW, client=True)
    assert (await served.ask(PATH, successor, tmp_path))[0] == 200


@pytest.mark.parametrize("text", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ä"])
async def test_authority_that_is_none_is_told(text: str) -> None:
    """It must not end the operator, and who was let in before still is."""
    cluster, door = Cluster(), Door()
    await door.refresh(cluster)  # type: ignore[arg-type]
    before = door._newest
    cluster.authority = text
    with pytest.raises(NotConfigured):
        await door.refresh(cluster)  # type: ignore[arg-type]
    assert door._newest is before


def test_cluster_without_aggregation_is_told() -> None:
    """Without an authority nobody could be let in, so nothing is served."""
    with pytest.raises(NotConfigured):
        read({"data": {"requestheader-allowed-names": "[]"}})
    with pytest.raises(NotConfigured):
        read({"data": {"requestheader-client-ca-file": "x", "requestheader-allowed-names": "7"}})


def test_selector_is_read_wholly_or_not_at_all() -> None:
    """One label, of the form that names have."""
    assert model_of("model=cancer") == "cancer"
    for other in ("", "model=", "model=Cancer", "model=a,x=y", "model in (a)", "model=" + "a" * 41):
        assert model_of(other) is None


def test_values_are_quantities() -> None:
    """Kubernetes has no fractions: a thousandth is the unit."""
    assert values("cancer", 0.0004, now=NOW)["items"][0]["value"] == "0m"
    assert values("cancer", 12.0, now=NOW)["items"][0]["value"] == "12000m"
    assert registration.NAME == "v1beta1.external.metrics.k8s.io"
