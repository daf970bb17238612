"""
Write the chart's values.schema.json: `python helm/schema.py`.

Every object is closed, so a misspelt value is refused by its name. What a service can be told is taken from the
service's own settings class, with its limits, so that a value which the service would refuse at its start is refused
before anything is installed.
"""

# ruff: noqa: T201 - a command, not a package

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from auth.settings import AuthSettings
from gateway.settings import GatewaySettings
from healthguard.settings import Settings as BaseOfAll
from records.settings import RecordsSettings
from serving.operator.crd import spec_schema
from serving.operator.settings import OperatorSettings

Schema = dict[str, Any]

TARGET = Path(__file__).parent / "healthguard" / "values.schema.json"

SERVICES: dict[str, type[BaseOfAll]] = {
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "records": RecordsSettings,
    "operator": OperatorSettings,
}

BY_CHART: dict[str, frozenset[str]] = {
    "gateway": frozenset(
        {
            "auth_url",
            "records_url",
            "jwks_url",
            "discovery",
            "kubernetes_namespace",
            "models_file",
            "models_ca_file",
            "models_server_name",
            "models_cert_file",
            "models_key_file",
            "upstream_cert_file",
            "upstream_key_file",
            "records_secret",
            "redis_url",
            "image_hmac_key",
        }
    ),
    "auth": frozenset({"dsn", "key_encryption_key"}),
    "records": frozenset({"dsn", "jwks_url", "gateway_secret", "gateway_name", "pseudonym_key"}),
    "operator": frozenset(
        {
            "namespaces",
            "see_devices",
            "image",
            "modelserver_image",
            "tensorflow_serving_image",
            "tensorflow_serving_gpu_image",
            "image_pull_policy",
            "image_pull_secrets",
            "gateway_labels",
            "dns_ports",
            "scraper_labels",
            "model_tls_secret",
            "model_tls_name",
            "model_tls_cert_file",
            "gateway_service",
            "gateway_namespace",
            "gateway_ca_file",
            "metrics_provider",
            "metrics_service",
            "metrics_port",
            "own_namespace",
            "prometheus_url",
        }
    ),
}
"""Settings that follow from other values, or that Secrets hold."""

BY_CHART_EVERYWHERE = frozenset(
    {"host", "port", "drain_s", "tls_cert_file", "tls_key_file", "tls_client_ca_file", "upstream_ca_file"}
)

