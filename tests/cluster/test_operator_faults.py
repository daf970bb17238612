"""The operator on bad days: killed at any point, doubled, and before an API server that fails; on fake nodes."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from serving.operator import rbac
from serving.operator.manifests import VERSION_LABEL
from serving.operator.spec import PLURAL
from tests.cluster.bad_days import Call, Fault, Proxy, bad_day, good_day, proxied
from tests.cluster.cluster import Cluster
from tests.cluster.fake_nodes import fake_nodes
from tests.cluster.lives import ROLLOUT, Life, Object, Place, a_model, condition, live, settled
from tests.cluster.operators import OperatorProcess, operating
from tests.cluster.progress import say as tell
from tests.cluster.runs import wait_until

PROVE = bool(os.environ.get("HEALTHGUARD_PROVE"))
POINTS, KILLED_LEAST = (60, 50) if PROVE else (6, 5)
BATCH = 6
"""Models that are killed side by side."""
NODES = 3
MODELS = 12 if PROVE else 3
AWAY_S = 60 if PROVE else 5

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(3600 if PROVE else 600)]

_LIFE_S = 60.0
_BAD_LIFE_S = 300.0


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[list[str]]:
    """Have fake nodes for the models' pods."""
    with fake_nodes(cluster, NODES, gpus=1) as names:
        yield names


@pytest.fixture
def place(cluster: Cluster, namespace: str, nodes: list[str]) -> Iterator[Place]:
    """Have a namespace with an operator's rights, and nodes for its pods."""
    with settled(cluster, namespace) as found:
        yield found


@pytest.fixture
def proxy(cluster: Cluster, place: Place) -> Iterator[Proxy]:
    """Have the API server behind a proxy, which speaks as the operator of the namespace."""
    with proxied(cluster, place.account) as found:
        yield found


@dataclass(frozen=True)
class Point:
    """A point of reconcile: the *count*-th time that a call of this kind is made, before or after it is carried out."""

    method: str
    path: str
    count: int
    moment: Literal["before", "after"]


def points(proxy: Proxy, name: str) -> list[Point]:
    """Return the points that the life of a model had: its calls, each kind once, those of its status more often."""
    kinds = Counter(_kind(call, name) for call in proxy.calls if call.of(name) and not call.watch)
    return [
        Point(method, path, count, moment)
        for (method, path), made in kinds.items()
        for count in range(1, (min(made, 4) if path.endswith("/status") else 1) + 1)
        for moment in ("before", "after")
    ]


def _kind(call: Call, name: str) -> tuple[str, str]:
    # Each event has a name of its own.
    path = call.path.rpartition("/")[0] if "/events/" in call.path else call.path
    return call.method, path.replace(name, "MODEL")


@dataclass
class Killer:
    """A judge that kills the operator once for each model, at a point of its own."""

    operator: OperatorProcess
    targets: dict[str, Point]
    killed: dict[str, Point] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, call: Call) -> Fault | None:
        """Let the call pass, or be the operator's last one."""
        for name, point in self.targets.items():
            if call.of(name) and not call.watch and _kind(call, name) == (point.method, point.path):
                self._seen[name] += 1
                if self._seen[name] == point.count and name not in self.killed:
                    self.killed[name] = point
                    return Fault(lost=point.moment, then=self.operator.kill)
        return None


