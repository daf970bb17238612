"""No e-mail address, password or token leaves auth by its logs or metrics."""

import logging
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO

import httpx
import pytest
import structlog

from auth.refresh import RefreshToken
from healthguard.logging import configure_logging
from tests import factories
from tests.integration.auth.people import authorization, register


@pytest.fixture
def written() -> Iterator[StringIO]:
    """Log as `python -m auth` does, for this test alone: loggers that were used must not keep its configuration."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    out = StringIO()
    with redirect_stdout(out):
        configure_logging("auth")
    structlog.configure(**(structlog.get_config() | {"cache_logger_on_first_use": False}))
    yield out
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


async def test_logs_and_metrics_hold_no_email_password_or_token(written: StringIO, client: httpx.AsyncClient) -> None:
    """What is written while people register, log in, mistype and refresh names nobody."""
    credentials, unknown = await register(client), factories.credentials()
    begun = (await client.post("/v1/auth/login", json=credentials)).json()
    headers = await authorization(client, credentials)
    keyed = headers | {"Idempotency-Key": "idempotency-canary"}
    key = (await client.post("/v1/auth/keys", json={"name": "key-canary"}, headers=keyed)).json()["key"]
    await client.post("/v1/auth/keys", json={"name": "key-canary"}, headers=keyed)
    await client.post("/v1/auth/register", json=credentials, headers=keyed)
    await client.post("/v1/auth/login", json=unknown)
    await client.post("/v1/auth/token", json={"api_key": key})
    token = begun["refresh_token"]
    for _ in range(2):
        token = (await client.post("/v1/auth/refresh", json={"refresh_token": token})).json()["refresh_token"]
    await client.post("/v1/auth/refresh", json={"refresh_token": begun["refresh_token"]})
    await client.get(f"/v1/auth/{unknown['email']}")
    metrics = (await client.get("/metrics")).text

    # The client of the test logs its requests, too, by the same handlers.
    lines = [line for line in written.getvalue().splitlines() if '"HTTP Request:' not in line]
    logged = "\n".join(lines)
    family = RefreshToken.parse(begun["refresh_token"]).family
    tokens = [begun["access_token"], begun["refresh_token"], str(family), family.hex]
    secrets = [*credentials.values(), *unknown.values(), *tokens, key]
    assert "login_accepted" in logged
    assert "login_refused" in logged
    assert "refresh_token_reused" in logged
    assert [secret for secret in [*secrets, "key-canary", "idempotency-canary"] if secret in logged + metrics] == []
