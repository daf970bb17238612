"""The gateway's OpenAPI document is whole, and says of other services' paths what they say themselves."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from gateway.app import create_app
from gateway.openapi import UPSTREAM_DOCUMENT
from gateway.openapi_components import is_problem
from gateway.routes import anemia, auth, cancer, models, predictions, records, v2
from gateway.routes.auth import PASSED as AUTH_PASSED
from gateway.routes.records import PASSED as RECORDS_PASSED
from gateway.settings import GatewaySettings
from tests.contract.gateway.upstream_document import auth_document, records_document, text

Document = dict[str, Any]

NOT_PUBLIC = {
    # The gateway answers these for itself.
    *("/livez", "/readyz", "/health", "/health/live", "/health/ready", "/metrics"),
    # For services, not for people.
    "/.well-known/jwks.json",
}


@pytest.fixture(scope="module")
def document() -> Document:
    """Return the document."""
    settings = GatewaySettings.model_validate(
        {
            "auth_url": "http://auth",
            "records_url": "http://records",
            "models_file": "/none",
            "records_secret": SecretStr("s" * 32),
            "image_hmac_key": SecretStr(base64.b64encode(bytes(32)).decode()),
        }
    )
    return create_app(settings).openapi()


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield path, method and operation of all."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_copy_of_the_services_documents_is_fresh() -> None:
    """Otherwise: `python -m tests.contract.gateway.upstream_document`."""
    assert UPSTREAM_DOCUMENT.read_text() == text()


def test_every_public_path_of_auth_and_records_passes() -> None:
    """A path that a service gains is either opened here or named as not public."""
    for service, table in ((auth_document(), AUTH_PASSED), (records_document(), RECORDS_PASSED)):
        offered = {(path, method.upper()) for path, method, _ in operations(service) if path not in NOT_PUBLIC}
        opened = {(row.path, method) for row in table for method in row.methods}
        # Stored by the gateway alone; and the one that works without a token where the setting allows it.
        own = {("/v1/predictions", "POST"), ("/v1/predictions/together", "POST"), ("/results", "GET")}
        assert offered - opened <= own
        assert opened <= offered


def test_every_route_is_in_the_document(document: Document) -> None:
    """Those that pass to other services, too."""
    routes = {
        (route.path_format, method.lower())
        for subject in (predictions, models, records, auth, cancer, anemia, v2)
        for route in subject.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert {(path, method) for path, method, _ in operations(document)} >= routes
    assert len(routes) > 30


def test_document_is_openapi_3_1_with_resolvable_references(document: Document) -> None:
    """Every reference leads to something."""
    assert document["openapi"].startswith("3.1")
    references = set(re.findall(r"#/components/(\w+)/([A-Za-z0-9_.-]+)", str(document)))
    assert len(references) > 100
    for kind, name in references:
        assert name in document["components"][kind]


def test_each_problem_is_said_once(document: Document) -> None:
    """As a component, and so is each answer that several operations share; the document is short enough to read."""
    inline = str(document["paths"])
    assert "urn:healthguard:problem" not in inline
    assert len(json.dumps(document)) < 200_000
    problems = [schema for schema in document["components"]["schemas"].values() if is_problem(schema)]
    assert len(problems) > 20
    assert len({str(schema) for schema in problems}) == len(problems)


def test_links_lead_to_operations_with_their_parameters(document: Document) -> None:
    """What is made can be read, corrected and removed by following the document alone."""
    by_id = {operation["operationId"]: (path, operation) for path, _method, operation in operations(document)}
    followed = 0
    for _path, _method, operation in operations(document):
        for answer in operation["responses"].values():
            for link in answer.get("links", {}).values():
                path, _ = by_id[link["operationId"]]
                assert all(f"{{{parameter}}}" in path for parameter in link["parameters"])
                followed += 1
    assert followed >= 10
    made = document["paths"]["/api/v1/models/{model}/predictions"]["post"]["responses"]["201"]
    assert {link["parameters"]["record_id"] for link in made["links"].values()} == {"$response.body#/id"}


def test_paths_that_predict_take_a_timeout_and_those_that_store_a_key(document: Document) -> None:
    """Both are headers that a client must find in the document."""
    for path in ("/api/v1/models/{model}/predictions", "/api/workflow/predict-and-save", "/api/predict"):
        assert {"x-request-timeout", "idempotency-key"} <= headers_of(document, path)
    assert "x-request-timeout" in headers_of(document, "/api/inference/predict")
    assert "x-request-timeout" in headers_of(document, "/v2/models/{model}/infer")


# Predictions that nobody keeps, log-ins, and searches; docs/api-versions.md, "Sent again", says why log-ins are here.
STORES_NOTHING = {
    *("/api/inference/predict", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"),
    *("/api/auth/login", "/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout", "/api/v1/auth/token"),
    "/api/v1/predictions/search",
}


def test_whatever_stores_takes_an_idempotency_key(document: Document) -> None:
    """What is sent must be safe to send again; whoever adds a path decides whether it stores something."""
    takes_none = {
        path
        for path, method, _operation in operations(document)
        if method in {"post", "put", "patch"} and "idempotency-key" not in headers_of(document, path, method)
    }
    assert takes_none == STORES_NOTHING


def headers_of(document: Document, path: str, method: str = "post") -> set[str]:
    """Return the headers that a method takes there, in lower case."""
    found = document["paths"][path][method].get("parameters", [])
    return {parameter["name"].lower() for parameter in found if parameter["in"] == "header"}


def test_every_operation_is_described(document: Document) -> None:
    """A summary, tags that are explained, an id of its own, and what goes wrong."""
    explained = {tag["name"] for tag in document["tags"]}
    ids = []
    for path, _method, operation in operations(document):
        assert operation["summary"], path
        assert set(operation["tags"]) <= explained, path
        ids.append(operation["operationId"])
        if path.startswith("/api/"):
            assert {"422", "500"} <= operation["responses"].keys(), path
    assert len(ids) == len(set(ids))


def test_problems_are_problem_json_with_examples(document: Document) -> None:
    """Each 4xx and 5xx below /api is a problem; where it is our own, an example stands beside it."""
    for path, method, operation in operations(document):
        if not path.startswith("/api/"):
            continue
        for status, reference in operation["responses"].items():
            if int(status) >= 400:
                answer = document["components"]["responses"][reference["$ref"].rpartition("/")[2]]
                assert list(answer["content"]) == ["application/problem+json"], (path, method, status)


def test_data_paths_ask_for_a_token(document: Document) -> None:
    """Each path but those with which one gets a token names the scheme."""
    open_paths = {"register", "login", "refresh", "logout", "token"}
    for path, _method, operation in operations(document):
        if path.startswith("/api/") and path.rpartition("/")[2] not in open_paths:
            assert {"HTTPBearer": []} in operation["security"], path


def test_image_paths_say_what_they_take(document: Document) -> None:
    """Handlers read the body by hand, so the document must say it by hand."""
    for path in ("/api/v1/models/{model}/predictions", "/api/predict", "/api/inference/predict"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert {"multipart/form-data", "image/jpeg", "image/png"} <= content.keys()
        assert content["multipart/form-data"]["schema"]["required"] == ["file"]
