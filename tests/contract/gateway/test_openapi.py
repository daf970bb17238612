"""The gateway's OpenAPI document is whole, and says of other services' paths what they say themselves."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from gateway.app import create_app
from gateway.openapi import UPSTREAM_DOCUMENT
from gateway.routes import anemia, auth, cancer, models, predictions, records
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
        assert offered - opened <= {("/v1/predictions", "POST"), ("/results", "GET")}
        assert opened <= offered


def test_every_route_is_in_the_document(document: Document) -> None:
    """Those that pass to other services, too."""
    routes = {
        (route.path_format, method.lower())
        for subject in (predictions, models, records, auth, cancer, anemia)
        for route in subject.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert {(path, method) for path, method, _ in operations(document)} >= routes
    assert len(routes) > 30


def test_document_is_openapi_3_1_with_resolvable_references(document: Document) -> None:
    """Every reference leads to something."""
    assert document["openapi"].startswith("3.1")
    for name in set(re.findall(r"#/components/schemas/([A-Za-z0-9_.-]+)", str(document))):
        assert name in document["components"]["schemas"]


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
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, method, status)


def test_data_paths_ask_for_a_token(document: Document) -> None:
    """Each path but those with which one gets a token names the scheme."""
    open_paths = {"register", "login", "refresh", "logout", "token"}
    for path, _method, operation in operations(document):
        if path.startswith("/api/") and path.rpartition("/")[2] not in open_paths:
            assert operation["security"] == [{"HTTPBearer": []}], path


def test_image_paths_say_what_they_take(document: Document) -> None:
    """Handlers read the body by hand, so the document must say it by hand."""
    for path in ("/api/v1/models/{model}/predictions", "/api/predict", "/api/inference/predict"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert {"multipart/form-data", "image/jpeg", "image/png"} <= content.keys()
        assert content["multipart/form-data"]["schema"]["required"] == ["file"]
