"""The chart's values: closed, documented, with the services' own limits, and refused by name where they are wrong."""

import importlib.util
import json
from typing import Any

import pytest
import yaml

from tests.deploy.charts import CHART, ROOT, SITE, Refused, Values, containers, merged, of_kind, template

VALUES: Values = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
PRODUCTION: Values = merged(yaml.safe_load((CHART / "values" / "production.yaml").read_text()), SITE["production"])


def _schema_module() -> Any:
    spec = importlib.util.spec_from_file_location("chart_schema", ROOT / "helm" / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILT = _schema_module()

BAD: list[tuple[Values, str]] = [
    ({"gatway": {}}, "gatway"),
    ({"gateway": {"replicsa": 2}}, "replicsa"),
    ({"gateway": {"replicas": 0}}, "replicas"),
    ({"gateway": {"replicas": "three"}}, "replicas"),
    ({"gateway": {"settings": {"predict_timeout": 3}}}, "predict_timeout"),
    ({"gateway": {"settings": {"predict_timeout_s": 0}}}, "predict_timeout_s"),
    ({"gateway": {"settings": {"image_bytes_max": 1}}}, "image_bytes_max"),
    ({"gateway": {"settings": {"records_secret": "x"}}}, "records_secret"),
    ({"gateway": {"service": {"type": "Loadbalancer"}}}, "type"),
    ({"gateway": {"service": {"port": 70000}}}, "port"),
    ({"gateway": {"autoscaling": {"targetCPU": 70}}}, "targetCPU"),
    ({"gateway": {"resources": {"requests": {"memory": "lots"}}}}, "memory"),
    ({"auth": {"settings": {"password_length_min": 4}}}, "password_length_min"),
    ({"auth": {"settings": {"password_profile": "md5"}}}, "password_profile"),
    ({"auth": {"settings": {"log_level": "LOUD"}}}, "log_level"),
    ({"records": {"settings": {"synchronous_commit": "off"}}}, "synchronous_commit"),
    ({"records": {"database": {"dsn": "postgresql://…"}}}, "dsn"),
    ({"operator": {"replicas": 2}}, "replicas"),
    ({"operator": {"settings": {"resync_s": 0}}}, "resync_s"),
    ({"images": {"gatway": {}}}, "gatway"),
    ({"images": {"gateway": {"digest": "latest"}}}, "digest"),
    ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"database": {"mode": "sqlite"}}, "mode"),
    ({"database": {"storage": {"size": "big"}}}, "size"),
    ({"secrets": {"creat": True}}, "creat"),
    ({"ingress": {"hosts": ["a"]}}, "hosts"),
    ({"gateway": {"settings": {"assets_url": "http://cdn.example"}}}, "assets_url"),
    ({"gateway": {"settings": {"assets_url": "https://cdn.example; script-src *"}}}, "assets_url"),
    ({"ingress": {"host": "https://a"}}, "host"),
    ({"ingress": {"tls": {"enabled": "yes"}}}, "enabled"),
    ({"internalTLS": {"source": "self-signed"}}, "source"),
    ({"internalTLS": {"door": "yes"}}, "door"),
    ({"internalTLS": {"existing": {"operator": "x"}}}, "operator"),
    ({"gateway": {"discovery": "dns"}}, "discovery"),
    ({"networkPolicies": {"apiServer": {"ports": []}}}, "ports"),
    ({"autoscaling": {"provider": "prometheus"}}, "provider"),
    ({"autoscaling": {"provider": "keda"}}, "autoscaling.prometheusURL"),
    ({"autoscaling": {"prometheusURL": "prometheus"}}, "prometheusURL"),
    ({"networkPolicies": {"database": {"cidrs": ["db.example"]}}}, "cidrs"),
    ({"models": {"Cancer": {"enabled": True}}}, "Cancer"),
    ({"models": {"skin": {"enabled": True, "spec": {}}}}, "spec"),
    ({"models": {"skin": {}}}, "spec"),
    ({"models": {"cancer": {"spec": {"trafic": {"stable": 2}}}}}, "trafic"),
    ({"models": {"cancer": {"spec": {"traffic": {"canary": {"version": 2, "percent": 200}}}}}}, "percent"),
    ({"models": {"cancer": {"spec": {"versions": [{"version": 2, "storageURI": "https://a.example/2"}]}}}}, "storageU"),
    ({"models": {"cancer": {"spec": {"minReplicas": "two"}}}}, "minReplicas"),
    ({"demonstrationModels": {"accessModes": ["Everything"]}}, "accessModes"),
    ({"profile": "prod"}, "profile"),
    ({"fullnameOverride": "Health_Guard"}, "fullnameOverride"),
    ({"tests": {"timeoutSeconds": 1}}, "timeoutSeconds"),
    ({"hooks": {"upgradeCRD": True}}, "upgradeCRD"),
    ({"commonLabels": {"app.kubernetes.io/component": "x"}}, "app.kubernetes.io/component"),
    ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "app.kubernetes.io/instance"),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name"),
    (
        {
            "networkPolicies": {
                "monitoringNamespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
            }
        },
        "matchExpressions",
    ),
    ({"gateway": {"autoscaling": {"enabled": True, "minReplicas": 11}}}, "gateway.autoscaling.minReplicas"),
]

