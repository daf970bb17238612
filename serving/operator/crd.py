"""
The CustomResourceDefinition, made from the typed spec: `python -m serving.operator.crd` writes it.

Kubernetes wants a *structural* schema: no references, no alternatives, a type on every node. Pydantic's JSON Schema has
all of these, so it is rewritten here; whatever has no structural form is an error, not a gap.
"""

import sys
from typing import Any

import yaml

from serving.operator.rollout_status import PHASES
from serving.operator.rules import RULES
from serving.operator.spec import API_VERSION, GROUP, KIND, NAME_LENGTH_MAX, NAME_PATTERN, PLURAL, ServedModelSpec

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)


class NotStructural(Exception):
    """A type of the spec that the API server's schema cannot say."""


def structural(schema: Schema, definitions: Schema) -> Schema:
    """
    Rewrite one node of a JSON Schema for the API server.

    Raises:
        NotStructural: it has no structural form.
    """
    schema = _resolved(schema, definitions)
    made = _plain(schema)
    if made.get("x-kubernetes-int-or-string"):
        return made
    if "type" not in made:
        raise NotStructural(str(sorted(schema)))
    if "properties" in schema:
        made["properties"] = {name: structural(part, definitions) for name, part in schema["properties"].items()}
    elif made["type"] == "object":
        made["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    if made["type"] == "array":
        made["items"] = structural(schema["items"], definitions)
    return made


def _plain(schema: Schema) -> Schema:
    """Return what a node says about itself, in the API server's words."""
    made: Schema = {key: schema[key] for key in _KEPT if key in schema}
    made |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "exclusiveMinimum" in schema:
        # Structural schemas keep the older, boolean form.
        made |= {"minimum": schema["exclusiveMinimum"], "exclusiveMinimum": True}
    if made.get("type") == "object" and "default" in made:
        # The API server fills in what is inside by itself.
        made["default"] = {}
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    return made


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Replace a reference by what it names, and `T | None` by T: in Kubernetes a field that is null is left out."""
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        (schema_of,) = [part for part in schema["anyOf"] if part.get("type") != "null"]
        schema = schema_of | {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]] | schema
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    return schema


def spec_schema() -> Schema:
    """Return the schema of `spec`."""
    document = ServedModelSpec.model_json_schema(by_alias=True)
    schema = structural(document, document.get("$defs", {}))
    schema["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in RULES]
    return schema


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer", "format": "int64"}
_SHARE: Schema = {"type": "number"}
_TIME: Schema = {"type": "string", "format": "date-time"}


def status_schema() -> Schema:
    """Return the schema of `status`, which only the operator writes."""
    return {
        "type": "object",
        "properties": {
            "observedGeneration": _NUMBER,
            "conditions": _by_key("type", _condition_schema()),
            "versions": _by_key("version", _version_schema()),
            "answering": _NUMBER
            | {"description": "The version that answers: the stable one, until it is complete the one before it."},
            "traffic": _by_key("version", _measured_schema())
            | {"description": "The split of the requests that the gateways have measured lately, not the wished one."},
            "rollout": _rollout_schema(),
            "readyReplicas": _NUMBER,
            "lastFailure": {
                "type": "object",
                "description": "The last thing that went wrong; it stays when all is well again.",
                "properties": dict.fromkeys(("reason", "message", "pod"), _TEXT) | {"version": _NUMBER, "time": _TIME},
            },
        },
    }


def _by_key(key: str, items: Schema) -> Schema:
    return {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key], "items": items}


def _condition_schema() -> Schema:
    return {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": _TEXT | {"maxLength": 316},
            "status": _TEXT | {"enum": ["True", "False", "Unknown"]},
            "observedGeneration": _NUMBER,
            "lastTransitionTime": _TIME,
            "reason": _TEXT | {"maxLength": 1024},
            "message": _TEXT | {"maxLength": 32768},
        },
    }


def _version_schema() -> Schema:
    states = "NotServed, Waiting, Staging, Loading, Testing, Serving, Failed or Blocked."
    return {
        "type": "object",
        "required": ["version"],
        "properties": {
            "version": _NUMBER,
            "state": _TEXT | {"description": states},
            "digest": _TEXT,
            "replicas": _NUMBER | {"description": "Pods that it is to have."},
            "ready": _NUMBER | {"description": "Pods that take requests."},
            "endpoint": _TEXT | {"description": "Host and port of the gRPC API: a headless Service of all ready pods."},
            "message": _TEXT | {"description": "Why it is in that state."},
        },
    }


def _measured_schema() -> Schema:
    return {"type": "object", "required": ["version"], "properties": {"version": _NUMBER, "percent": _SHARE}}


def _rollout_schema() -> Schema:
    observed = {"requests": _NUMBER, "errorRate": _SHARE, "p99Ms": _SHARE, "agreement": _SHARE, "time": _TIME}
    return {
        "type": "object",
        "description": "What the operator has decided about the canary; gateways split requests by it.",
        "required": ["version", "phase", "canaryPercent"],
        "properties": {
            "version": _NUMBER | {"description": "The canary's."},
            "stable": _NUMBER | {"description": "The version that it was tried against."},
            "phase": _TEXT | {"enum": list(PHASES)},
            "step": _NUMBER | {"description": "Which of spec.rollout.steps, counted from 0."},
            "canaryPercent": _SHARE | {"description": "The share of the requests that the canary gets now."},
            "startedAt": _TIME,
            "stepStartedAt": _TIME,
            "reason": _TEXT,
            "message": _TEXT,
            "observed": {
                "type": "object",
                "description": "What the gateways measured of the canary since the step began.",
                "properties": observed,
            },
        },
    }


def _schema() -> Schema:
    name = {"type": "string", "maxLength": NAME_LENGTH_MAX, "pattern": NAME_PATTERN}
    return {
        "type": "object",
        "description": "A model that is served: its versions, their proof, and how many pods serve it.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec_schema(),
            "status": status_schema(),
        },
    }


def definition() -> Schema:
    """Return the whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["sm"],
                "categories": ["healthguard"],
            },
            "versions": [
                {
                    "name": API_VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _columns() -> list[Schema]:
    ready = ".status.conditions[?(@.type=='Ready')]"
    return [
        {"name": "Stable", "type": "integer", "jsonPath": ".spec.traffic.stable"},
        {"name": "Answers", "type": "integer", "jsonPath": ".status.answering"},
        {"name": "Canary", "type": "integer", "jsonPath": ".spec.traffic.canary.version"},
        {"name": "Share", "type": "number", "jsonPath": ".status.rollout.canaryPercent"},
        {"name": "Rollout", "type": "string", "jsonPath": ".status.rollout.phase"},
        {"name": "Ready", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason"},
        {"name": "Pods", "type": "integer", "jsonPath": ".status.readyReplicas"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Message", "type": "string", "jsonPath": f"{ready}.message", "priority": 1},
    ]


class _Plain(yaml.SafeDumper):
    """Writes what stands in several places in each of them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a person reads the file, and some tools read no aliases."""
        return True


def text() -> str:
    """Return the definition as the file k8s/crd/servedmodels.yaml has it."""
    note = "# Made by `python -m serving.operator.crd` from serving/operator/spec.py; a test holds them equal.\n"
    return note + yaml.dump(definition(), Dumper=_Plain, sort_keys=False, width=118, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(text())
