"""What is served follows what is declared: by the watch of a cluster, and by a file."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from gateway import kubernetes
from gateway.concurrency import ConcurrencyLimit
from gateway.discovery import DeclaredModel, Endpoint, watch_models_file
from gateway.kubernetes import Access, Cluster, in_cluster
from gateway.served import ServedModels
from gateway.traffic import Canary, Traffic
from gateway.upstream import session
from healthguard.tls import trusting
from serving.tfs.client import CLOSED, CallFailed
from tests.factories import contract
from tests.fakes import FakeModelServer
from tests.integration.gateway.kubernetes_api import TOKEN, Api
from tests.listening import listening

WAIT_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; fail when it does not in time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def served_model(**traffic: Any) -> dict[str, Any]:
    """Return a ServedModel."""
    return {"spec": {"traffic": {"stable": 1} | traffic}}


def endpoint_slice(*addresses: str, version: int = 1, leaving: bool = False) -> dict[str, Any]:
    """Return an EndpointSlice of pods that are ready, or about to end."""
    labels = {
        "kubernetes.io/service-name": f"model-cancer-v{version}",
        "serving.healthguard.io/model": "cancer",
        "serving.healthguard.io/version": str(version),
    }
    conditions = {"ready": not leaving, "serving": True, "terminating": leaving}
    return {
        "metadata": {"namespace": "clinic", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": 8500}],
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
    }


class Watching:
    """A cluster's watch, and what it last told."""

    def __init__(self, api: Api, cluster: Cluster) -> None:
        self.api = api
        self.cluster = cluster
        self.told: list[list[DeclaredModel]] = []

    def addresses(self, version: int = 1) -> list[str]:
        """Return the addresses that were told last."""
        if not self.told or not self.told[-1]:
            return []
        return [endpoint.address for endpoint in self.told[-1][0].endpoints[version]]


