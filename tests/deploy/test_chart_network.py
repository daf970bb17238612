"""The network policies that the chart renders are the table of docs/kubernetes.md, and nothing more."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gateway.open_inference_grpc import SERVICE as SERVICE_NAME
from tests.deploy.charts import CHART, ROOT, Manifest, containers, of_kind, pod_specs, template

Edge = tuple[str, str, int]

DNS_PORTS = set(yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicies"]["dns"]["ports"])
ASKS_NO_NAMES = {"postgresql", "secrets", "crds", "leave"}


def documented(*, where_set: bool = False) -> set[Edge]:
    """Return the edges of the page's table, with those that a value opens or without."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    table = page.partition("## Who speaks to whom")[2].partition("## Secrets")[0]
    mark = "(?:, where set)?" if where_set else ""
    rows = re.findall(rf"^\| ([a-z-]+){mark} \| ([a-z-]+) \| ([0-9, ]+) \|", table, re.MULTILINE)
    return {(source, target, int(port)) for source, target, ports in rows for port in ports.split(",")}


def allowed(manifests: list[Manifest]) -> set[Edge]:
    """
    Return the edges that the policies allow: those that both ends agree on.

    An edge to or from `outside` or `model-server` has one end here.
    """
    policies = [found["spec"] for found in of_kind(manifests, "NetworkPolicy").values()]
    ingress = {edge for policy in policies for edge in _edges(policy, "ingress")}
    egress = {edge for policy in policies for edge in _edges(policy, "egress")}
    here = {_component(policy) for policy in policies} - {""}
    one_ended = {edge for edge in ingress if edge[0] not in here} | {edge for edge in egress if edge[1] not in here}
    return (ingress & egress) | one_ended


def _edges(policy: dict[str, Any], direction: str) -> Iterator[Edge]:
    this = _component(policy)
    for rule in policy.get(direction, ()):
        ports = {port["port"] for port in rule["ports"]}
        if direction == "egress" and ports == DNS_PORTS and "to" not in rule:
            continue
        peers = rule.get("from" if direction == "ingress" else "to", [{}])
        others = {_labels(peer).get("app.kubernetes.io/component", "outside") for peer in peers}
        for other in others:
            yield from ((other, this, port) if direction == "ingress" else (this, other, port) for port in ports)


def _component(policy: dict[str, Any]) -> str:
    return str(policy["podSelector"]["matchLabels"].get("app.kubernetes.io/component", ""))


