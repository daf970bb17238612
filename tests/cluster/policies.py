"""
Turn network policies into packet filter rules: pure, from the cluster's objects to the text that iptables-restore
reads.

The `sigs.k8s.io/kube-network-policies` agent would have been the obvious choice; docs/decisions says why it is not
here. The meaning is Kubernetes's: a pod that some policy selects for a direction may do in that direction only what
one of them allows; answers to what was allowed pass; what the node itself sends to its pods (probes) always passes.
"""

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

Object = Mapping[str, Any]
Direction = Literal["Ingress", "Egress"]

MAIN = "HEALTHGUARD-POLICY"
_ANYWHERE = "0.0.0.0/0"
_DIRECTIONS: tuple[tuple[Direction, str], ...] = (("Egress", "-s"), ("Ingress", "-d"))


@dataclass(frozen=True)
class Pod:
    """What of a pod matters to a policy."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[str, tuple[str, int]]
    """Its named ports: name → (protocol, number)."""


@dataclass(frozen=True)
class Peer:
    """The other side of an allowed connection: addresses, and the pod whose addresses they are."""

    networks: tuple[str, ...]
    pod: Pod | None = None


def pods(objects: Sequence[Object]) -> list[Pod]:
    """Return the pods that a policy can select: running, with an address of their own."""
    return [
        _pod(item)
        for item in objects
        if item["status"].get("podIP")
        and item["status"].get("phase") not in {"Succeeded", "Failed"}
        and not item["spec"].get("hostNetwork")
    ]


def rules(policies: Sequence[Object], running: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]]) -> list[str]:
    """
    Return the rules of table mangle, as iptables-restore lines without table and COMMIT.

    Args:
        namespaces: name → labels.
    """
    head, jumps, bodies = [f":{MAIN} - [0:0]"], [f"-A {MAIN} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"], []
    for pod in running:
        for direction, flag in _DIRECTIONS:
            chosen = [policy for policy in policies if _selects(policy, pod, direction)]
            if not chosen:
                continue
            chain = _chain(pod, direction)
            head.append(f":{chain} - [0:0]")
            jumps.append(f"-A {MAIN} {flag} {pod.address}/32 -j {chain}")
            bodies += [
                f"-A {chain} {match} -j RETURN" for match in _allowed(chosen, pod, direction, running, namespaces)
            ]
            bodies.append(f"-A {chain} -j DROP")
    return head + jumps + bodies


def chains(lines: Sequence[str]) -> set[str]:
    """Return the names of the chains that *lines* declare."""
    return {line[1:].split()[0] for line in lines if line.startswith(":")}


def _allowed(
    chosen: Sequence[Object],
    pod: Pod,
    direction: Direction,
    running: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    flag = "-s" if direction == "Ingress" else "-d"
    for policy in chosen:
        for rule in policy["spec"].get(direction.lower()) or []:
            selectors = rule.get("from" if direction == "Ingress" else "to")
            for peer in _peers(selectors, policy["metadata"]["namespace"], running, namespaces):
                # A named port is the receiver's to name.
                receiver = pod if direction == "Ingress" else peer.pod
                for network, port in product(peer.networks, _ports(rule.get("ports"), receiver)):
                    yield f"{flag} {network} {port}".rstrip()


def _peers(
    selectors: Sequence[Object] | None,
    own_namespace: str,
    running: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[Peer]:
    if not selectors:
        yield Peer((_ANYWHERE,))
    for selector in selectors or []:
        if "ipBlock" in selector:
            yield Peer(_without(selector["ipBlock"]["cidr"], selector["ipBlock"].get("except", [])))
            continue
        for pod in running:
            if _peer_matches(selector, pod, own_namespace, namespaces):
                yield Peer((f"{pod.address}/32",), pod)


def _peer_matches(selector: Object, pod: Pod, own_namespace: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    if "namespaceSelector" in selector:
        there = matches(selector["namespaceSelector"], namespaces.get(pod.namespace, {}))
    else:
        there = pod.namespace == own_namespace
    return there and matches(selector.get("podSelector") or {}, pod.labels)


def _ports(ports: Sequence[Object] | None, receiver: Pod | None) -> Iterator[str]:
    if not ports:
        yield ""
    for port in ports or []:
        protocol, number = port.get("protocol", "TCP"), port.get("port")
        if isinstance(number, str):
            named = receiver.ports.get(number) if receiver else None
            if named is None or named[0] != protocol:
                continue
            number = named[1]
        yield _port_match(protocol.lower(), number, port.get("endPort"))


def _port_match(protocol: str, first: int | None, last: int | None) -> str:
    if first is None:
        return f"-p {protocol}"
    return f"-p {protocol} --dport {first}:{last}" if last else f"-p {protocol} --dport {first}"


def _without(cidr: str, exceptions: Sequence[str]) -> tuple[str, ...]:
    left = [ipaddress.ip_network(cidr)]
    for exception in map(ipaddress.ip_network, exceptions):
        left = [part for network in left for part in _minus(network, exception)]
    return tuple(str(network) for network in left if network.version == 4)


def _minus(network: Any, exception: Any) -> list[Any]:
    if network.version != exception.version or not network.overlaps(exception):
        return [network]
    return list(network.address_exclude(exception)) if exception.subnet_of(network) else []


def _selects(policy: Object, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    # The API server fills in policyTypes, so there is nothing to guess.
    return (
        policy["metadata"]["namespace"] == pod.namespace
        and direction in spec.get("policyTypes", ())
        and matches(spec.get("podSelector") or {}, pod.labels)
    )


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector selects *labels*; an empty one selects everything."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression_holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _expression_holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    return {
        "In": key in labels and labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[str(expression["operator"])]


def _chain(pod: Pod, direction: str) -> str:
    # A chain's name has at most 28 characters.
    return f"HG-{direction[0]}-{hashlib.sha256(f'{pod.namespace}/{pod.name}/{pod.address}'.encode()).hexdigest()[:16]}"


def _pod(item: Object) -> Pod:
    metadata, spec = item["metadata"], item["spec"]
    named = {
        port["name"]: (port.get("protocol", "TCP"), port["containerPort"])
        for container in spec["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    return Pod(metadata["namespace"], metadata["name"], metadata.get("labels", {}), item["status"]["podIP"], named)
