"""
The CustomResourceDefinition, made from the typed spec: `python -m serving.operator.crd` writes it.

Kubernetes wants a *structural* schema: no references, no alternatives, a type on every node. Pydantic's JSON Schema has
all of these, so it is rewritten here; whatever has no structural form is an error, not a gap.
"""

import sys
from typing import Any

import yaml

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
    schema["x-kubernetes-validations"] = [
        {
            "rule": "self.versions.exists(v, v.version == self.traffic.stable)",
            "message": "traffic.stable names a version that is not in versions",
        }
    ]
    return schema


def status_schema() -> Schema:
    """Return the schema of `status`, which only the operator writes."""
    text, number = {"type": "string"}, {"type": "integer", "format": "int64"}
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text | {"maxLength": 316},
            "status": text | {"enum": ["True", "False", "Unknown"]},
            "observedGeneration": number,
            "lastTransitionTime": text | {"format": "date-time"},
            "reason": text | {"maxLength": 1024},
            "message": text | {"maxLength": 32768},
        },
    }
    version = {
        "type": "object",
        "required": ["version"],
        "properties": {
            "version": number,
            "state": text | {"description": "NotServed, Waiting, Staging, Loading, Testing, Serving or Failed."},
            "digest": text,
            "replicas": number,
            "ready": number,
            "endpoint": text | {"description": "Host and port of the gRPC API: a headless Service of all ready pods."},
        },
    }
    failure = {
        "type": "object",
        "description": "The last thing that went wrong; it stays when all is well again.",
        "properties": dict.fromkeys(("reason", "message", "pod"), text)
        | {"version": number, "time": text | {"format": "date-time"}},
    }
    return {
        "type": "object",
        "properties": {
            "observedGeneration": number,
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": condition,
            },
            "versions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["version"],
                "items": version,
            },
            "readyReplicas": number,
            "lastFailure": failure,
        },
    }


def definition() -> Schema:
    """Return the whole CustomResourceDefinition."""
    name = {"type": "string", "maxLength": NAME_LENGTH_MAX, "pattern": NAME_PATTERN}
    schema = {
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
                    "schema": {"openAPIV3Schema": schema},
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
        {"name": "Ready", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason"},
        {"name": "Pods", "type": "integer", "jsonPath": ".status.readyReplicas"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Message", "type": "string", "jsonPath": f"{ready}.message", "priority": 1},
    ]


def text() -> str:
    """Return the definition as the file k8s/crd/servedmodels.yaml has it."""
    note = "# Made by `python -m serving.operator.crd` from serving/operator/spec.py; a test holds them equal.\n"
    return note + yaml.safe_dump(definition(), sort_keys=False, width=118, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(text())
