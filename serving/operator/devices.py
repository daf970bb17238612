"""
Which devices (GPUs, MIG slices) are free: what the nodes have, less what pods hold or wait for. Pure.

The scheduler alone decides; this only tells beforehand whether a new version would fit, so that a rollout which cannot
end is not begun. Selectors and taints are looked at as the scheduler does, affinities are not: model pods have none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.operator.spec import ServedModelSpec, Toleration

Object = Mapping[str, Any]

_KEEPS_AWAY = frozenset({"NoSchedule", "NoExecute"})
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Taint:
    """What keeps pods away that do not stand it."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Node:
    """A node, as far as pods with devices care."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    devices: Mapping[str, int] = field(default_factory=dict)
    usable: bool = True
    """Whether it is ready, and takes new pods at all."""


@dataclass(frozen=True)
class Holder:
    """A pod that holds devices, or waits for them."""

    devices: Mapping[str, int]
    node: str = ""
    """Empty: no node took it yet."""


@dataclass(frozen=True)
class Devices:
    """All devices of a cluster, and who has them."""

    nodes: tuple[Node, ...]
    holders: tuple[Holder, ...]

    def room(self, spec: ServedModelSpec) -> int | None:
        """Return how many more pods of a model find devices free, behind those that wait; None: it asks for none."""
        asked = {name: amount for name, amount in _devices(spec.gpus).items() if amount}
        if not asked:
            return None
        fitting = [node for node in self.nodes if _admits(node, spec)]
        room = sum(min(self._free(node, name) // amount for name, amount in asked.items()) for node in fitting)
        waiting = sum(any(name in holder.devices for name in asked) for holder in self.holders if not holder.node)
        return max(0, room - waiting)

    def _free(self, node: Node, name: str) -> int:
        held = sum(holder.devices.get(name, 0) for holder in self.holders if holder.node == node.name)
        return max(0, node.devices.get(name, 0) - held)


def _admits(node: Node, spec: ServedModelSpec) -> bool:
    selected = spec.node_selector.items() <= node.labels.items()
    stood = all(any(_stands(toleration, taint) for toleration in spec.tolerations) for taint in node.taints)
    return node.usable and selected and stood


def _stands(toleration: Toleration, taint: Taint) -> bool:
    """Tell whether a taint is stood, as Kubernetes defines it."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (bool(toleration.key) and toleration.value == taint.value)


# ---- reading what the API server has


def read(nodes: Iterable[Object], pods: Iterable[Object]) -> Devices:
    """Read nodes and pods."""
    holders = (_holder(pod) for pod in pods if pod.get("status", {}).get("phase") not in _ENDED)
    return Devices(tuple(_node(node) for node in nodes), tuple(holder for holder in holders if holder.devices))


def _node(found: Object) -> Node:
    spec, status = found.get("spec", {}), found.get("status", {})
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
    taints = (Taint(each["key"], each.get("value", ""), each["effect"]) for each in spec.get("taints", []))
    return Node(
        name=found["metadata"]["name"],
        labels=found["metadata"].get("labels", {}),
        taints=tuple(taint for taint in taints if taint.effect in _KEEPS_AWAY),
        devices=_devices(status.get("allocatable", {})),
        usable=ready and not spec.get("unschedulable", False),
    )


def _holder(found: Object) -> Holder:
    # Init containers run before the others and give back what they had: the greater of the two counts.
    spec = found["spec"]
    total: dict[str, int] = {}
    for container in spec["containers"]:
        for name, amount in _asked(container).items():
            total[name] = total.get(name, 0) + amount
    for container in spec.get("initContainers", []):
        for name, amount in _asked(container).items():
            total[name] = max(total.get(name, 0), amount)
    return Holder(total, spec.get("nodeName", ""))


def _asked(container: Object) -> dict[str, int]:
    resources = container.get("resources", {})
    return _devices(resources.get("requests", {}) | resources.get("limits", {}))


def _devices(amounts: Mapping[str, Any]) -> dict[str, int]:
    """Return the devices among resources: they have a domain in their name, and are counted in whole numbers."""
    return {name: int(amount) for name, amount in amounts.items() if "/" in name and str(amount).isdigit()}
