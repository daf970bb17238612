"""What makes an application a HealthGuard service: request ids, one log line, one metric, health."""

import httpx
import pytest
import structlog
from fastapi import FastAPI

from healthguard import http
from healthguard.health import Health, run_checks
from healthguard.metrics import HttpMetrics


async def fine() -> None:
    """A check that passes."""


async def broken() -> None:
    """A check that fails."""
    raise ConnectionError("10.0.0.1 refused")


def make_app(health: Health, *, trust_request_id: bool = True) -> FastAPI:
    """Return a service with one route."""
    app = FastAPI()
    http.install(app, health, HttpMetrics(), trust_request_id=trust_request_id)

    @app.get("/people/{name}")
    async def person(name: str) -> int:
        return len(name)

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError

    return app


def client_of(health: Health) -> httpx.AsyncClient:
    """Return a client of a service with this health."""
    transport = httpx.ASGITransport(make_app(health), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.mark.parametrize("sent", ["", "short", "spaces are not an id", "x" * 65, "name\tjane"])
async def test_request_id_that_is_not_one_is_replaced(sent: str) -> None:
    """A request id is logged, so a client cannot put any text there."""
    async with client_of(Health("test")) as client:
        response = await client.get("/people/jane", headers={"X-Request-Id": sent})
    assert response.headers["x-request-id"] != sent
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("trusted", [True, False], ids=["inside", "at the public door"])
async def test_request_id_is_taken_from_the_gateway_alone(trusted: bool) -> None:
    """Inside, one id leads through all services' logs; from the public nobody can choose another request's."""
    app = make_app(Health("test"), trust_request_id=trusted)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/people/jane", headers={"X-Request-Id": "abcdefgh1234"})
    assert (response.headers["x-request-id"] == "abcdefgh1234") is trusted


async def test_request_is_logged_by_its_route_not_its_path() -> None:
    """A path may hold what a client typed; the route's template may not."""
    with structlog.testing.capture_logs() as logs:
        async with client_of(Health("test")) as client:
            await client.get("/people/jane")
            await client.get("/nowhere/jane")
    assert [entry["endpoint"] for entry in logs] == ["/people/{name}", "unmatched"]
    assert "jane" not in str(logs)


async def test_metrics_count_requests_by_route_and_errors_of_ours() -> None:
    """The names that the old application's dashboards read."""
    async with client_of(Health("test")) as client:
        await client.get("/people/jane")
        await client.get("/fault")
        text = (await client.get("/metrics")).text
    assert 'healthguard_api_requests_total{endpoint="/people/{name}",method="GET"} 1.0' in text
    assert 'healthguard_api_errors_total{endpoint="/fault"} 1.0' in text
    assert "jane" not in text


@pytest.mark.parametrize(
    ("started", "draining", "status"), [(False, False, 503), (True, False, 200), (True, True, 503)]
)
async def test_readyz_says_whether_this_pod_takes_requests(started: bool, draining: bool, status: int) -> None:
    """Not before it started, not after it began to drain; and whatever else is down does not matter."""
    health = Health("test", started=started, draining=draining, checks={"database": broken})
    async with client_of(health) as client:
        assert (await client.get("/readyz")).status_code == status
        assert (await client.get("/livez")).status_code == 200


async def test_health_ready_names_what_is_away_without_saying_where() -> None:
    """People and old monitors learn which part is away, and no address."""
    health = Health("test", started=True, checks={"database": broken, "keys": fine})
    async with client_of(health) as client:
        response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "checks": {"database": "unavailable", "keys": "ok"}}


async def test_checks_that_hang_are_cut_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that accepts and never answers is as away as one that refuses."""
    import asyncio

    monkeypatch.setattr("healthguard.health.CHECK_TIMEOUT_S", 0.01)
    assert await run_checks({"slow": lambda: asyncio.Event().wait()}) == {"slow": "unavailable"}  # type: ignore[dict-item,return-value]
