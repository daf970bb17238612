"""What the chart renders for the autoscaling of models, by provider."""

from typing import Any

import pytest

from serving.operator import registration
from serving.operator.settings import OperatorSettings
from tests.deploy.charts import NAMESPACE, Manifest, notes, of_kind, template

PROVIDERS: dict[str, dict[str, Any]] = {
    "none": {},
    "builtin": {},
    "keda": {"prometheusURL": "http://prometheus.monitoring:9090"},
    "prometheus-adapter": {},
}
NAME = "hg-operator-metrics"


def rendered(provider: str, **values: Any) -> list[Manifest]:
    """Return the objects with a provider."""
    return template({"autoscaling": {"provider": provider, **PROVIDERS[provider]}, **values})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_operator_understands_what_it_is_told(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """Each provider comes with the addresses that it needs."""
    for name, value in of_kind(rendered(provider), "ConfigMap")["hg-operator"]["data"].items():
        monkeypatch.setenv(name, value)
    settings = OperatorSettings()
    assert settings.metrics_provider == provider
    assert settings.gateway_service == "hg-gateway"
    assert (settings.metrics_service, settings.own_namespace) == (
        (NAME, NAMESPACE) if provider == "builtin" else ("", "")
    )


@pytest.mark.parametrize("provider", sorted(PROVIDERS.keys() - {"builtin"}))
def test_nothing_of_the_cluster_is_taken_for_another_provider(provider: str) -> None:
    """Beside `builtin` no APIService, no right beyond the namespace and no open port."""
    found = rendered(provider)
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in found}
    assert not [name for name in names if "metrics" in name]
    ports = of_kind(found, "Deployment")["hg-operator"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["name"] for port in ports] == ["http"]
    assert "ingress" not in of_kind(found, "NetworkPolicy")["hg-operator"]["spec"]


def test_api_server_finds_the_operator() -> None:
    """By the APIService and the Service to the pod; without an authority, which only the operator knows."""
    found = rendered("builtin")
    service = of_kind(found, "APIService")[registration.NAME]["spec"]
    assert service["service"] == {"name": NAME, "namespace": NAMESPACE, "port": 443}
    assert not {"caBundle", "insecureSkipTLSVerify"} & service.keys()
    (port,) = of_kind(found, "Service")[NAME]["spec"]["ports"]
    ports = of_kind(found, "Deployment")["hg-operator"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {"name": port["targetPort"], "containerPort": 8443} in ports
    assert of_kind(found, "ConfigMap")["hg-operator"]["data"]["OPERATOR_METRICS_PORT"] == "8443"


def test_operator_may_touch_nothing_else_of_the_cluster() -> None:
    """Each right beyond the namespace is for one object, by its name."""
    role = of_kind(rendered("builtin"), "ClusterRole")[f"{NAMESPACE}-{NAME}"]
    rights = {(rule["resources"][0], *rule["resourceNames"]): set(rule["verbs"]) for rule in role["rules"]}
    assert rights == {
        ("apiservices", registration.NAME): {"get", "patch", "delete"},
        ("namespaces", NAMESPACE): {"get"},
        ("configmaps", "extension-apiserver-authentication"): {"get"},
    }


@pytest.mark.parametrize("cidrs", [[], ["192.0.2.1/32"]])
def test_api_server_may_reach_the_operator(cidrs: list[str]) -> None:
    """At one port; from its addresses, where they are known."""
    policies = {"networkPolicies": {"apiServer": {"cidrs": cidrs}}}
    (rule,) = of_kind(rendered("builtin", **policies), "NetworkPolicy")["hg-operator"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8443, "protocol": "TCP"}]
    assert rule.get("from", []) == [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def test_keda_is_asked_only_where_it_is_the_provider() -> None:
    """The right to make its objects comes with the value."""
    for provider in PROVIDERS:
        groups = {
            group for rule in of_kind(rendered(provider), "Role")["hg-operator"]["rules"] for group in rule["apiGroups"]
        }
        assert ("keda.sh" in groups) == (provider == "keda")


def test_notes_name_models_that_lack_a_signal() -> None:
    """Without a provider a model's autoscaling goes by CPUs alone, which a person has to know."""
    model = {"models": {"cancer": {"spec": {"autoscaling": {"target": 8}, "maxReplicas": 4}}}}
    assert "cancer is scaled by the use of its CPUs alone" in notes(model)
    assert "is scaled by" not in notes(model | {"autoscaling": {"provider": "builtin"}})
    assert "is scaled by" not in notes()


def test_operator_knows_gateways_by_their_certificate() -> None:
    """Where the gateways' own port speaks TLS, the operator checks it, and never sees a key."""
    found = rendered("none", internalTLS={"enabled": True, "door": True})
    told = of_kind(found, "ConfigMap")["hg-operator"]["data"]["OPERATOR_GATEWAY_CA_FILE"]
    pod = of_kind(found, "Deployment")["hg-operator"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    files = {volume["name"]: volume["secret"]["items"] for volume in pod["volumes"] if "secret" in volume}
    assert told == f"{mounts['models-tls']}/ca.crt"
    assert [item["path"] for item in files["models-tls"]] == ["tls.crt", "ca.crt"]
    plain = rendered("none", internalTLS={"enabled": True})
    assert "OPERATOR_GATEWAY_CA_FILE" not in of_kind(plain, "ConfigMap")["hg-operator"]["data"]