def test_killed_at_any_point_it_comes_to_the_same_state(place: Place, proxy: Proxy, tmp_path: Path) -> None:
    """Kill -9 before and after every kind of call: the next operator ends what was begun, and nothing is left over."""
    with operating(proxy, [place.namespace], tmp_path / "operator") as operator:
        expected, calls = reference(place, proxy)
        known = points(proxy, "reference")
        chosen = known if PROVE else known[:: len(known) // POINTS]
        killed: list[Point] = []
        for first in range(0, len(chosen), BATCH):
            batch = {f"killed-{first + number}-x": point for number, point in enumerate(chosen[first:][:BATCH])}
            proxy.judge = killer = Killer(operator, batch)
            starts = operator.starts
            proxy.calls.clear()
            live([Life(place, name) for name in batch], [operator], timeout_s=_BAD_LIFE_S)
            for name, point in batch.items():
                assert place.state(name) == expected, point
                # Each operator that begins looks at all there is; beyond that nothing is done twice.
                assert made(proxy, name) <= calls * (1.5 + operator.starts - starts), point
                place.remove(name)
            killed += killer.killed.values()
        wait_until(lambda: not place.orphans(), "what belongs to nobody to go", _LIFE_S)
    tell(f"killed at {len(killed)} of {len(known)} points; {calls} calls in a quiet life")
    # Some calls are made or not by chance: how often a status is told depends on how pods come up.
    assert len(killed) >= KILLED_LEAST


def test_bad_days_end_in_the_same_state(place: Place, proxy: Proxy, tmp_path: Path) -> None:
    """An API server that conflicts, throttles, fails, is late, loses calls and drops watches delays, and no more."""
    with operating(proxy, [place.namespace], tmp_path / "operator") as operator:
        expected, calls = reference(place, proxy)
        proxy.judge = bad_day(seed=8, share=0.25)
        # They began on a good day.
        proxy.cut_watches()
        proxy.calls.clear()
        names = [f"bad-day-{number}-x" for number in range(MODELS)]
        live([Life(place, name) for name in names], timeout_s=_BAD_LIFE_S)
        used = {name: made(proxy, name) for name in names}
        proxy.judge = good_day
        # What a refused call left in a status is mended by the next look.
        wait_until(lambda: all(place.state(name) == expected for name in names), "the same state", _LIFE_S)
        assert operator.answers("/livez") == 200
        assert operator.starts == 1
    tell(f"faults {dict(proxy.faults)}; calls {sorted(used.values())}, in a quiet life {calls}")
    assert {"409", "429", "500", "503", "before", "after", "late"} <= set(proxy.faults) or not PROVE
    assert {"410", "cut"} <= set(proxy.faults)
    assert max(used.values()) <= calls * 4
    wait_until(lambda: not place.orphans(), "what belongs to nobody to go", _LIFE_S)


def test_api_server_that_was_away_is_caught_up_with(place: Place, proxy: Proxy, tmp_path: Path) -> None:
    """Every call refused and every watch cut for a while: what was asked for meanwhile is done after."""
    with operating(proxy, [place.namespace], tmp_path / "operator") as operator:
        life = Life(place, "away-x")
        life.go_on()
        wait_until(lambda: place.serves("away-x", 1), "version 1 to be served", _LIFE_S)
        proxy.judge = lambda _: Fault(lost="before")
        proxy.cut_watches()
        place.change("away-x", traffic={"stable": 2})
        proxy.calls.clear()
        time.sleep(AWAY_S)
        assert len(proxy.calls) < 20 * AWAY_S, "an API server that is away is asked without end"
        proxy.judge = good_day
        wait_until(lambda: place.serves("away-x", 2), "version 2 to be served", _LIFE_S)
        assert operator.starts == 1


@pytest.mark.parametrize("looks", [True, False], ids=["looks", "mutant"])
def test_silent_watch_is_noticed(place: Place, proxy: Proxy, tmp_path: Path, looks: bool) -> None:
    """A watch that stands and tells nothing: the regular look finds what it did not tell. The mutant never looks."""
    proxy.judge = lambda call: Fault(events=0, ending="silent") if call.watch else None
    every = "2" if looks else "1e6"
    mutant = f"from serving.operator import operate; operate.LOOK_S = {every}"
    with operating(proxy, [place.namespace], tmp_path / "operator", mutant):
        # What was there before its watch began it has from a list.
        wait_until(lambda: any(call.watch and PLURAL in call.path for call in proxy.calls), "the watch", _LIFE_S)
        place.make(a_model("silent-x"))
        if looks:
            wait_until(lambda: bool(place.children("silent-x")), "what nobody told", _LIFE_S)
        else:
            with pytest.raises(TimeoutError):
                wait_until(lambda: bool(place.children("silent-x")), "what nobody told", 6.0)


def test_two_operators_come_to_the_same_state(cluster: Cluster, place: Place, proxy: Proxy, tmp_path: Path) -> None:
    """Two at once write the same objects to the same form: none undoes what the other does."""
    with (
        proxied(cluster, place.account) as other,
        operating(proxy, [place.namespace], tmp_path / "one"),
    ):
        expected, calls = reference(place, proxy)
        with operating(other, [place.namespace], tmp_path / "two"):
            for each in (proxy, other):
                each.calls.clear()
            names = [f"doubled-{number}-x" for number in range(MODELS)]
            live([Life(place, name) for name in names], timeout_s=_BAD_LIFE_S)
            for name in names:
                assert place.state(name) == expected
            used = [made(each, name) for each in (proxy, other) for name in names]
            quiet(place, proxy, other)
    tell(f"calls of each operator {sorted(used)}, of one alone {calls}")
    assert max(used) <= calls * 2
    wait_until(lambda: not place.orphans(), "what belongs to nobody to go", _LIFE_S)


@pytest.mark.parametrize("operated", [True, False], ids=["operator there", "operator gone"])
def test_deletes_never_hang(cluster: Cluster, place: Place, proxy: Proxy, tmp_path: Path, operated: bool) -> None:
    """A ServedModel, then the whole namespace: both go, whether the operator is there or was uninstalled before."""
    with operating(proxy, [place.namespace], tmp_path / "operator") as operator:
        for name in ("first-x", "second-x"):
            place.make(a_model(name))
        wait_until(lambda: all(place.serves(name, 1) for name in ("first-x", "second-x")), "both", _LIFE_S)
        if not operated:
            operator.stop()
        place.remove("first-x")
        wait_until(lambda: not place.children("first-x") and place.get("ServedModel", "first-x") is None, "it", _LIFE_S)
        assert len(place.children("second-x")) > 1
        cluster.kubectl("delete", "namespace", place.namespace, "--wait=true", "--timeout=90s")
        if operated:
            proxy.calls.clear()
            quiet(place, proxy)
            assert operator.answers("/livez") == 200


@pytest.mark.parametrize("room", ["Refuse", "Recreate"])
def test_no_free_device(cluster: Cluster, place: Place, proxy: Proxy, tmp_path: Path, room: str) -> None:
    """With all GPUs taken a new version is refused before it begins, or takes the old one's place: as the spec says."""
    name, gpu = f"gpu-{room.lower()}-x", {"limits": {"nvidia.com/gpu": 1}}
    with devices_seen(cluster, place), operating(proxy, [place.namespace], tmp_path / "operator", _SEES_DEVICES):
        place.make(a_model(name, resources=gpu, minReplicas=NODES))
        wait_until(lambda: place.serves(name, 1), "a pod on every GPU", _LIFE_S)
        place.change(name, rollout={**ROLLOUT, "whenNoDevice": room}, traffic=MOVE[room])
        if room == "Refuse":
            wait_until(lambda: blocked(place, name) == ("True", "NoDeviceFree"), "the refusal", _LIFE_S)
            assert {one["metadata"]["labels"][VERSION_LABEL] for one in place.children(name)} == {"1"}
        else:
            live([Life(place, name, done=3)], timeout_s=_BAD_LIFE_S)
        assert not [one for one in place.all("Pod") if pending(one)], "a pod waits for a device that nobody frees"


MOVE: dict[str, Object] = {"Refuse": {"canary": {"version": 2}}, "Recreate": {"stable": 2}}
"""A version on trial needs a device beside; a new stable one may take the places of the old one, pod by pod."""

_SEES_DEVICES = 'import os; os.environ["OPERATOR_SEE_DEVICES"] = "true"'


def reference(place: Place, proxy: Proxy) -> tuple[list[str], int]:
    """Return the state that a quiet life ends in, and how many calls it took."""
    live([Life(place, "reference")], timeout_s=_LIFE_S)
    return place.state("reference"), made(proxy, "reference")


def made(proxy: Proxy, name: str) -> int:
    """Return how many calls about a model were made."""
    return sum(call.of(name) and not call.watch for call in proxy.calls)


def quiet(place: Place, *proxies: Proxy) -> None:
    """Check that operators with nothing to do soon write nothing any more: they do not answer each other for ever."""
    wait_until(lambda: not _writes(proxies, 3.0), "the operators to be quiet", _LIFE_S)


def _writes(proxies: Sequence[Proxy], seconds: float) -> int:
    for proxy in proxies:
        proxy.calls.clear()
    time.sleep(seconds)
    return sum(call.writes for proxy in proxies for call in proxy.calls)


def blocked(place: Place, name: str) -> tuple[str, str]:
    """Return status and reason of the condition RolloutBlocked."""
    found = condition(place.get("ServedModel", name) or {}, "RolloutBlocked")
    return found.get("status", ""), found.get("reason", "")


def pending(pod: Object) -> bool:
    """Tell whether a pod waits for a node."""
    return "nodeName" not in pod["spec"]


@contextmanager
def devices_seen(cluster: Cluster, place: Place) -> Iterator[None]:
    """Let the operator of the namespace see nodes and all pods meanwhile."""
    metadata = {"name": f"devices-{place.namespace}"}
    api = "rbac.authorization.k8s.io"
    role = {"kind": "ClusterRole", "rules": [rule.manifest for rule in rbac.DEVICES]}
    binding = {
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": rbac.NAME, "namespace": place.namespace}],
    }
    items = [{"apiVersion": f"{api}/v1", "metadata": metadata, **one} for one in (role, binding)]
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", metadata["name"])
