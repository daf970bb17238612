"""The queue, the watch's age, and what a reconcile does to the API."""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.operator.apply import carry_out, clock
from serving.operator.certificates import Unusable
from serving.operator.kubernetes import TRIES, Access, Api, CallFailed, NoAccess, access, connect, path_of
from serving.operator.manifests import CHILD_KINDS
from serving.operator.observe import observe
from serving.operator.operate import Operator
from serving.operator.plan import plan
from serving.operator.watch_age import WatchAge
from serving.operator.workqueue import Key, WorkQueue
from tests.unit.serving.operator import served

_MORE_KINDS = ("HorizontalPodAutoscaler", "Pod", "Node", "ServedModel")
CANCER, ANEMIA = Key("clinic", "cancer"), Key("clinic", "anemia")


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


async def test_queue_hands_a_key_out_once() -> None:
    """However often a model was heard of, it is looked at once."""
    queue = WorkQueue()
    for _ in range(5):
        queue.add(CANCER)
    assert await queue.take() == CANCER
    assert len(queue) == 0


async def test_queue_keeps_back_what_is_being_worked_on() -> None:
    """A model that changes while it is looked at comes again after that, and not beside it."""
    queue = WorkQueue()
    queue.add(CANCER)
    await queue.take()
    queue.add(CANCER)
    queue.add(ANEMIA)
    assert await queue.take() == ANEMIA
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.01)
    queue.done(CANCER)
    assert await queue.take() == CANCER


async def test_queue_waits_longer_after_each_failure() -> None:
    """A model that fails comes again after 1, 2, 4 … seconds, at most five minutes; a success forgets it."""
    clock = Clock()
    queue = WorkQueue(clock)
    waits = []
    for _ in range(12):
        queue.add(CANCER)
        await queue.take()
        queue.failed(CANCER)
        waits.append(queue._due[CANCER] - clock.now)
        clock.now += waits[-1]
        assert await queue.take() == CANCER
        queue._release(CANCER)
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == 300
    queue.done(CANCER)
    queue.failed(CANCER)
    assert queue._due[CANCER] - clock.now == 1


def test_watch_that_tells_owes_nothing() -> None:
    """What is listed as the watch told it makes no age."""
    clock = Clock()
    age = WatchAge(clock)
    age.tell("a", "1")
    age.compare({"a": "1"})
    clock.now += 1000
    age.compare({"a": "1"})
    assert age.age_s == 0


def test_watch_that_missed_a_change_gets_old() -> None:
    """A change that is listed and never told makes an age, until the watch tells again."""
    clock = Clock()
    age = WatchAge(clock)
    age.tell("a", "1")
    for _ in range(3):
        age.compare({"a": "2"})
        clock.now += 60
    assert age.age_s == 180
    age.tell("a", "2")
    age.compare({"a": "2"})
    assert age.age_s == 0


def test_watch_that_is_behind_but_moves_does_not_get_old() -> None:
    """Under constant change a list is always newer than the watch; that is no dead watch."""
    clock = Clock()
    age = WatchAge(clock)
    for version in range(10):
        age.tell("a", str(version))
        age.compare({"a": str(version + 1)})
        clock.now += 60
    assert age.age_s <= 60


def test_watch_forgets_objects_that_are_gone() -> None:
    """A removed object owes nothing and takes no memory."""
    age = WatchAge(Clock())
    age.tell("a", "1")
    age.compare({})
    assert (age._told, age._owes) == ({}, {})


_PLURALS = {path_of(kind, "clinic").rpartition("/")[2] for kind in (*CHILD_KINDS, *_MORE_KINDS)}


