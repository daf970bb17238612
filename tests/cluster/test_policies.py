"""The packet filter rules that follow from network policies, without a cluster."""

from typing import Any

import pytest

from tests.cluster.policies import Pod, chains, matches, pods, rules

WEB = Pod("shop", "web", {"app": "web"}, "198.18.128.2", {"http": ("TCP", 8080)})
DATABASE = Pod("shop", "database", {"app": "database"}, "198.18.128.3", {})
STRANGER = Pod("other", "stranger", {"app": "web"}, "198.18.128.4", {})
NAMESPACES = {"shop": {"team": "a"}, "other": {"team": "b"}}


def policy(spec: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    """Return a NetworkPolicy as the API server gives it."""
    return {"metadata": {"namespace": namespace, "name": "p"}, "spec": {"podSelector": {}, **spec}}


def body(spec: dict[str, Any], pod: Pod = WEB) -> list[str]:
    """Return what is allowed to or from *pod* under one policy that selects it, up to the final DROP."""
    chosen = policy({"podSelector": {"matchLabels": pod.labels}, **spec})
    lines = [line for line in rules([chosen], [WEB, DATABASE, STRANGER], NAMESPACES) if line.startswith("-A HG-")]
    assert lines.pop().endswith("-j DROP")
    return [line.split(maxsplit=2)[2].removesuffix(" -j RETURN") for line in lines]


def test_pods_that_no_policy_selects_have_no_chain() -> None:
    """Without a policy everything is allowed: no rule but the one for answers."""
    assert chains(rules([], [WEB], NAMESPACES)) == {"HEALTHGUARD-POLICY"}


def test_a_policy_selects_only_pods_of_its_own_namespace() -> None:
    """The same label in another namespace is another pod."""
    lines = rules([policy({"policyTypes": ["Ingress"]}, namespace="other")], [WEB, STRANGER], NAMESPACES)
    assert [line for line in lines if WEB.address in line] == []
    assert any(line.startswith(f"-A HEALTHGUARD-POLICY -d {STRANGER.address}/32 -j HG-I-") for line in lines)


def test_default_deny_drops_in_the_named_directions_only() -> None:
    """A policy without rules for Egress says nothing about what may come in."""
    lines = rules([policy({"policyTypes": ["Egress"]})], [WEB], NAMESPACES)
    assert [line.split()[2] for line in lines if WEB.address in line] == ["-s"]
    assert body({"policyTypes": ["Egress"]}) == []


ALLOWED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an empty rule allows everything": ({"ingress": [{}]}, ["-s 0.0.0.0/0"]),
    "a pod selector means the policy's namespace": (
        {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]},
        ["-s 198.18.128.2/32"],
    ),
    "a namespace selector means all of its pods": (
        {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}]},
        ["-s 198.18.128.4/32"],
    ),
    "both selectors in one peer must hold together": (
        {
            "ingress": [
                {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "database"}}}]},
            ]
        },
        ["-s 198.18.128.3/32"],
    ),
    "a named port is the receiver's": (
        {"ingress": [{"ports": [{"port": "http"}]}]},
        ["-s 0.0.0.0/0 -p tcp --dport 8080"],
    ),
    "a named port of another protocol is none": ({"ingress": [{"ports": [{"port": "http", "protocol": "UDP"}]}]}, []),
    "a range of ports": (
        {"ingress": [{"ports": [{"port": 1000, "endPort": 2000, "protocol": "UDP"}]}]},
        ["-s 0.0.0.0/0 -p udp --dport 1000:2000"],
    ),
    "a block without its exceptions": (
        {"ingress": [{"from": [{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.128/25"]}}]}]},
        ["-s 198.51.100.0/25"],
    ),
}


@pytest.mark.parametrize(("spec", "expected"), ALLOWED.values(), ids=ALLOWED.keys())
def test_ingress_rules_allow_what_kubernetes_says(spec: dict[str, Any], expected: list[str]) -> None:
    """Each form of peer and port gives the matching rule."""
    assert body({"policyTypes": ["Ingress"], **spec}) == expected


def test_egress_names_the_port_of_the_peer() -> None:
    """The receiver of an outgoing connection is the peer: its names count, and a peer without the name is left out."""
    spec = {"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}
    assert body(spec, DATABASE) == ["-d 198.18.128.2/32 -p tcp --dport 8080"]


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ({"key": "app", "operator": "In", "values": ["web"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "absent", "operator": "NotIn", "values": ["web"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_label_expressions_hold_as_kubernetes_says(expression: dict[str, Any], holds: bool) -> None:
    """Each of the four operators."""
    assert matches({"matchExpressions": [expression]}, WEB.labels) is holds


def test_pods_leaves_out_what_has_no_address_of_its_own() -> None:
    """Finished pods, pods on the node's network, and pods without an address cannot be told apart by address."""

    def item(name: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
        spec = {
            "containers": [{"ports": [{"name": "http", "containerPort": 80}]}],
            "hostNetwork": more.get("host", False),
        }
        return {
            "metadata": {"namespace": "shop", "name": name},
            "spec": spec,
            "status": {"phase": phase, "podIP": more.get("ip", "198.18.128.9")},
        }

    found = pods(
        [item("good"), item("done", "Succeeded"), item("host", host=True), item("waiting", "Pending", ip=None)]
    )
    assert [(pod.name, pod.ports) for pod in found] == [("good", {"http": ("TCP", 80)})]