NOT_FOR_PRODUCTION: list[tuple[Values, str]] = [
    ({"internalTLS": {"enabled": False}}, "/internalTLS/enabled"),
    ({"networkPolicies": {"enabled": False}}, "/networkPolicies/enabled"),
    ({"podDisruptionBudgets": {"enabled": False}}, "/podDisruptionBudgets/enabled"),
    ({"database": {"mode": "evaluation"}}, "/database/mode"),
    ({"ingress": {"enabled": False}}, "/ingress/enabled"),
    ({"ingress": {"tls": {"enabled": False}}}, "/ingress/tls/enabled"),
    ({"gateway": {"existingSecret": ""}}, "/gateway/existingSecret"),
    ({"auth": {"existingSecret": ""}}, "/auth/existingSecret"),
    ({"records": {"existingSecret": ""}}, "/records/existingSecret"),
    ({"gateway": {"autoscaling": {"minReplicas": 1}}}, "/gateway/autoscaling/minReplicas"),
    ({"gateway": {"autoscaling": {"enabled": False}, "replicas": 1}}, "/gateway/replicas"),
    ({"auth": {"autoscaling": {"enabled": False}, "replicas": 1}}, "/auth/replicas"),
    ({"records": {"autoscaling": {"enabled": False}, "replicas": 1}}, "/records/replicas"),
    ({"ingress": {"host": "healthguard.example"}}, "/ingress/host"),
    ({"gateway": {"service": {"type": "LoadBalancer"}}}, "/internalTLS/door"),
    ({"gateway": {"service": {"type": "NodePort"}}}, "/internalTLS/door"),
    ({"gateway": {"settings": {"anonymous_anemia": True}}}, "/gateway/settings/anonymous_anemia"),
    ({"gateway": {"settings": {"cors_origins": ["https://a.example", "*"]}}}, "/gateway/settings/cors_origins"),
    ({"database": {"external": {"authority": {"existingSecret": ""}}}}, "/database/external/authority/existingSecret"),
]


@pytest.mark.parametrize(("values", "name"), BAD, ids=[json.dumps(values) for values, _ in BAD])
def test_a_bad_value_is_refused_by_its_name(values: Values, name: str) -> None:
    """Before anything is installed, and so that a person finds the place."""
    with pytest.raises(Refused, match=name):
        template(values)


@pytest.mark.parametrize(
    ("values", "name"), NOT_FOR_PRODUCTION, ids=[json.dumps(values) for values, _ in NOT_FOR_PRODUCTION]
)
def test_production_refuses_to_go_without(values: Values, name: str) -> None:
    """The same values are fine for an evaluation."""
    with pytest.raises(Refused, match=name):
        template(merged(PRODUCTION, values))
    template(merged(merged(PRODUCTION, values), {"profile": "evaluation", "secrets": {"create": True}}) | _keys(values))


def _keys(values: Values) -> Values:
    """Return what must be given up together: gateway and records share a secret."""
    shared = any(values.get(service, {}).get("existingSecret") == "" for service in ("gateway", "records"))
    given_up = {"existingSecret": ""}
    return {
        service: merged(merged(PRODUCTION[service], values.get(service, {})), given_up)
        for service in ("gateway", "records")
        if shared
    }


def test_global_is_open() -> None:
    """A chart above this one may keep its own things there."""
    template({"global": {"storageClass": "fast", "imageRegistry": "r.example"}})


