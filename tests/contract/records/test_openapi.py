"""The OpenAPI document tells the whole truth: every operation, every problem, and nothing secret."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from records.app import create_app
from records.settings import RecordsSettings
from tests.integration.records.service import records_settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document; no database is needed for it."""
    settings: RecordsSettings = records_settings("postgresql://records@nowhere/records")
    app: FastAPI = create_app(settings.model_copy(update={"gateway_secret": SecretStr("not-in-the-document" * 2)}))
    found: dict[str, Any] = app.openapi()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation of the product's own paths."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "predictions" in path or "results" in path:
                yield f"{method.upper()} {path}", operation


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    """And has the paths that the gateway maps to."""
    assert document["openapi"].startswith("3.1")
    assert {"/v1/predictions", "/predictions", "/results"} <= document["paths"].keys()


def test_every_operation_names_its_problems(document: dict[str, Any]) -> None:
    """Each can be refused for its token, and each needs the database."""
    for name, operation in operations(document):
        responses = operation["responses"]
        assert {"401", "500", "503"} <= responses.keys(), name
        for status, response in responses.items():
            if status >= "4":
                assert list(response["content"]) == ["application/problem+json"], (name, status)


def test_operation_ids_differ(document: dict[str, Any]) -> None:
    """Generated clients need them."""
    ids = [operation["operationId"] for _, operation in operations(document)]

    assert len(ids) == len(set(ids))


def test_document_holds_no_secret(document: dict[str, Any]) -> None:
    """It is made from the code, never from the settings."""
    assert "not-in-the-document" not in str(document)