@pytest.fixture
async def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watching]:
    """Watch an API that has the model cancer and a pod of it."""
    monkeypatch.setattr(kubernetes, "BACKOFF_MIN_S", 0.01)
    (tmp_path / "token").write_text(TOKEN + "\n")
    api = Api()
    await api.put("servedmodels", "cancer", served_model())
    await api.put("endpointslices", "a", endpoint_slice("10.0.0.1"))
    async with listening(api.app()) as url, session(4, trusting(None)) as http:
        found: list[Watching] = []
        cluster = Cluster(http, Access(url, "clinic", tmp_path), lambda models: found[0].told.append(list(models)))
        found.append(Watching(api, cluster))
        task = asyncio.create_task(cluster.watch())
        await until(lambda: found[0].addresses() == ["10.0.0.1:8500"])
        # A watch that has not begun cannot be cut.
        await until(lambda: all(kind.watches for kind in api.kinds.values()))
        yield found[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.cut_watches()


async def test_watch_tells_of_every_change(watching: Watching) -> None:
    """Pods that come, leave and go; a canary; a model that is gone."""
    await watching.api.put("endpointslices", "a", endpoint_slice("10.0.0.1", "10.0.0.2"))
    await until(lambda: watching.addresses() == ["10.0.0.1:8500", "10.0.0.2:8500"])
    await watching.api.put("endpointslices", "a", endpoint_slice("10.0.0.1", leaving=True))
    await until(lambda: watching.told[-1][0].endpoints[1][0].leaving)
    await watching.api.put("servedmodels", "cancer", served_model(canary={"version": 2, "percent": 10}))
    await until(lambda: watching.told[-1][0].traffic == Traffic(1, Canary(2, 10.0)))
    await watching.api.delete("endpointslices", "a")
    await until(lambda: watching.addresses() == [])
    await watching.api.delete("servedmodels", "cancer")
    await until(lambda: watching.told[-1] == [])
    assert watching.api.kinds["endpointslices"].selectors == {"serving.healthguard.io/model"}


async def test_watch_goes_on_from_where_it_was_cut(watching: Watching) -> None:
    """What happened meanwhile is told, without another list."""
    lists = watching.api.kinds["endpointslices"].lists
    await watching.api.cut_watches()
    await watching.api.put("endpointslices", "a", endpoint_slice("10.0.0.9"))
    await until(lambda: watching.addresses() == ["10.0.0.9:8500"])
    assert watching.api.kinds["endpointslices"].lists == lists


async def test_expired_place_is_listed_again(watching: Watching) -> None:
    """Also when the 410 comes as an event, as it does from a real API server."""
    watching.api.oldest = watching.api.version + 1
    watching.api.kinds["endpointslices"].objects["a"] = endpoint_slice("10.0.0.7") | {
        "metadata": endpoint_slice()["metadata"] | {"name": "a"}
    }
    watching.api.version += 1
    await watching.api.cut_watches()
    await until(lambda: watching.addresses() == ["10.0.0.7:8500"])


@pytest.mark.parametrize("status", [500, 503, 429, 403])
async def test_refusals_are_tried_again_and_all_stays_as_it_was(watching: Watching, status: int) -> None:
    """While the API server has a bad time, nothing is told; the refusal is logged with its status."""
    told = len(watching.told)
    for kind in watching.api.kinds.values():
        kind.failures = [status] * 3
    with capture_logs() as logs:
        await watching.api.cut_watches()
        await until(lambda: not any(kind.failures for kind in watching.api.kinds.values()))
    assert {"event": "discovery_watch_failed", "exception": "Refused", "status": status, "log_level": "warning"} in logs
    await watching.api.put("endpointslices", "a", endpoint_slice("10.0.0.4"))
    await until(lambda: watching.addresses() == ["10.0.0.4:8500"])
    assert all(models for models in watching.told[told:])


async def test_token_is_read_anew(watching: Watching, tmp_path: Path) -> None:
    """The kubelet replaces it every hour or so."""
    watching.api.token = "another"
    await watching.api.cut_watches()
    await watching.api.put("endpointslices", "a", endpoint_slice("10.0.0.5"))
    (tmp_path / "token").write_text("another")
    await until(lambda: watching.addresses() == ["10.0.0.5:8500"])


async def test_long_lists_come_in_pages(watching: Watching) -> None:
    """All of them are taken before anything is told."""
    slices = watching.api.kinds["endpointslices"]
    slices.page = 2
    for number in range(5):
        await watching.api.put("endpointslices", f"s{number}", endpoint_slice(f"10.0.1.{number}"))
    await until(lambda: len(watching.addresses()) == 6)
    told = len(watching.told)
    watching.api.oldest = watching.api.version + 1
    watching.api.version += 1
    await watching.api.cut_watches()
    await until(lambda: slices.lists == 4)
    await until(lambda: len(watching.told) > told)
    assert all(len(models[0].endpoints[1]) == 6 for models in watching.told[told:])


async def test_silent_watch_is_noticed(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection over which nothing comes any more, as behind a firewall that forgot it, is given up."""
    monkeypatch.setattr(kubernetes, "SILENCE_S", 0.2)
    await watching.api.cut_watches()
    before = {name: kind.watches for name, kind in watching.api.kinds.items()}
    await until(lambda: all(kind.watches >= before[name] + 3 for name, kind in watching.api.kinds.items()))
    assert watching.cluster.age_s() < WAIT_S


async def test_object_of_another_form_changes_nothing(watching: Watching) -> None:
    """What was told last goes on; the next good state is told."""
    with capture_logs() as logs:
        await watching.api.put("servedmodels", "cancer", {"spec": {}})
        await until(lambda: any(entry["event"] == "discovery_object_refused" for entry in logs))
    assert watching.addresses() == ["10.0.0.1:8500"]


def test_place_of_the_api_server_comes_from_the_pod(tmp_path: Path) -> None:
    """IPv6 in brackets; outside of a pod it is said what is wrong."""
    (tmp_path / "namespace").write_text("clinic")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert in_cluster(environment, folder=tmp_path) == Access("https://[fd00::1]:6443", "clinic", tmp_path)
    assert in_cluster(environment, "other", tmp_path).namespace == "other"
    with pytest.raises(ValueError, match="pod"):
        in_cluster({})


async def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A broken one changes nothing; a link that moves to another file is a change."""
    path, told = tmp_path / "models.json", list[Any]()

    def write(target: Path, text: str) -> None:
        target.write_text(text)

    def document(stable: int) -> str:
        return json.dumps({"models": [{"name": "cancer", "stable": stable, "endpoints": ["127.0.0.1:1"]}]})

    write(tmp_path / "one", document(1))
    write(tmp_path / "two", document(2))
    path.symlink_to("one")
    task = asyncio.create_task(watch_models_file(path, told.append, interval_s=0.01))
    await asyncio.sleep(0.05)
    assert told == []
    path.unlink()
    path.symlink_to("two")
    await until(lambda: len(told) == 1)
    with capture_logs() as logs:
        write(tmp_path / "two", "half a fi")
        await until(lambda: any(entry["event"] == "models_file_refused" for entry in logs))
    write(tmp_path / "two", document(3))
    await until(lambda: len(told) == 2)
    task.cancel()
    assert [models[0].traffic.stable for models in told] == [2, 3]


@pytest.fixture
async def kept() -> AsyncIterator[ServedModels]:
    """Keep nothing yet."""
    found = ServedModels(interval_s=0.1, timeout_s=2.0, new_limit=lambda: ConcurrencyLimit(8, 1.0), drain_s=5.0)
    yield found
    await found.close()


def declared(*servers: FakeModelServer, leaving: tuple[FakeModelServer, ...] = ()) -> list[DeclaredModel]:
    """Declare the model cancer at *servers*."""
    endpoints = tuple(Endpoint(server.address, leaving=server in leaving) for server in servers)
    return [DeclaredModel("cancer", Traffic(1), {1: endpoints})]


async def test_what_stays_declared_stays_connected(kept: ServedModels) -> None:
    """A new pod does not cost the others their connections; one that is marked as leaving keeps its own."""
    async with FakeModelServer(contract()) as one, FakeModelServer(contract()) as two:
        kept.apply(declared(one))
        await until(lambda: kept.models["cancer"].versions[1].contract() is not None)
        model, (first,) = kept.models["cancer"], kept.models["cancer"].replicas
        kept.apply(declared(one, two))
        assert kept.models["cancer"] is model
        assert model.replicas[0] is first
        kept.apply(declared(one, two, leaving=(one,)))
        assert model.replicas[0] is first
        assert first.endpoint.leaving


async def test_calls_in_flight_end_at_a_server_that_is_gone(kept: ServedModels) -> None:
    """Its channel is closed after them, and a model that is gone is forgotten at once."""
    async with FakeModelServer(contract()) as one:
        kept.apply(declared(one))
        await until(lambda: kept.models["cancer"].versions[1].contract() is not None)
        (replica,) = kept.models["cancer"].replicas
        replica.in_flight = 1
        kept.apply([])
        assert kept.models == {}
        await replica.client.status("cancer", timeout_s=5.0)
        replica.in_flight = 0
        with pytest.raises(CallFailed) as refused:  # noqa: PT012 - the moment is the event loop's to choose
            async with asyncio.timeout(WAIT_S):
                while True:
                    await replica.client.status("cancer", timeout_s=5.0)
                    await asyncio.sleep(0.01)
        assert (refused.value.code, refused.value.details) == (grpc.StatusCode.UNAVAILABLE, CLOSED)
