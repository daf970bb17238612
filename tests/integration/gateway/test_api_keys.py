"""An API key, made at the real auth, opens the gateway's paths, and those of records behind it."""

import pytest

from tests.integration.gateway.stack import Stack
from tests.pictures import jpeg


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """Return a key of a new person."""
    with stack.client(stack.token()) as client:
        response = client.post("/api/v1/auth/keys", json={"name": "a program"})
        assert response.status_code == 201, response.text
        return str(response.json()["key"])


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_key_makes_and_reads_predictions(stack: Stack, key: str, header: str) -> None:
    """As its owner: what it made, it can read."""
    with stack.client() as client:
        shown = {header: key if header == "X-API-Key" else f"Bearer {key}"}
        made = client.post("/api/v1/models/cancer/predictions", files={"file": ("a.jpg", jpeg())}, headers=shown)
        assert made.status_code == 201, made.text
        read = client.get(made.headers["Location"], headers=shown)
        assert read.json()["id"] == made.json()["id"]


def test_key_that_nobody_made_opens_nothing(stack: Stack) -> None:
    """Well-formed or not."""
    with stack.client() as client:
        for key in ("hg_live_" + "a" * 22 + "_" + "b" * 6, "hg_live_x"):
            assert client.get("/api/v1/models", headers={"X-API-Key": key}).status_code == 401
