"""Paths that auth and records answer: what passes, and what does not."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.upstream import ANSWER_BYTES_MAX
from tests.integration.gateway.conftest import Building, Door
from tests.issuer import Issuer
from tests.listening import listening
from tests.pictures import jpeg


class Echo:
    """A service that tells what reached it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.app = Starlette(
            routes=[Route("/{path:path}", self._reply, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])]
        )

    async def _reply(self, request: Request) -> JSONResponse:
        self.requests.append(
            {
                "method": request.method,
                "path": request.url.path,
                "query": request.url.query,
                "headers": dict(request.headers),
                "body": await request.body(),
            }
        )
        headers = {
            "Location": "/v1/predictions/7",
            "X-Total-Count": "3",
            "X-Internal": "secret",
            "Set-Cookie": "session=1",
            "Retry-After": "4",
        }
        return JSONResponse({"ok": True}, 418, headers)


@pytest.fixture
async def echo(building: Building) -> tuple[Echo, Door]:
    """Return a service that echoes, in the place of records, and the gateway before it."""
    service = Echo()
    url = await building.stack.enter_async_context(listening(service.app))
    return service, await building.door(records_url=url)


async def test_request_passes_with_allowed_headers_only(echo: tuple[Echo, Door]) -> None:
    """Path, query, body and token pass; what only we may say is dropped and said by us."""
    service, door = echo
    token = door.authorization()
    response = await door.client.put(
        "/api/predictions/42?a=%C3%A4&b=1%2B1",
        json={"filename": "x.png"},
        headers=token
        | {
            "X-HealthGuard-Gateway": "forged",
            "X-HealthGuard-Anonymous": "1",
            "X-Forwarded-For": "10.0.0.1",
            "Cookie": "session=1",
            "Connection": "keep-alive, x-hop",
            "X-Hop": "1",
            "X-Request-Id": "from-the-client-1",
            "Idempotency-Key": "k-1",
        },
    )
    (seen,) = service.requests
    assert (seen["method"], seen["path"], seen["query"]) == ("PUT", "/predictions/42", "a=%C3%A4&b=1%2B1")
    assert seen["body"] == b'{"filename":"x.png"}'
    assert seen["headers"]["authorization"] == token["Authorization"]
    assert seen["headers"]["idempotency-key"] == "k-1"
    assert seen["headers"]["x-request-id"] == response.headers["X-Request-Id"] != "from-the-client-1"
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert not {"x-healthguard-gateway", "x-healthguard-anonymous", "cookie", "x-hop"} & seen["headers"].keys()


async def test_answer_passes_with_allowed_headers_only(echo: tuple[Echo, Door]) -> None:
    """Status and body pass as they are; a place is told as it is called here."""
    _, door = echo
    response = await door.client.get("/api/v1/predictions", headers=door.authorization())
    assert (response.status_code, response.json()) == (418, {"ok": True})
    assert response.headers["Location"] == "/api/v1/predictions/7"
    assert (response.headers["X-Total-Count"], response.headers["Retry-After"]) == ("3", "4")
    assert not {"x-internal", "set-cookie"} & set(response.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v1/predictions", 405),
        ("GET", "/api/v1/predictions/not-an-id", 404),
        ("GET", "/api/predictions/12%2F..%2F..%2Fmetrics", 404),
        ("GET", "/api/predictions/" + "9" * 5000, 404),
        ("GET", "/api/predictions/1e5", 404),
        ("GET", "/api/metrics", 404),
        ("GET", "/api/v1/predictions/../../metrics", 404),
        ("GET", "/api/v1/audit", 404),
        ("PATCH", "/api/predictions/1", 405),
    ],
)
async def test_only_declared_paths_pass(echo: tuple[Echo, Door], method: str, path: str, status: int) -> None:
    """This is no open proxy: what is not on the list does not reach the service."""
    service, door = echo
    response = await door.client.request(method, httpx.URL(door.url + path), headers=door.authorization())
    assert response.status_code == status
    assert service.requests == []


