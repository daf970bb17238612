"""What tests of auth do before they come to their point: register, log in, and be somebody else."""

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from healthguard.tokens import Role
from tests import factories


async def register(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Register somebody and return their credentials."""
    credentials = factories.credentials()
    answer = await client.post("/v1/auth/register", json=credentials, headers=headers)
    assert answer.status_code == 201
    return credentials


async def authorization(client: httpx.AsyncClient, credentials: dict[str, str]) -> dict[str, str]:
    """Log in and return the header with the access token."""
    answer = await client.post("/v1/auth/login", json=credentials)
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def set_role(connection: AsyncConnection, credentials: dict[str, str], role: Role) -> None:
    """Make somebody what registration cannot make them."""
    await connection.execute(
        text("UPDATE users SET role = :role WHERE email = :email"), {"role": role, "email": credentials["email"]}
    )
