"""
What the gateway's OpenAPI document takes from auth's and records'.

`python -m tests.contract.gateway.upstream_document` writes it anew; a test says when that is due.
"""

import base64
import json
from typing import Any

from pydantic import SecretStr

from auth.app import create_app as auth_app
from auth.settings import AuthSettings
from gateway.forwarding import Passed
from gateway.openapi import UPSTREAM_DOCUMENT
from gateway.routes.anemia import RESULTS
from gateway.routes.auth import PASSED as AUTH_PASSED
from gateway.routes.records import PASSED as RECORDS_PASSED
from records.app import create_app as records_app
from records.settings import RecordsSettings

Document = dict[str, Any]

PROBLEM = "application/problem+json"

_KEY = SecretStr(base64.b64encode(bytes(32)).decode())
_DSN = SecretStr("postgresql+asyncpg://nobody@localhost/nothing")


def auth_document() -> Document:
    """Return auth's whole document."""
    return auth_app(AuthSettings(dsn=_DSN, key_encryption_key=_KEY)).openapi()


def records_document() -> Document:
    """Return records' whole document."""
    settings = RecordsSettings(
        dsn=_DSN, jwks_url="http://localhost/jwks", gateway_secret=SecretStr("x" * 32), pseudonym_key=_KEY
    )
    return records_app(settings).openapi()


def public_part(document: Document, table: tuple[Passed, ...]) -> Document:
    """Return the operations of *document* that *table* opens, and the schemas that they use."""
    paths = {
        row.path: {method.lower(): _public(document["paths"][row.path][method.lower()]) for method in row.methods}
        for row in table
    }
    schemas: dict[str, Any] = {}
    _hoist_problems(paths, schemas)
    _collect(paths, document["components"]["schemas"], schemas)
    return {"paths": paths, "schemas": dict(sorted(schemas.items()))}


def _public(operation: Document) -> Document:
    """Leave out headers that only the gateway may send."""
    kept = [each for each in operation.get("parameters", []) if not each["name"].lower().startswith("x-healthguard-")]
    return {name: value for name, value in operation.items() if name != "parameters"} | (
        {"parameters": kept} if kept else {}
    )


def _hoist_problems(node: object, schemas: Document) -> None:
    """Move each problem's schema, with its example, out of the answers: every one of them is there many times."""
    if not isinstance(node, dict):
        return
    if PROBLEM in node:
        body = node[PROBLEM]
        found = body["schema"].get("oneOf", [body["schema"]])
        for schema, example in zip(found, body["examples"].values(), strict=True):
            schemas[schema["title"]] = schema | {"examples": [example["value"]]}
        refs = [{"$ref": f"#/components/schemas/{schema['title']}"} for schema in found]
        node[PROBLEM] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}
    for each in node.values():
        _hoist_problems(each, schemas)


def _collect(node: object, every: Document, found: Document) -> None:
    """Put all schemas that *node* refers to, and those that they refer to, into *found*."""
    if isinstance(node, list):
        for each in node:
            _collect(each, every, found)
    if not isinstance(node, dict):
        return
    name = str(node.get("$ref", "")).removeprefix("#/components/schemas/")
    if name and name not in found:
        found[name] = every[name]
        _collect(every[name], every, found)
    for each in node.values():
        _collect(each, every, found)


def taken() -> Document:
    """Return all that the gateway's document takes."""
    return {
        "auth": public_part(auth_document(), AUTH_PASSED),
        "records": public_part(records_document(), (*RECORDS_PASSED, RESULTS)),
    }


def text() -> str:
    """Return it as the file has it."""
    return json.dumps(taken(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    UPSTREAM_DOCUMENT.write_text(text())