async def test_long_body_and_long_query_do_not_pass(echo: tuple[Echo, Door]) -> None:
    """Both are bounded before the service sees them."""
    service, door = echo
    headers = door.authorization()
    body = await door.client.post("/api/predictions", content=bytes(65 * 1024), headers=headers)
    query = await door.client.get("/api/predictions?" + "a" * 5000, headers=headers)
    assert (body.status_code, query.status_code) == (413, 400)
    assert service.requests == []


async def test_nobody_without_a_token_reaches_records(echo: tuple[Echo, Door]) -> None:
    """The token is checked at the door, not only behind it."""
    service, door = echo
    for path in ("/api/predictions", "/api/v1/predictions", "/api/results", "/api/predictions/1"):
        assert (await door.client.get(path)).status_code == 401
        assert (await door.client.get(path, headers=Issuer().authorization())).status_code == 401
    service_paths = {seen["path"] for seen in service.requests}
    assert service_paths <= {"/health/ready"}


async def test_long_answer_does_not_pass(building: Building) -> None:
    """A service that answers without end takes no more memory here than allowed."""

    async def reply(_request: Request) -> Response:
        return Response(bytes(ANSWER_BYTES_MAX + 1))

    url = await building.stack.enter_async_context(listening(Starlette(routes=[Route("/predictions", reply)])))
    door = await building.door(records_url=url)
    response = await door.client.get("/api/predictions", headers=door.authorization())
    assert (response.status_code, response.json()["type"]) == (502, "urn:healthguard:problem:bad-upstream")


async def test_anonymous_paths_are_closed_by_default(door: Door) -> None:
    """Without the setting, nobody gets in without a token."""
    assert (await door.client.get("/api/results")).status_code == 401


async def test_anonymous_paths_open_by_the_setting_and_are_limited(building: Building) -> None:
    """With it, both paths work without a token, store for nobody, show nothing, and are limited by address."""
    door = await building.door(anonymous_anemia=True, anonymous_per_minute=3)
    stored = await door.client.post("/api/predict", files={"file": ("a.jpg", jpeg())})
    assert stored.status_code == 200
    results = await door.client.get("/api/results")
    assert (results.status_code, results.json()) == (200, [])
    # A token that does not hold is not taken for no token.
    assert (await door.client.get("/api/results", headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await door.client.get("/api/results")).status_code == 200
    limited = await door.client.get("/api/results")
    assert (limited.status_code, limited.json()["type"]) == (429, "urn:healthguard:problem:too-many-requests")
    assert 1 <= int(limited.headers["Retry-After"]) <= 60
    # Other paths stay closed, and callers with a token are not limited so.
    assert (await door.client.get("/api/predictions")).status_code == 401
    assert (await door.client.get("/api/results", headers=door.authorization())).status_code == 200


async def test_clients_behind_our_proxy_are_told_apart(building: Building) -> None:
    """With one trusted hop, the address that our proxy saw is counted and is all that a service is told."""
    service = Echo()
    url = await building.stack.enter_async_context(listening(service.app))
    door = await building.door(records_url=url, trusted_hops=1, anonymous_anemia=True, anonymous_per_minute=1)

    async def ask(forwarded: str) -> int:
        return (await door.client.get("/api/results", headers={"X-Forwarded-For": forwarded})).status_code

    assert await ask("1.1.1.1") == 418
    assert await ask("6.6.6.6, 2.2.2.2") == 418
    assert await ask("7.7.7.7, 2.2.2.2") == 429
    seen = [request["headers"]["x-forwarded-for"] for request in service.requests]
    assert seen == ["1.1.1.1", "2.2.2.2"]


async def test_path_with_a_slash_too_many_is_not_redirected(door: Door) -> None:
    """A redirect would send the client, and its token, to the host that the request named."""
    for path in ("/api/v1/models/", "/api/predictions/", "/health/"):
        response = await door.client.get(path, headers=door.authorization() | {"Host": "evil.example"})
        assert response.status_code in (404, 405)
        assert "evil.example" not in response.text + str(response.headers)


async def test_slow_forwarded_bodies_leave_room_for_images(building: Building) -> None:
    """Their budget is their own: when it is used up, log-ins are refused and predictions are not."""
    door = await building.door(forwarded_bytes_max=1024)
    refused = await door.client.post("/api/auth/login", content=bytes(2048))
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:healthguard:problem:overloaded")
    assert (await door.predict(jpeg())).status_code == 201
