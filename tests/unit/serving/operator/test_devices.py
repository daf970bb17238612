"""How many more pods would find their devices free."""

from typing import Any

import pytest

from serving.operator.devices import Devices, Holder, Node, Taint, read
from serving.operator.spec import ServedModelSpec
from serving.operator.spec import read as read_spec
from tests.unit.serving.operator import served

GPU = "nvidia.com/gpu"
TWO_NODES = (Node("a", devices={GPU: 2}), Node("b", devices={GPU: 1}))


def model(amount: int = 1, **changes: Any) -> ServedModelSpec:
    """Return a model each of whose pods asks for so many GPUs."""
    return read_spec(served.spec(resources={"limits": {GPU: amount}}, **changes))


@pytest.mark.parametrize(
    ("devices", "amount", "room"),
    [
        pytest.param(Devices((), ()), 1, 0, id="no node"),
        pytest.param(Devices(TWO_NODES, ()), 1, 3, id="three GPUs on two nodes"),
        pytest.param(Devices(TWO_NODES, ()), 2, 1, id="two GPUs of one pod are on one node"),
        pytest.param(Devices(TWO_NODES, (Holder({GPU: 1}, "a"),)), 1, 2, id="one is held"),
        pytest.param(
            Devices(TWO_NODES, (Holder({GPU: 1}, "a"), Holder({GPU: 1}, "b"))), 2, 0, id="one free is too few"
        ),
        pytest.param(Devices(TWO_NODES, (Holder({GPU: 1}),)), 1, 2, id="a pod that waits comes first"),
        pytest.param(Devices(TWO_NODES, (Holder({GPU: 9}, "a"),)), 1, 1, id="more is held than there is (any more)"),
        pytest.param(Devices((Node("a", devices={GPU: 1}, usable=False),), ()), 1, 0, id="a node that is cordoned"),
        pytest.param(Devices((Node("a", devices={"amd.com/gpu": 4}),), ()), 1, 0, id="devices of another kind"),
    ],
)
def test_room_is_counted(devices: Devices, amount: int, room: int) -> None:
    """A pod's devices are all on one node, and each is held by one pod."""
    assert devices.room(model(amount)) == room


def test_room_is_not_asked_without_devices() -> None:
    """A model on CPUs, or one that asks for no device, is not kept waiting for one."""
    assert Devices(TWO_NODES, ()).room(read_spec(served.spec())) is None
    assert Devices(TWO_NODES, ()).room(model(0)) is None


@pytest.mark.parametrize(
    ("tolerations", "room"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([{"key": "gpu", "operator": "Exists"}], 1, id="the key"),
        pytest.param([{"key": "gpu", "value": "yes"}], 1, id="key and value"),
        pytest.param([{"key": "gpu", "value": "no"}], 0, id="another value"),
        pytest.param([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], 0, id="another effect"),
        pytest.param([{"operator": "Exists"}], 1, id="any"),
        pytest.param([{"key": "other", "operator": "Exists"}], 0, id="another key"),
    ],
)
def test_room_is_where_taints_are_stood(tolerations: list[dict[str, str]], room: int) -> None:
    """As the scheduler does it."""
    node = Node("a", taints=(Taint("gpu", "yes", "NoSchedule"),), devices={GPU: 1})
    assert Devices((node,), ()).room(model(tolerations=tolerations)) == room


def test_room_is_where_the_selector_looks() -> None:
    """Another node's GPU is of no use."""
    nodes = (Node("a", labels={"zone": "1"}, devices={GPU: 1}), Node("b", labels={"zone": "2"}, devices={GPU: 5}))
    assert Devices(nodes, ()).room(model(nodeSelector={"zone": "1"})) == 1


def test_nodes_and_pods_are_read_as_the_api_server_has_them() -> None:
    """Ended pods hold nothing, init containers give back, and preferences keep nobody away."""
    node: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"zone": "1"}},
        "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}, {"key": "x", "effect": "PreferNoSchedule"}]},
        "status": {"allocatable": {GPU: "4", "cpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    container = {"resources": {"limits": {GPU: "1", "cpu": "2"}}}
    pod = {"spec": {"nodeName": "a", "containers": [container, container], "initContainers": [container]}}
    ended = pod | {"status": {"phase": "Succeeded"}}
    idle = {"spec": {"nodeName": "a", "containers": [{}]}}
    found = read([node, node | {"spec": {"unschedulable": True}}], [pod, ended, idle])
    taint = Taint("gpu", "", "NoSchedule")
    assert found.nodes[0] == Node("a", {"zone": "1"}, (taint,), {GPU: 4}, usable=True)
    assert not found.nodes[1].usable
    assert found.holders == (Holder({GPU: 2}, "a"),)
