"""The records service for tests: its settings, its application, and the calls that most tests make."""

import base64
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from records.app import create_app, running
from records.settings import RecordsSettings
from tests.factories import GATEWAY_SECRET, model_answer
from tests.issuer import Issuer

FROM_GATEWAY = {"X-HealthGuard-Gateway": GATEWAY_SECRET}
ANONYMOUS = FROM_GATEWAY | {"X-HealthGuard-Anonymous": "1"}

Headers = dict[str, str]


def records_settings(dsn: str, **overrides: Any) -> RecordsSettings:
    """Return settings of the service on the database at *dsn*."""
    values: dict[str, Any] = {
        "dsn": SecretStr(dsn),
        "jwks_url": "http://127.0.0.1:9/jwks.json",
        "gateway_secret": SecretStr(GATEWAY_SECRET),
        "pseudonym_key": SecretStr(base64.b64encode(bytes(range(32))).decode()),
        "pool_size": 4,
    }
    return RecordsSettings(**(values | overrides))


def records_app(settings: RecordsSettings, issuer: Issuer) -> FastAPI:
    """Return the service, whose public keys are *issuer*'s."""
    return create_app(settings, lambda app: running(app, settings, issuer.fetch))


async def save(client: httpx.AsyncClient, headers: Headers, key: str | None = None, **answer: Any) -> dict[str, Any]:
    """Store a model's answer as the gateway does, and return the record."""
    sent = headers | FROM_GATEWAY | ({"Idempotency-Key": key} if key else {})
    created = await client.post("/v1/predictions", json=model_answer(**answer), headers=sent)
    assert created.status_code == 201, created.text
    record: dict[str, Any] = created.json()
    return record


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return status and slug of a problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].rpartition(":")[2]