@dataclass
class Server:
    """A tiny API server: objects by path, refusals to hand out first, and a record of the calls."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: list[web.Response] = field(default_factory=list)
    forbidden: str = ""
    no_events: bool = False
    unlisted: frozenset[str] = frozenset()
    """Kinds, in the plural, that may not be listed."""
    calls: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one call as the API server would."""
        self.calls.append((request.method, request.path))
        if self.refusals:
            return self.refusals.pop(0)
        if self.no_events and "/events/" in request.path:
            return web.json_response({"message": "no right"}, status=403)
        if request.path == self.forbidden and (request.method == "PATCH" or "servedmodels" in self.forbidden):
            return web.json_response({"message": "quota exceeded"}, status=403)
        if request.method == "PATCH":
            return await self._apply(request)
        if request.method == "DELETE":
            return web.json_response({}, status=200 if self.objects.pop(request.path, None) else 404)
        return self._read(request.path)

    def _read(self, path: str) -> web.Response:
        if path in self.objects:
            return web.json_response(self.objects[path])
        if path.rpartition("/")[2] in self.unlisted:
            return web.json_response({"message": "no right"}, status=403)
        if path.rpartition("/")[2] in _PLURALS:
            listed = [found for each, found in self.objects.items() if each.rpartition("/")[0] == path]
            # As the API server does: what a list says of all its items, none of them says.
            items = [{key: value for key, value in one.items() if key not in ("apiVersion", "kind")} for one in listed]
            return web.json_response({"items": items, "metadata": {}})
        return web.json_response({"message": "not found"}, status=404)

    async def _apply(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json-patch+json":
            return await self._status(request)
        if request.content_type == "application/merge-patch+json":
            return await self._scale(request)
        assert request.content_type == "application/apply-patch+yaml"
        assert request.query["fieldManager"] == "healthguard-operator"
        body = await request.json()
        body["metadata"] |= {"uid": f"uid-of-{request.path}", "generation": 1}
        self.objects[request.path] = body
        return web.json_response(body)

    async def _status(self, request: web.Request) -> web.Response:
        found, (*tests, add) = self.objects[request.path.removesuffix("/status")], await request.json()
        assert ({test["op"] for test in tests}, add["path"]) == ({"test"}, "/status")
        if any(test["value"] != found["metadata"][test["path"].removeprefix("/metadata/")] for test in tests):
            return web.json_response({"message": "the server rejected our request"}, status=422)
        found["status"] = add["value"]
        found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
        return web.json_response(found)

    async def _scale(self, request: web.Request) -> web.Response:
        if request.path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        self.objects[request.path]["spec"] |= (await request.json())["spec"]
        return web.json_response({})

    def writes(self) -> list[str]:
        """Return the paths that were written to."""
        return [path for method, path in self.calls if method != "GET"]


@asynccontextmanager
async def reached(server: Server, pauses: list[float] | None = None) -> AsyncIterator[Api]:
    """Run *server* on a free port, and yield the API over it; pauses are noted, not made."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]

    async def pause(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    try:
        async with connect(lambda: Access(f"http://{host}:{port}", {}, None), pause) as api:
            yield api
    finally:
        await runner.cleanup()


def a_model(**changes: Any) -> dict[str, Any]:
    """Return a ServedModel as the API server keeps it."""
    metadata = {
        "name": "cancer",
        "namespace": "clinic",
        "uid": served.OWNER.uid,
        "generation": 1,
        "resourceVersion": "1",
    }
    return {"kind": "ServedModel", "metadata": metadata, "spec": served.spec(**changes)}


MODEL_PATH = path_of("ServedModel", "clinic", "cancer")
CHILDREN = ("ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment")


async def test_reconcile_makes_all_objects_and_tells() -> None:
    """One reconcile of a new model applies its objects and writes its status."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        await Operator(api, served.settings()).reconcile(CANCER)
    children = [path_of(kind, "clinic", "model-cancer-v1") for kind in CHILDREN]
    *written, event = server.writes()
    assert written == [*children, f"{MODEL_PATH}/status"]
    assert server.objects[MODEL_PATH]["status"]["observedGeneration"] == 1
    assert (server.objects[event]["reason"], server.objects[event]["type"]) == ("NoPods", "Normal")


async def test_reconcile_again_writes_no_status() -> None:
    """A status that is as it should be is not written: every write would wake the watch up."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        await operator.reconcile(CANCER)
        await operator.reconcile(CANCER)
    assert server.writes().count(f"{MODEL_PATH}/status") == 1
    assert len([path for path in server.writes() if "/events/" in path]) == 1


async def test_reconcile_writes_what_somebody_changed_and_nothing_else() -> None:
    """A steady reconcile only reads; a Service that lost its selector is set right, alone."""
    path = path_of("Service", "clinic", "model-cancer-v1")
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        await operator.reconcile(CANCER)
        server.calls.clear()
        await operator.reconcile(CANCER)
        assert server.writes() == []
        server.objects[path]["spec"]["selector"] = {}
        await operator.reconcile(CANCER)
    assert server.writes() == [path]


async def test_reconcile_removes_what_an_operator_that_died_left() -> None:
    """Objects of a version that nobody serves, without their Deployment: they carry the model's label, and go."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        await operator.reconcile(CANCER)
        for kind in ("ConfigMap", "Service"):
            left = copy.deepcopy(server.objects[path_of(kind, "clinic", "model-cancer-v1")])
            left["metadata"]["name"] = "model-cancer-v7"
            left["metadata"]["labels"]["serving.healthguard.io/version"] = "7"
            server.objects[path_of(kind, "clinic", "model-cancer-v7")] = left
        await operator.reconcile(CANCER)
    assert not [path for path in server.objects if path.endswith("-v7")]
    assert path_of("Service", "clinic", "model-cancer-v1") in server.objects


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(1, id="of a version in traffic"),
        pytest.param(7, id="of a version that nothing asks for any more"),
    ],
)
async def test_deployment_without_its_version_label_is_known_by_its_name(version: int) -> None:
    """Somebody took the label away: it is not version 0, and what answers is found."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        await Operator(api, served.settings()).reconcile(CANCER)
        stripped = server.objects.pop(path_of("Deployment", "clinic", "model-cancer-v1"))
        stripped["metadata"]["name"] = f"model-cancer-v{version}"
        del stripped["metadata"]["labels"]["serving.healthguard.io/version"]
        server.objects[path_of("Deployment", "clinic", f"model-cancer-v{version}")] = stripped
        observed = await observe(api, "clinic", "cancer")
    assert observed is not None
    assert [each.version for each in observed.deployments] == [version]


async def test_kind_that_the_cluster_does_not_know_has_no_objects() -> None:
    """Without KEDA's definitions models are served all the same; of a kind of Kubernetes' own it is a failure."""
    server = Server({MODEL_PATH: a_model()})
    keda = served.settings(metrics_provider="keda", prometheus_url="https://prometheus.test")
    async with reached(server) as api:
        await Operator(api, keda).reconcile(CANCER)
        with pytest.raises(CallFailed):
            await observe(api, "clinic", "cancer", ("Event",))
    assert path_of("Deployment", "clinic", "model-cancer-v1") in server.objects


async def test_reconcile_goes_on_with_the_role_of_an_older_release() -> None:
    """What may not be listed is asked for by name."""
    rest = frozenset({"services", "configmaps", "networkpolicies", "poddisruptionbudgets", "horizontalpodautoscalers"})
    server = Server({MODEL_PATH: a_model()}, unlisted=rest)
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        await operator.reconcile(CANCER)
        server.calls.clear()
        await operator.reconcile(CANCER)
    assert server.writes() == []
    assert path_of("Service", "clinic", "model-cancer-v1") in [path for _, path in server.calls]


@pytest.mark.parametrize(
    ("see", "unlisted", "reason"),
    [
        pytest.param(False, frozenset(), "DevicesNotSeen", id="it is not to look"),
        pytest.param(True, frozenset({"nodes"}), "DevicesNotSeen", id="it may not look"),
        pytest.param(True, frozenset(), "NotBlocked", id="it looks"),
    ],
)
async def test_reconcile_looks_at_devices_where_it_may(see: bool, unlisted: frozenset[str], reason: str) -> None:
    """Where it may not, the model is served all the same, and a condition says that nobody looked."""
    server = Server({MODEL_PATH: a_model(resources={"limits": {"nvidia.com/gpu": 1}})}, unlisted=unlisted)
    async with reached(server) as api:
        await Operator(api, served.settings(see_devices=see)).reconcile(CANCER)
    conditions = {each["type"]: each for each in server.objects[MODEL_PATH]["status"]["conditions"]}
    assert conditions["RolloutBlocked"]["reason"] == reason
    assert path_of("Deployment", "clinic", "model-cancer-v1") in server.objects


async def test_reconcile_looks_again_before_it_begins_something() -> None:
    """The look at the devices serves several models; what it says is old where another one took the device since."""
    server = Server({MODEL_PATH: a_model(resources={"limits": {"nvidia.com/gpu": 1}})})
    async with reached(server) as api:
        operator = Operator(api, served.settings(see_devices=True))
        for expected in (2, 2):
            await operator.reconcile(CANCER)
            # Twice at first, when it makes the pods; not again while a look is fresh and nothing is to be made.
            assert [path for _, path in server.calls].count("/api/v1/nodes") == expected


async def test_device_that_becomes_free_is_seen_at_the_next_look() -> None:
    """
    A version waits for the pod that makes room: of its end is heard once, and no older look is taken for true then.

    Otherwise each pod of a change of places would cost the half minute until the next look by itself.
    """
    spec = {"resources": {"limits": {"nvidia.com/gpu": 1}}, "rollout": {"whenNoDevice": "Recreate"}}
    both = [{"version": n, "storageUri": f"pvc://models/cancer/{n}", "digest": served.DIGEST} for n in (1, 2)]
    server = Server({MODEL_PATH: a_model(versions=both, **spec), "/api/v1/nodes/one": _a_node(gpus=1)})
    pod = _a_pod(version=1, node="one", gpus=1)
    async with reached(server) as api:
        operator = Operator(api, served.settings(see_devices=True))
        await operator.reconcile(CANCER)
        server.objects["/api/v1/namespaces/clinic/pods/old"] = server.objects["/api/v1/pods/old"] = pod
        server.objects[MODEL_PATH]["spec"]["traffic"] = {"stable": 2}
        server.objects[MODEL_PATH]["status"]["answering"] = 1
        await operator.reconcile(CANCER)
        replicas = {n: path_of("Deployment", "clinic", f"model-cancer-v{n}") for n in (1, 2)}
        assert {n: server.objects[path]["spec"]["replicas"] for n, path in replicas.items()} == {1: 0, 2: 0}
        del server.objects["/api/v1/namespaces/clinic/pods/old"], server.objects["/api/v1/pods/old"]
        await operator.reconcile(CANCER)
        assert server.objects[replicas[2]]["spec"]["replicas"] == 1


def _a_node(*, gpus: int) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    status = {"conditions": [ready], "allocatable": {"nvidia.com/gpu": str(gpus)}}
    return {"metadata": {"name": "one"}, "spec": {}, "status": status}


def _a_pod(*, version: int, node: str, gpus: int) -> dict[str, Any]:
    container = {"name": "server", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    labels = {"serving.healthguard.io/model": "cancer", "serving.healthguard.io/version": str(version)}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "metadata": {"name": "old", "labels": labels},
        "spec": {"containers": [container], "nodeName": node},
        "status": status,
    }


async def test_status_of_another_object_is_not_written() -> None:
    """A model that was removed and made again meanwhile does not get the status of the old one."""
    server = Server({MODEL_PATH: a_model()})
    metadata = a_model()["metadata"] | {"uid": "the one before"}
    async with reached(server) as api:
        with pytest.raises(CallFailed):
            await api.write_status("ServedModel", metadata, {"answering": 1})
    assert "status" not in server.objects[MODEL_PATH]


async def test_status_that_was_decided_by_an_older_one_is_not_written() -> None:
    """What another operator has told meanwhile stays, and the next look goes on from there."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        observed = await observe(api, "clinic", "cancer")
        assert observed is not None
        decided = plan(observed, served.settings(), now=clock())
        await Operator(api, served.settings()).reconcile(CANCER)
        told = server.objects[MODEL_PATH]["status"] = {"answering": 1, "readyReplicas": 3}
        with pytest.raises(CallFailed) as refusal:
            await carry_out(api, observed, decided)
        assert (refusal.value.status, server.objects[MODEL_PATH]["status"]) == (422, told)
        await Operator(api, served.settings()).reconcile(CANCER)
    assert server.objects[MODEL_PATH]["status"]["readyReplicas"] == 0