def _labels(peer: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = peer.get("podSelector", {}).get("matchLabels", {})
    return labels


def test_rendered_edges_are_the_documented_ones() -> None:
    """Both ways: nothing is open that the page does not name, nothing is named that is closed."""
    assert allowed(template()) == documented()


def test_edges_that_values_open_are_documented_too() -> None:
    """With traces, Redis and the gRPC door, the rows with `where set` are open as well, and no others."""
    traces: dict[str, Any] = {"settings": {"otlp_endpoint": "http://collector:4318"}}
    values = dict.fromkeys(("auth", "records", "operator"), traces)
    values["gateway"] = {"redis": {"existingSecret": "s"}, "settings": traces["settings"] | {"grpc_port": 8005}}
    assert allowed(template(values)) == documented(where_set=True) > documented()


def test_no_edge_is_open_at_one_end_only() -> None:
    """Between two pods of the release, what one may send the other may receive, and the reverse."""
    policies = [found["spec"] for found in of_kind(template(), "NetworkPolicy").values()]
    here = {_component(policy) for policy in policies}
    ingress = {edge for policy in policies for edge in _edges(policy, "ingress") if edge[0] in here}
    egress = {edge for policy in policies for edge in _edges(policy, "egress") if edge[1] in here}
    assert ingress == egress


def test_default_deny_selects_every_pod_of_the_release() -> None:
    """Hooks and tests too; and in both directions."""
    found = template()
    deny = of_kind(found, "NetworkPolicy")["hg-default-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    wanted = deny["podSelector"]["matchLabels"]
    for one in found:
        template_ = one["metadata"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("metadata")
        if template_:
            assert wanted.items() <= template_["labels"].items(), one["metadata"]["name"]
    assert len(list(pod_specs(found))) > 8


def test_only_those_who_call_by_name_may_ask_for_names() -> None:
    """PostgreSQL calls nobody; the hooks reach the API server by its address."""
    for name, found in of_kind(template(), "NetworkPolicy").items():
        asks = [
            rule for rule in found["spec"].get("egress", ()) if {port["port"] for port in rule["ports"]} == DNS_PORTS
        ]
        component = _component(found["spec"])
        assert bool(asks) == (component not in ASKS_NO_NAMES | {""}), name


def test_addresses_narrow_the_edges_to_the_outside() -> None:
    """With addresses given, the API server and an external database are reached at them alone."""
    policies = {"apiServer": {"ports": [443], "cidrs": ["192.0.2.1/32"]}, "database": {"cidrs": ["192.0.2.9/32"]}}
    database = {"mode": "external"}
    given = {"database": {"existingSecret": "s"}}
    found = of_kind(template({"networkPolicies": policies, "database": database, "auth": given, "records": given}),
                    "NetworkPolicy")  # fmt: skip
    assert found["hg-operator"]["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]
    for name in ("hg-auth", "hg-records", "hg-auth-migration", "hg-records-migration"):
        rules = found[name]["spec"]["egress"]
        assert {"ports": [{"port": 5432, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.9/32"}}]} in rules


def test_metrics_are_read_from_the_named_namespaces_only() -> None:
    """Nobody may until somebody is named; then the operator's model pods know it too."""
    labels = {"kubernetes.io/metadata.name": "monitoring"}
    found = template({"networkPolicies": {"monitoringNamespaceSelector": {"matchLabels": labels}}})
    for name, port in (("gateway", 8004), ("auth", 8000), ("records", 8002), ("operator", 8080)):
        rules = of_kind(found, "NetworkPolicy")[f"hg-{name}"]["spec"]["ingress"]
        peer = {"namespaceSelector": {"matchLabels": labels}}
        assert {"from": [peer], "ports": [{"port": port, "protocol": "TCP"}]} in rules
    assert "OPERATOR_SCRAPER_LABELS" in of_kind(found, "ConfigMap")["hg-operator"]["data"]
    assert "OPERATOR_SCRAPER_LABELS" not in of_kind(template(), "ConfigMap")["hg-operator"]["data"]


def test_model_pods_ask_for_names_where_the_others_do() -> None:
    """The operator makes their policies, and is told the ports."""
    found = of_kind(template({"networkPolicies": {"dns": {"ports": [1053]}}}), "ConfigMap")["hg-operator"]["data"]
    assert found["OPERATOR_DNS_PORTS"] == "[1053]"


def test_redis_is_reached_only_where_there_is_one() -> None:
    """At its addresses, by the gateway."""
    values = {"gateway": {"redis": {"existingSecret": "s"}}, "networkPolicies": {"redis": {"cidrs": ["192.0.2.7/32"]}}}
    rule = {"ports": [{"port": 6379, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}
    assert rule in of_kind(template(values), "NetworkPolicy")["hg-gateway"]["spec"]["egress"]
    assert "6379" not in str(template())


def test_the_grpc_door_is_open_only_where_there_is_one() -> None:
    """Container, Service and policy follow the setting."""
    found = template({"gateway": {"settings": {"grpc_port": 8005}}})
    (rule, *_) = of_kind(found, "NetworkPolicy")["hg-gateway"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8004, 8005]
    service = of_kind(found, "Service")["hg-gateway"]["spec"]["ports"]
    assert [port["port"] for port in service] == [80, 8005]
    assert len(of_kind(template(), "Service")["hg-gateway"]["spec"]["ports"]) == 1


@pytest.mark.parametrize(("door", "protocol"), [(False, "kubernetes.io/h2c"), (True, "https")], ids=["plain", "TLS"])
def test_the_grpc_port_says_what_is_spoken_there(*, door: bool, protocol: str) -> None:
    """Whoever reads the Service, such as a Gateway, speaks HTTP/2 there, by TLS where the door has it."""
    values = {"gateway": {"settings": {"grpc_port": 8005}}, "internalTLS": {"enabled": door, "door": door}}
    found = template(values)
    (port,) = [each for each in of_kind(found, "Service")["hg-gateway"]["spec"]["ports"] if each["name"] == "grpc"]
    assert port == {"name": "grpc", "port": 8005, "targetPort": "grpc", "protocol": "TCP", "appProtocol": protocol}
    container = dict(containers(found))["Deployment/hg-gateway/gateway"]
    assert {"name": "grpc", "containerPort": 8005} in container["ports"]
    assert of_kind(found, "ConfigMap")["hg-gateway"]["data"]["GATEWAY_GRPC_PORT"] == "8005"


def test_grpc_comes_in_by_an_ingress_of_its_own() -> None:
    """With its own annotations, for the protocol's service alone, to the port that speaks it; the other has none."""
    annotations = {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}
    ingress = {"enabled": True, "grpc": {"enabled": True, "annotations": annotations}}
    found = of_kind(template({"gateway": {"settings": {"grpc_port": 8005}}, "ingress": ingress}), "Ingress")
    assert found["hg-gateway-grpc"]["metadata"]["annotations"] == annotations
    (rule,) = found["hg-gateway-grpc"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"]) == ("healthguard.example", f"/{SERVICE_NAME}")
    assert path["backend"]["service"] == {"name": "hg-gateway", "port": {"name": "grpc"}}
    assert "annotations" not in found["hg-gateway"]["metadata"]
    own = ingress | {"grpc": {"enabled": True, "host": "grpc.example"}}
    found = of_kind(template({"gateway": {"settings": {"grpc_port": 8005}}, "ingress": own}), "Ingress")
    (tls,) = found["hg-gateway-grpc"]["spec"]["tls"]
    assert (tls["hosts"], found["hg-gateway-grpc"]["spec"]["rules"][0]["host"]) == (["grpc.example"], "grpc.example")


def test_grpc_comes_in_by_a_route_of_the_gateway_api() -> None:
    """For the protocol's service alone, to the Service's port of that name."""
    route = {"enabled": True, "parentRefs": [{"name": "door"}], "hostnames": ["grpc.example"]}
    found = of_kind(template({"gateway": {"settings": {"grpc_port": 8005}}, "grpcRoute": route}), "GRPCRoute")
    spec = found["hg-gateway-grpc"]["spec"]
    (rule,) = spec.pop("rules")
    assert spec == {"parentRefs": [{"name": "door"}], "hostnames": ["grpc.example"]}
    assert rule["matches"] == [{"method": {"service": SERVICE_NAME}}]
    assert rule["backendRefs"] == [{"name": "hg-gateway", "port": 8005}]
    assert not of_kind(template(), "GRPCRoute")
