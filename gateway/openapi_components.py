"""
Say each thing once: problems, and whole answers that several operations share, become components of the document.

FastAPI writes what an operation may answer into each operation; most of ours may answer the same dozen problems.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Document = dict[str, Any]

SCHEMAS = "#/components/schemas/"
RESPONSES = "#/components/responses/"
OPERATIONS = frozenset({"get", "put", "post", "delete", "patch"})


def operations_of(document: Document) -> Iterator[Document]:
    """Yield every operation."""
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method in OPERATIONS)


def share(document: Document) -> Document:
    """Return *document* with its problems and its answers with problems as components; it means the same."""
    schemas: Document = document["components"]["schemas"]
    aliases = _merge_problems(schemas)
    responses: dict[str, tuple[str, Document]] = {}
    for operation in operations_of(document):
        for status, answer in operation["responses"].items():
            if status < "400":
                continue
            shared = _with_references(answer, schemas, aliases)
            key = json.dumps([status, shared], sort_keys=True)
            name, _ = responses.setdefault(key, (_name(status, responses), shared))
            operation["responses"][status] = {"$ref": RESPONSES + name}
    document["components"]["responses"] = dict(sorted(responses.values()))
    return document


def _name(status: str, responses: Mapping[str, tuple[str, Document]]) -> str:
    """Return a name for the next answer with *status*: `404.1`, `404.2`."""
    return f"{status}.{1 + sum(name.startswith(status) for name, _ in responses.values())}"


def is_problem(schema: Document) -> bool:
    """Tell a problem's schema by the constant that its `type` is."""
    return "const" in schema.get("properties", {}).get("type", {})


def _merge_problems(schemas: Document) -> dict[str, str]:
    """Leave one of the services' equal problems under its own name; return the other names with that one."""
    aliases = {}
    for name in [name for name, schema in schemas.items() if is_problem(schema)]:
        schema = schemas[name]
        kept = schemas.setdefault(schema["title"], schema)
        if name != schema["title"] and kept == schema:
            del schemas[name]
            aliases[SCHEMAS + name] = SCHEMAS + schema["title"]
    return aliases


def _with_references(part: Any, schemas: Document, aliases: Mapping[str, str]) -> Any:
    """Return *part* with references in the place of problems, which become components."""
    if isinstance(part, list):
        return [_with_references(each, schemas, aliases) for each in part]
    if not isinstance(part, dict):
        return part
    if is_problem(part) and schemas.setdefault(part["title"], part) == part:
        return {"$ref": SCHEMAS + part["title"]}
    return {
        key: aliases.get(value, value) if key == "$ref" else _with_references(value, schemas, aliases)
        for key, value in part.items()
    }