async def test_scale_changes_the_number_of_pods_alone() -> None:
    """A Deployment that makes room is not applied: its version may be in no spec any more."""
    server = Server({MODEL_PATH: a_model()})
    path = path_of("Deployment", "clinic", "model-cancer-v1")
    async with reached(server) as api:
        await Operator(api, served.settings()).reconcile(CANCER)
        before = copy.deepcopy(server.objects[path]["spec"])
        await api.scale("clinic", "model-cancer-v1", 0)
        await api.scale("clinic", "model-cancer-v9", 0)
    assert server.objects[path]["spec"] == before | {"replicas": 0}


async def test_reconcile_does_nothing_for_a_model_that_goes() -> None:
    """What is being deleted is left to Kubernetes."""
    model = a_model()
    model["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    for server in (Server({MODEL_PATH: model}), Server()):
        async with reached(server) as api:
            await Operator(api, served.settings()).reconcile(CANCER)
        assert server.writes() == []


async def test_reconcile_leaves_what_belongs_to_others() -> None:
    """A Service of somebody else under our name is not touched, and nothing else is made; the status says so."""
    path = path_of("Service", "clinic", "model-cancer-v1")
    theirs = {"kind": "Service", "metadata": {"name": "model-cancer-v1", "uid": "theirs"}}
    server = Server({MODEL_PATH: a_model(), path: theirs})
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        await operator.reconcile(CANCER)
    status, event = server.writes()
    assert status == f"{MODEL_PATH}/status"
    assert server.objects[MODEL_PATH]["status"]["conditions"][0]["reason"] == "NameTaken"
    assert server.objects[event]["type"] == "Warning"
    assert len(operator.queue) == 1


async def test_reconcile_tells_what_the_api_server_refuses() -> None:
    """A child that is refused is named in the status, and the reconcile counts as failed."""
    server = Server({MODEL_PATH: a_model()}, forbidden=path_of("Service", "clinic", "model-cancer-v1"))
    async with reached(server) as api:
        with pytest.raises(CallFailed):
            await Operator(api, served.settings()).reconcile(CANCER)
    conditions = {each["type"]: each for each in server.objects[MODEL_PATH]["status"]["conditions"]}
    assert (conditions["Ready"]["reason"], conditions["Stalled"]["status"]) == ("ApplyRefused", "True")
    assert "Service model-cancer-v1: quota exceeded" in conditions["Ready"]["message"]


async def test_reconcile_succeeds_where_no_event_can_be_written() -> None:
    """The status holds the same; an event that is refused is no reason to begin again."""
    server = Server({MODEL_PATH: a_model()}, no_events=True)
    async with reached(server) as api:
        await Operator(api, served.settings()).reconcile(CANCER)
    assert server.objects[MODEL_PATH]["status"]["observedGeneration"] == 1


async def test_work_goes_on_after_a_failure() -> None:
    """A model that cannot be reconciled comes again later, and does not keep the others from it."""
    server = Server({MODEL_PATH: a_model()}, forbidden=path_of("ServedModel", "clinic", "anemia"))
    async with reached(server) as api:
        operator = Operator(api, served.settings())
        operator.queue.add(ANEMIA)
        operator.queue.add(CANCER)
        working = asyncio.create_task(operator.work())
        try:
            async with asyncio.timeout(20):
                while "status" not in server.objects[MODEL_PATH]:
                    await asyncio.sleep(0.01)
        finally:
            working.cancel()
    assert ANEMIA in operator.queue._due


async def test_reconcile_changes_nothing_without_the_certificate(tmp_path: Path) -> None:
    """A certificate that cannot be read, this once, rolls no pod; the next try does what there is to do."""
    server = Server({MODEL_PATH: a_model()})
    certificate = tmp_path / "tls.crt"
    async with reached(server) as api:
        operator = Operator(api, served.settings(model_tls_cert_file=certificate))
        with pytest.raises(Unusable):
            await operator.reconcile(CANCER)
        assert server.writes() == []
        certificate.write_bytes(b"a certificate")
        await operator.reconcile(CANCER)
    assert path_of("Deployment", "clinic", "model-cancer-v1") in server.writes()


async def test_calls_are_tried_again_where_that_helps() -> None:
    """Conflicts, throttling and server errors are tried again, later each time, and as late as the server says."""
    refusals = [
        web.json_response({}, status=409),
        web.json_response({}, status=429, headers={"Retry-After": "7"}),
        web.json_response({}, status=503),
    ]
    server = Server({MODEL_PATH: a_model()}, refusals)
    pauses: list[float] = []
    async with reached(server, pauses) as api:
        assert await api.get("ServedModel", "clinic", "cancer") == server.objects[MODEL_PATH]
    assert len(server.calls) == 4
    assert pauses[1] == 7
    assert all(0 < pause <= 10 for pause in pauses)


async def test_calls_have_a_bound() -> None:
    """An API server that never recovers is asked a bounded number of times."""
    server = Server(refusals=[web.json_response({}, status=500) for _ in range(99)])
    async with reached(server) as api:
        with pytest.raises(CallFailed):
            await api.list("ServedModel", None)
    assert len(server.calls) == TRIES


async def test_refusals_are_not_tried_again() -> None:
    """What is forbidden or invalid stays so."""
    server = Server(refusals=[web.json_response({"message": "no"}, status=403)])
    async with reached(server) as api:
        with pytest.raises(CallFailed, match="no"):
            await api.get("ServedModel", "clinic", "cancer")
    assert len(server.calls) == 1


async def test_expired_tokens_are_read_anew() -> None:
    """A 401 makes the credentials be read again: the kubelet has renewed them meanwhile."""
    server = Server({MODEL_PATH: a_model()}, [web.json_response({}, status=401)])
    reads = 0
    async with reached(server) as api:
        found = api._find_access

        def read() -> Access:
            nonlocal reads
            reads += 1
            return found()

        api._find_access = read
        assert await api.get("ServedModel", "clinic", "cancer") is not None
    assert reads == 2


async def test_look_queues_what_no_status_tells_of() -> None:
    """Between two full looks only models with a spec that nobody acted on are queued."""
    server = Server({MODEL_PATH: a_model()})
    async with reached(server) as api:
        operator = Operator(api, served.settings(namespaces={"clinic"}))
        await operator.look(everything=False)
        assert len(operator.queue) == 1
        await operator.reconcile(await operator.queue.take())
        operator.queue.done(CANCER)
        await operator.look(everything=False)
        assert len(operator.queue) == 0
        await operator.look(everything=True)
        assert len(operator.queue) == 1


async def test_look_counts_models_by_condition() -> None:
    """For alerts; whoever writes other conditions into a status makes no further series."""
    well, ill = a_model(), a_model()
    ill["metadata"] |= {"name": "anemia", "uid": "uid-of-anemia"}
    for model, approved in ((well, "True"), (ill, "False")):
        told = [{"type": "Ready", "status": "True"}, {"type": "Approved", "status": approved}]
        model["status"] = {"conditions": [*told, {"type": "Others", "status": "True"}]}
    server = Server({MODEL_PATH: well, path_of("ServedModel", "clinic", "anemia"): ill})

    def counted(condition: str, status: str) -> float | None:
        labels = {"condition": condition, "status": status}
        return operator.metrics.registry.get_sample_value("healthguard_operator_served_models", labels)

    async with reached(server) as api:
        operator = Operator(api, served.settings(namespaces={"clinic"}))
        await operator.look(everything=False)
        assert (counted("Approved", "False"), counted("Approved", "True"), counted("Ready", "True")) == (1, 1, 2)
        assert (counted("Loaded", "False"), counted("Others", "True")) == (0, None)
        ill["status"]["conditions"][1]["status"] = "True"
        await operator.look(everything=False)
        assert (counted("Approved", "False"), counted("Approved", "True")) == (0, 2)


async def test_operator_is_alive_while_watch_and_api_are() -> None:
    """Liveness ends with a watch that owes a change for too long, or with an API server that is not reached."""
    server = Server({MODEL_PATH: a_model()})
    clock = Clock()
    async with reached(server) as api:
        operator = Operator(api, served.settings(namespaces={"clinic"}), age=WatchAge(clock))
        await operator.look(everything=False)
        assert operator.alive
        clock.now += 181
        assert not operator.alive
        operator.age.tell(served.OWNER.uid, "1")
        await operator.look(everything=False)
        assert operator.alive
        operator.looks_failed = 5
        assert not operator.alive


def test_access_is_read_from_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a cluster, KUBECONFIG says where the API is; certificates in it are trusted and shown."""
    certificate, key = self_signed()
    cluster = {"server": "https://127.0.0.1:6443/", "certificate-authority-data": certificate}
    user = {"token": "a-token", "client-certificate-data": certificate, "client-key-data": key}
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
    }
    (tmp_path / "config").write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    found = access()
    assert (found.server, found.headers["Authorization"]) == ("https://127.0.0.1:6443", "Bearer a-token")
    assert found.tls is not None
    assert len(found.tls.get_ca_certs()) == 1


def test_access_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither service account nor kubeconfig: the operator says so instead of guessing."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoAccess):
        access()


def self_signed() -> tuple[str, str]:
    """Return a certificate authority's certificate and key, each PEM in base64 as kubeconfigs have them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return base64.b64encode(public).decode(), base64.b64encode(private).decode()
