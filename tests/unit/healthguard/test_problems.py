"""Problems: what a client sees of an error, and what it must never see."""

from pathlib import Path
from typing import Annotated, ClassVar

import httpx
import jsonschema
import pytest
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict

from healthguard import http
from healthguard.health import Health
from healthguard.metrics import HttpMetrics
from healthguard.problems import MEDIA_TYPE, NotFound, Problem, Unavailable, ValidationFailed, responses

SECRET = "jane-doe-1970"
DOCS = Path(__file__).parents[3] / "docs" / "problems.md"


class Body(BaseModel):
    """A body that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")
    age: int


def make_app() -> FastAPI:
    """Return a service with one route for each way in which a request can go wrong."""
    app = FastAPI()
    http.install(app, Health("test"), HttpMetrics())

    @app.get("/gone")
    async def gone() -> None:
        raise NotFound("No such thing.")

    @app.get("/busy")
    async def busy() -> None:
        raise Unavailable(retry_after_ms=1500)

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, detail=SECRET)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    @app.post("/body")
    async def body(body: Body, limit: Annotated[int, Query()] = 1) -> int:
        return body.age + limit

    return app


@pytest.fixture
async def client() -> httpx.AsyncClient:
    """A client of the app above."""
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_problem_has_the_standard_members_and_the_request_id(client: httpx.AsyncClient) -> None:
    """A raised problem is answered as RFC 9457 has it, with the id that also stands in the header."""
    response = await client.get("/gone", headers={"X-Request-Id": "abcdefgh1234"})
    assert response.status_code == 404
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json() == {
        "type": "urn:healthguard:problem:not-found",
        "title": NotFound.title,
        "status": 404,
        "detail": "No such thing.",
        "request_id": "abcdefgh1234",
    }
    assert response.headers["x-request-id"] == "abcdefgh1234"


async def test_problem_with_a_wait_says_it_in_seconds_and_milliseconds(client: httpx.AsyncClient) -> None:
    """Retry-After rounds up: a client that waits whole seconds never comes too early."""
    response = await client.get("/busy")
    assert (response.status_code, response.headers["retry-after"], response.json()["retry_after_ms"]) == (
        503,
        "2",
        1500,
    )


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/gone", 405), ("/teapot", 400), ("/broken", 500)])
async def test_error_of_any_origin_is_a_problem_that_echoes_nothing(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    """The router's, the framework's and our own errors look alike, and none repeats a text it came with."""
    response = await client.request("POST" if status == 405 else "GET", path)
    assert (response.status_code, response.headers["content-type"]) == (status, MEDIA_TYPE)
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("json", "errors"),
    [
        ({"age": SECRET}, [{"location": "body.age", "code": "int_parsing"}]),
        ({}, [{"location": "body.age", "code": "missing"}]),
        ({"age": 1, SECRET: 2}, [{"location": "body", "code": "extra_forbidden"}]),
    ],
)
async def test_validation_names_places_and_codes_never_values(
    client: httpx.AsyncClient, json: dict[str, object], errors: list[dict[str, str]]
) -> None:
    """Neither a value nor a field name that the client made up comes back."""
    response = await client.post("/body", json=json)
    assert response.status_code == 422
    assert response.json()["errors"] == errors
    assert SECRET not in response.text


async def test_validation_of_broken_json_and_queries_echoes_nothing(client: httpx.AsyncClient) -> None:
    """The other two places where a framework likes to repeat its input."""
    broken = await client.post("/body", content=f'{{"{SECRET}"', headers={"Content-Type": "application/json"})
    query = await client.post("/body", json={"age": 1}, params={"limit": SECRET})
    assert (broken.status_code, query.status_code) == (422, 422)
    assert SECRET not in broken.text + query.text


def test_problem_refuses_members_that_it_does_not_declare() -> None:
    """An undeclared member is a mistake of ours that must not reach OpenAPI's readers."""
    with pytest.raises(TypeError, match="no member"):
        NotFound(color="red")


def test_problem_class_refuses_to_overwrite_a_standard_member() -> None:
    """`status` in a problem's body always means the status."""
    with pytest.raises(TypeError, match="overwrites"):

        class Wrong(Problem):
            status, slug, title = 400, "wrong", "Wrong"
            members: ClassVar[dict[str, type]] = {"status": int}


async def test_problem_schema_describes_the_answer(client: httpx.AsyncClient) -> None:
    """What OpenAPI promises is what is sent."""
    jsonschema.validate((await client.get("/busy")).json(), Unavailable.schema())
    jsonschema.validate((await client.post("/body", json={})).json(), ValidationFailed.schema())
    assert responses(Unavailable)[503]["content"][MEDIA_TYPE]["schema"] == Unavailable.schema()