_KEPT = frozenset(
    {"type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "pattern",
     "items", "anyOf"}
)  # fmt: skip

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TRUE: Schema = {"const": True}
NAMED: Schema = {"type": "string", "minLength": 1}
ANY_OBJECT: Schema = {"type": "object"}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
MORE_LABELS: Schema = LABELS | {
    # By these pods are selected, by Services and by network policies.
    "propertyNames": {"not": {"enum": [f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")]}}
}
OBJECTS: Schema = {"type": "array", "items": ANY_OBJECT}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
QUANTITY: Schema = {"type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
NAME: Schema = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$", "maxLength": 253}
CIDR: Schema = {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}


def closed(**properties: Schema) -> Schema:
    """Return an object that has these properties and no others; a trailing underscore is for Python's own words."""
    named = {name.rstrip("_"): schema for name, schema in properties.items()}
    return {"type": "object", "additionalProperties": False, "properties": named}


def integer(minimum: int, maximum: int) -> Schema:
    """Return a whole number in a range."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def one_of(*values: str) -> Schema:
    """Return a choice."""
    return {"type": "string", "enum": list(values)}


def values_settings(service: str) -> dict[str, Schema]:
    """Return what values.yaml may set of a service's settings, by name, with the service's own limits."""
    document = SERVICES[service].model_json_schema()["properties"]
    ours = BY_CHART[service] | BY_CHART_EVERYWHERE
    return {name: _limits(schema) for name, schema in document.items() if name not in ours}


def _limits(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key in _KEPT}
    return kept | ({"description": " ".join(schema["description"].split())} if "description" in schema else {})


RESOURCES = closed(
    requests={"type": "object", "additionalProperties": QUANTITY},
    limits={"type": "object", "additionalProperties": QUANTITY},
)
IMAGE = closed(
    registry={"type": "string", "pattern": "^[^/@\\s]*(/[^@\\s]+)?$"},
    repository={"type": "string", "pattern": "^[a-z0-9][a-z0-9._/-]*$"},
    tag={"type": "string", "pattern": "^[A-Za-z0-9_]?[A-Za-z0-9._-]{0,127}$"},
    digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
)
AUTOSCALING = closed(
    enabled=FLAG,
    minReplicas=integer(1, 1000),
    maxReplicas=integer(1, 1000),
    targetCPUPercent=integer(1, 500),
)
OUTSIDE = closed(
    ports={"type": "array", "items": PORT, "minItems": 1, "maxItems": 16},
    cidrs={"type": "array", "items": CIDR, "maxItems": 64},
)
SELECTOR = closed(matchLabels=LABELS, matchExpressions=OBJECTS)


def from_crd(node: Schema) -> Schema:
    """
    Return a node of the CRD's schema in the words of draft 7, closed.

    Its rules across fields, which are in CEL, stay the API server's to check.
    """
    kept = {key: value for key, value in node.items() if not key.startswith("x-kubernetes-") and key != "default"}
    if kept.pop("exclusiveMinimum", False):
        kept["exclusiveMinimum"] = kept.pop("minimum")
    if node.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    if "properties" in node:
        parts = {name: from_crd(part) for name, part in node["properties"].items()}
        kept |= {"properties": parts, "additionalProperties": False}
    for key in ("items", "additionalProperties"):
        if key in node:
            kept[key] = from_crd(node[key])
    return kept


MODEL = closed(enabled=FLAG, spec=from_crd(spec_schema())) | {"required": ["spec"]}


def pods(service: str) -> dict[str, Schema]:
    """Return what every component of ours can be told."""
    return {
        "resources": RESOURCES,
        "podAnnotations": LABELS,
        "podLabels": LABELS,
        "nodeSelector": LABELS,
        "tolerations": OBJECTS,
        "affinity": ANY_OBJECT,
        "priorityClassName": TEXT,
        "settings": closed(**values_settings(service)),
    }


def served(service: str, /, **more: Schema) -> Schema:
    """Return what gateway, auth and records can be told."""
    return closed(replicas=integer(1, 1000), autoscaling=AUTOSCALING, existingSecret=NAME, **pods(service), **more)


def images() -> Schema:
    """Return the images: everything that runs in a container."""
    names = ("gateway", "auth", "records", "operator", "modelserver", "models", "tensorflowServing",
             "tensorflowServingGpu", "postgresql")  # fmt: skip
    return closed(
        pullPolicy=one_of("Always", "IfNotPresent", "Never"),
        pullSecrets={"type": "array", "items": NAME, "maxItems": 16},
        **dict.fromkeys(names, IMAGE),
    )


def database() -> Schema:
    """Return where the databases are."""
    return closed(
        mode=one_of("evaluation", "external", "cloudnativepg"),
        external=closed(authority=closed(existingSecret=NAME, key=NAMED)),
        storage=closed(size=QUANTITY, className=TEXT),
        resources=RESOURCES,
        cloudnativepg=closed(instances=integer(1, 9), synchronousReplicas=integer(0, 8), spec=ANY_OBJECT),
    )


def network_policies() -> Schema:
    """Return who may speak to whom."""
    return closed(
        enabled=FLAG,
        ingressNamespaceSelector=SELECTOR,
        # The operator is told labels, and has no words for expressions.
        monitoringNamespaceSelector=closed(matchLabels=LABELS),
        dns=closed(ports={"type": "array", "items": PORT, "minItems": 1, "maxItems": 16}),
        apiServer=OUTSIDE,
        database=OUTSIDE,
        redis=OUTSIDE,
        otlp=OUTSIDE,
    )


def internal_tls() -> Schema:
    """Return how services speak to each other."""
    return closed(
        enabled=FLAG,
        source=one_of("hook", "cert-manager", "existing"),
        certManager=closed(issuerRef=closed(group=TEXT, kind=one_of("Issuer", "ClusterIssuer"), name=TEXT)),
        door=FLAG,
        postgresql=FLAG,
        existing=closed(auth=NAME, records=NAME, gateway=NAME, models=NAME, postgresql=NAME),
    )


def values() -> Schema:
    """Return every value."""
    secret = closed(existingSecret=NAME, key=NAMED)
    return closed(
        profile=one_of("evaluation", "staging", "production"),
        fullnameOverride={"type": "string", "pattern": "^([a-z]([a-z0-9-]*[a-z0-9])?)?$", "maxLength": 40},
        commonLabels=MORE_LABELS,
        commonAnnotations=LABELS,
        images=images(),
        database=database(),
        secrets=closed(create=FLAG),
        gateway=served(
            "gateway",
            redis=closed(existingSecret=NAME, key=NAMED),
            discovery=one_of("kubernetes", "file"),
            service=closed(type=one_of("ClusterIP", "NodePort", "LoadBalancer"), port=PORT, annotations=LABELS),
        ),
        auth=served("auth", database=secret),
        records=served("records", database=secret),
        operator=closed(enabled=FLAG, clusterWide=FLAG, seeDevices=FLAG, **pods("operator")),
        models={
            "type": "object",
            "propertyNames": {"pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 40},
            "additionalProperties": MODEL,
        },
        autoscaling=closed(
            provider=one_of("none", "builtin", "keda", "prometheus-adapter"),
            prometheusURL={"type": "string", "pattern": "^(https?://[A-Za-z0-9._:/-]+)?$", "maxLength": 1024},
        ),
        demonstrationModels=closed(
            enabled=FLAG,
            claimName=NAMED,
            accessModes={"type": "array", "minItems": 1,
                         "items": one_of("ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod")},
            size=QUANTITY,
            className=TEXT,
        ),
        ingress=closed(
            enabled=FLAG,
            className=TEXT,
            host={"type": "string", "pattern": "^(\\*\\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"},
            annotations=LABELS,
            tls=closed(enabled=FLAG, secretName=NAMED),
            grpc=closed(
                enabled=FLAG,
                host={"type": "string", "pattern": "^((\\*\\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"},
                annotations=LABELS,
            ),
        ),
        httpRoute=closed(enabled=FLAG, parentRefs=OBJECTS, hostnames={"type": "array", "items": TEXT}),
        grpcRoute=closed(enabled=FLAG, parentRefs=OBJECTS, hostnames={"type": "array", "items": TEXT}),
        internalTLS=internal_tls(),
        networkPolicies=network_policies(),
        podDisruptionBudgets=closed(enabled=FLAG),
        priorityClasses=closed(create=FLAG, value=integer(-1_000_000_000, 1_000_000_000)),
        tests=closed(enabled=FLAG, timeoutSeconds=integer(10, 3600)),
        hooks=closed(resources=RESOURCES, activeDeadlineSeconds=integer(10, 3600), upgradeCRDs=FLAG),
        extraObjects={"type": "array", "items": {"type": ["object", "string"]}},
        # Other charts' values lie here too, so it is open.
        global_={"type": "object"},
    )  # fmt: skip


def within(*path: str, schema: Schema) -> Schema:
    """Return a demand on the value at *path*."""
    for name in reversed(path):
        schema = {"required": [name], "properties": {name: schema}}
    return schema


def production() -> Schema:
    """Return what a production must not go without."""
    two = integer(2, 1000)
    demands: list[Schema] = [
        within("internalTLS", "enabled", schema=TRUE),
        within("networkPolicies", "enabled", schema=TRUE),
        within("podDisruptionBudgets", "enabled", schema=TRUE),
        within("database", "mode", schema={"enum": ["external", "cloudnativepg"]}),
        {"anyOf": [within("ingress", "enabled", schema=TRUE), within("httpRoute", "enabled", schema=TRUE)]},
        {
            "if": within("ingress", "enabled", schema=TRUE),
            "then": {
                "allOf": [
                    within("ingress", "tls", "enabled", schema=TRUE),
                    within("ingress", "host", schema={"not": {"const": "healthguard.example"}}),
                ]
            },
        },
        {
            # The world reaches the gateway's own port then, past any ingress controller.
            "if": within("gateway", "service", "type", schema={"enum": ["NodePort", "LoadBalancer"]}),
            "then": within("internalTLS", "door", schema=TRUE),
        },
        {
            "if": within("database", "mode", schema={"const": "external"}),
            "then": within("database", "external", "authority", "existingSecret", schema=NAMED),
        },
        within("gateway", "settings", "anonymous_anemia", schema={"const": False}),
        within("gateway", "settings", "cors_origins", schema={"not": {"contains": {"const": "*"}}}),
    ]
    for service in ("gateway", "auth", "records"):
        demands.append(within(service, "existingSecret", schema=NAMED))
        demands.append(
            {
                "if": within(service, "autoscaling", "enabled", schema=TRUE),
                "then": within(service, "autoscaling", "minReplicas", schema=two),
                "else": within(service, "replicas", schema=two),
            }
        )
    return {"allOf": demands}


def document() -> Schema:
    """Return the schema."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart healthguard; values.yaml is the manual.",
        **values(),
        "if": within("profile", schema={"const": "production"}),
        "then": production(),
    }


def text() -> str:
    """Return the schema's file."""
    return json.dumps(document(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    print(f"wrote {TARGET.name}")