def test_schema_is_the_generated_one() -> None:
    """`python helm/schema.py` writes it."""
    assert (CHART / "values.schema.json").read_text() == BUILT.text()


def test_every_value_is_in_the_schema_and_every_property_in_the_values() -> None:
    """values.yaml is the manual: it shows all there is."""
    assert _differences(VALUES, SCHEMA, "") == []


def _differences(values: Values, schema: dict[str, Any], path: str) -> list[str]:
    if schema.get("additionalProperties", True) is not False:
        return []
    properties: dict[str, Any] = schema["properties"]
    found = [f"{path}/{name}" for name in values.keys() ^ properties.keys()]
    for name in values.keys() & properties.keys():
        # An empty one is Kubernetes' own form (a selector), for which its manual is enough.
        if isinstance(values[name], dict) and values[name] and "properties" in properties[name]:
            found += _differences(values[name], properties[name], f"{path}/{name}")
    return found


@pytest.mark.parametrize("service", BUILT.SERVICES)
def test_settings_have_the_services_own_defaults(service: str) -> None:
    """Who reads values.yaml reads what the service does."""
    fields = BUILT.SERVICES[service].model_fields
    for name, value in VALUES[service]["settings"].items():
        default = fields[name].get_default()
        assert value == (list(default) if isinstance(default, tuple | frozenset) else default), name


@pytest.mark.parametrize("service", BUILT.SERVICES)
def test_every_setting_is_set_and_every_variable_is_a_setting(service: str) -> None:
    """Both ways: no setting that the chart cannot set, no variable that the service would not read."""
    values: Values = {
        "internalTLS": {"enabled": True, "door": True},
        "networkPolicies": {"monitoringNamespaceSelector": {"matchLabels": {"a": "b"}}},
        "gateway": {"redis": {"existingSecret": "redis"}, "settings": SAID_BY_SITES},
        "autoscaling": {"provider": "builtin"},
    }
    values = merged(values, {service: {"settings": {"otlp_endpoint": "http://collector:4318/v1/traces"}}})
    found = template(values)
    container = dict(containers(found))[f"Deployment/hg-{service}/{service}"]
    variables = {variable["name"] for variable in container.get("env", ())}
    variables |= of_kind(found, "ConfigMap")[f"hg-{service}"]["data"].keys()
    fields = BUILT.SERVICES[service].model_fields.keys()
    variables -= {"PGSSLMODE", "PGSSLROOTCERT"}
    assert variables == {f"{service.upper()}_{name}".upper() for name in fields - NOT_SET[service]}


SAID_BY_SITES = {"grpc_port": 8005, "assets_url": "https://cdn.example/swagger-ui-dist@5"}

NOT_SET = {
    # Where the models come from the API server there is no file of them; and anybody may call the gateway.
    "gateway": {"models_file", "tls_client_ca_file"},
    # Its callers are known by their tokens.
    "auth": {"tls_client_ca_file"},
    "records": set(),
    # It listens for probes and scrapers only, which have no certificates, and for the API server, with one that
    # it makes itself; a release has models and gateways in one namespace; KEDA excludes the own metrics API.
    "operator": {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "gateway_namespace", "prometheus_url"},
}


@pytest.mark.parametrize("service", BUILT.SERVICES)
def test_settings_of_the_chart_are_read_by_the_service(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chart renders as text, the service reads as what values.yaml says."""
    found = of_kind(template(), "ConfigMap")[f"hg-{service}"]["data"]
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    for name, value in _SECRETS.get(service, {}).items():
        monkeypatch.setenv(name, value)
    settings = BUILT.SERVICES[service]()
    for name, value in VALUES[service]["settings"].items():
        read = getattr(settings, name)
        assert (list(read) if isinstance(read, tuple | frozenset) else read) == value, name


_KEY = "A" * 43 + "="
_SECRETS = {
    "gateway": {"GATEWAY_IMAGE_HMAC_KEY": _KEY, "GATEWAY_RECORDS_SECRET": "s" * 32},
    "auth": {"AUTH_DSN": "postgresql://a@b/c", "AUTH_KEY_ENCRYPTION_KEY": _KEY},
    "records": {
        "RECORDS_DSN": "postgresql://a@b/c",
        "RECORDS_PSEUDONYM_KEY": _KEY,
        "RECORDS_GATEWAY_SECRET": "s" * 32,
    },
}
