"""The operator at the size of a fleet, on fake nodes: how long, how many calls, how much memory (docs/scale.md)."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bad_days import Proxy, proxied
from tests.cluster.cluster import Cluster
from tests.cluster.fake_nodes import fake_nodes
from tests.cluster.lives import Place, a_model, condition, settled
from tests.cluster.operators import OperatorProcess, operating
from tests.cluster.progress import say
from tests.cluster.runs import wait_until

PROVE = bool(os.environ.get("HEALTHGUARD_PROVE"))
NODES, MODELS, REPLICAS = (1000, 200, 10) if PROVE else (10, 8, 5)
CALLS_PER_MODEL = 25 + 12 * REPLICAS
"""Calls until a model serves: to make it, and to look at it again with each pod that comes up, at the worst."""
MEMORY_MEBIBYTES = 400

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(3600 if PROVE else 600)]

_CONVERGE_S = 1800.0 if PROVE else 120.0
_QUIET_S = 60.0 if PROVE else 5.0


@pytest.fixture
def place(cluster: Cluster, namespace: str) -> Iterator[Place]:
    """Have a namespace with an operator's rights, and the fleet's nodes."""
    with fake_nodes(cluster, NODES, gpus=MODELS * REPLICAS // NODES), settled(cluster, namespace) as found:
        yield found


def test_fleet_is_brought_about_and_then_left_alone(cluster: Cluster, place: Place, tmp_path: Path) -> None:
    """Many models at once: all serve, within a bound of calls and memory; once they do, next to nothing is asked."""
    with proxied(cluster, place.account) as proxy, operating(proxy, [place.namespace], tmp_path / "one") as operator:
        started = time.monotonic()
        for number in range(MODELS):
            place.make(a_model(f"fleet-{number}", minReplicas=REPLICAS, resources={"limits": {"nvidia.com/gpu": 1}}))
        say(f"{MODELS} ServedModels made after {time.monotonic() - started:.0f} s")
        wait_until(lambda: serving(place) == MODELS, "all models to serve", _CONVERGE_S)
        took_s = time.monotonic() - started
        told("from nothing to serving", took_s, proxy, operator)
        assert len(proxy.calls) <= MODELS * CALLS_PER_MODEL
        at_rest(proxy, operator)
        # A new operator, as after an upgrade, finds all as it should be.
        operator.stop()
        proxy.calls.clear()
        operator.start()
        operator.wait_until_ready()
        at_rest(proxy, operator)
        say(f"a new operator has made {len(proxy.calls)} calls by then")
        assert not [call for call in proxy.calls if call.writes]
        assert operator.memory_mebibytes <= MEMORY_MEBIBYTES


def serving(place: Place) -> int:
    """Return how many models serve the newest spec."""
    ready = [condition(model, "Ready").get("status") == "True" for model in place.all("ServedModel")]
    return sum(ready)


def at_rest(proxy: Proxy, operator: OperatorProcess) -> None:
    """Wait until nothing is written any more, and tell what is asked then."""
    began = time.monotonic()
    while True:
        seen, used_s = len(proxy.calls), operator.processor_s
        time.sleep(_QUIET_S)
        fresh = proxy.calls[seen:]
        if not any(call.writes for call in fresh):
            break
        assert time.monotonic() - began < _CONVERGE_S, "the operator writes without end"
    share = (operator.processor_s - used_s) / _QUIET_S
    say(f"at rest: {len(fresh) / _QUIET_S:.1f} calls/s, {share:.0%} of a core, {operator.memory_mebibytes:.0f} MiB")


def told(what: str, took_s: float, proxy: Proxy, operator: OperatorProcess) -> None:
    """Say what it took."""
    writes = sum(call.writes for call in proxy.calls)
    fleet = f"{MODELS} models, {MODELS * REPLICAS} pods, {NODES} nodes in {took_s:.0f} s"
    calls = f"{len(proxy.calls)} calls, {writes} of them writes"
    used = f"{operator.processor_s:.1f} s of processor, {operator.memory_mebibytes:.0f} MiB"
    say(f"{what}: {fleet}; {calls}; {used}")
