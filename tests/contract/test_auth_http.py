"""
Auth's HTTP contract: the names and fields that existing clients use, and its OpenAPI document.

Every answer in these tests is also held against the document: its status must stand there, its body must be valid.
"""

import base64
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from auth.app import create_app
from auth.settings import AuthSettings
from tests import factories
from tests.asgi import client_of
from tests.databases import migrated
from tests.postgres import Postgres

Document = dict[str, Any]


@pytest.fixture(scope="module")
def app(postgres: Postgres) -> FastAPI:
    """Return the service as it runs, with the cheaper of its two password profiles."""
    settings = AuthSettings(
        dsn=migrated(postgres, "auth", "auth_contract"),
        key_encryption_key=base64.b64encode(os.urandom(32)).decode(),
        password_profile="owasp-minimum",
    )
    return create_app(settings)


@pytest.fixture
def document(app: FastAPI) -> Document:
    """Return the OpenAPI document."""
    return app.openapi()


@pytest.fixture
async def client(app: FastAPI, document: Document) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that holds every answer against the document."""

    async def check(response: httpx.Response) -> None:
        await response.aread()
        _check(response, document)

    async with client_of(app) as found:
        found.event_hooks = {"response": [check]}
        yield found


def _check(response: httpx.Response, document: Document) -> None:
    """Fail unless the document foresees *response*."""
    operation = document["paths"][response.request.url.path][response.request.method.lower()]
    documented = operation["responses"][str(response.status_code)]
    if content := documented.get("content"):
        media_type = response.headers["content-type"].partition(";")[0]
        jsonschema.validate(response.json(), {**content[media_type]["schema"], "components": document["components"]})


def names(answer: Mapping[str, Any]) -> set[str]:
    """Return the names of an answer's fields."""
    return set(answer)


async def test_register_answers_as_before(client: httpx.AsyncClient) -> None:
    """201 with an integer id, the e-mail as it was sent, and the time."""
    credentials = factories.credentials(email=f"Ada.{factories.email()}")

    answer = await client.post("/auth/register", json=credentials)

    body = answer.json()
    assert (answer.status_code, names(body)) == (201, {"id", "email", "created_at"})
    assert isinstance(body["id"], int)
    assert body["email"] == credentials["email"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(body["created_at"])) < timedelta(minutes=1)


async def test_register_takes_passwords_as_short_as_before(client: httpx.AsyncClient) -> None:
    """Eight characters are enough, as existing clients' users have them."""
    answer = await client.post("/auth/register", json=factories.credentials(password="kurz und"))

    assert answer.status_code == 201


async def test_register_same_email_is_409(client: httpx.AsyncClient) -> None:
    """The second registration is told that the first is there."""
    credentials = factories.credentials()
    await client.post("/auth/register", json=credentials)

    assert (await client.post("/auth/register", json=credentials)).status_code == 409


async def test_register_ignores_fields_that_it_does_not_know(client: httpx.AsyncClient) -> None:
    """A client that sends more than it must goes on working."""
    answer = await client.post("/auth/register", json=factories.credentials(full_name="Ada"))

    assert answer.status_code == 201


@pytest.mark.parametrize("form", [False, True], ids=["json", "oauth2 form"])
async def test_login_answers_as_before(client: httpx.AsyncClient, form: bool) -> None:
    """200 with a bearer token of sixty minutes, in exactly three fields."""
    credentials = factories.credentials()
    await client.post("/auth/register", json=credentials)

    answer = await (
        client.post("/auth/login", data={"username": credentials["email"], "password": credentials["password"]})
        if form
        else client.post("/auth/login", json=credentials)
    )

    body = answer.json()
    assert (answer.status_code, names(body)) == (200, {"access_token", "token_type", "expires_in"})
    assert (body["token_type"], body["expires_in"]) == ("bearer", 3600)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_login_wrong_is_401(client: httpx.AsyncClient) -> None:
    """Wrong credentials are a 401, a missing field is a 422."""
    assert (await client.post("/auth/login", json=factories.credentials())).status_code == 401
    assert (await client.post("/auth/login", json={"email": factories.email()})).status_code == 422


async def test_verify_answers_as_before(client: httpx.AsyncClient) -> None:
    """200 with at least the five fields that clients read, or 401."""
    credentials = factories.credentials()
    registered = (await client.post("/auth/register", json=credentials)).json()
    token = (await client.post("/auth/login", json=credentials)).json()["access_token"]

    answer = await client.get("/auth/verify", headers={"Authorization": f"Bearer {token}"})
    refused = await client.get("/auth/verify", headers={"Authorization": "Bearer nonsense"})

    body = answer.json()
    assert answer.status_code == 200
    assert {"valid", "user_id", "email", "role", "expires_at"} <= names(body)
    assert (body["valid"], body["user_id"], body["email"], body["role"]) == (
        True,
        registered["id"],
        credentials["email"],
        "patient",
    )
    life = datetime.fromisoformat(body["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < life <= timedelta(minutes=60)
    assert refused.status_code == 401


async def test_canonical_names_answer_as_documented(client: httpx.AsyncClient) -> None:
    """A walk over the canonical names; the client holds each answer against the document."""
    credentials = factories.credentials()
    await client.post("/v1/auth/register", json=credentials)
    login = (await client.post("/v1/auth/login", json=credentials)).json()
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    key = (await client.post("/v1/auth/keys", json={"name": "a key"}, headers=headers)).json()["key"]

    statuses = [
        (await client.get("/v1/auth/me", headers=headers)).status_code,
        (await client.get("/v1/auth/verify", headers=headers)).status_code,
        (await client.get("/v1/auth/keys", headers=headers)).status_code,
        (await client.post("/v1/auth/token", json={"api_key": key})).status_code,
        (await client.get("/v1/auth/users", headers=headers)).status_code,
        (await client.post("/v1/auth/refresh", json={"refresh_token": login["refresh_token"]})).status_code,
        (await client.post("/v1/auth/logout", json={"refresh_token": login["refresh_token"]})).status_code,
        (await client.post("/v1/auth/refresh", json={"refresh_token": login["refresh_token"]})).status_code,
    ]

    assert statuses == [200, 200, 200, 200, 403, 200, 204, 401]


async def test_jwks_may_be_cached_for_a_minute(client: httpx.AsyncClient) -> None:
    """Verifiers' caches keep the keys for a part of the time between a key's publication and its use."""
    answer = await client.get("/.well-known/jwks.json")

    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert [key["alg"] for key in answer.json()["keys"]] == ["ES256"]


def test_document_is_whole(document: Document) -> None:
    """It is OpenAPI 3.1; every operation has a summary, a text, and every problem an example."""
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method} {path}"
            assert operation["summary"], place
            for status, answer in operation["responses"].items():
                problem = answer.get("content", {}).get("application/problem+json")
                assert status < "400" or "/health" in path or path == "/readyz" or problem, f"{place} {status}"
                assert not problem or problem["examples"], f"{place} {status}"


def test_document_asks_for_a_token_where_one_is_needed(document: Document) -> None:
    """Operations that answer only a caller say so."""
    secured = {
        f"{method} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }

    assert secured == {
        "get /auth/verify",
        "get /v1/auth/verify",
        "get /v1/auth/me",
        "get /v1/auth/keys",
        "post /v1/auth/keys",
        "delete /v1/auth/keys/{key_id}",
        "get /v1/auth/users",
        "patch /v1/auth/users/{user_id}",
    }
