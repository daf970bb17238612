"""API keys over HTTP: made once, traded for short tokens, revoked at once."""

import httpx
import jwt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from auth import api_keys, store
from healthguard.tokens import Role
from tests.integration.auth.people import authorization, register, set_role


async def make_key(client: httpx.AsyncClient, headers: dict[str, str], **fields: object) -> dict[str, str]:
    """Make a key and return the answer."""
    answer = await client.post("/v1/auth/keys", json={"name": "import"} | fields, headers=headers)
    assert answer.status_code == 201
    return dict(answer.json())


async def trade(client: httpx.AsyncClient, key: str) -> httpx.Response:
    """Trade a key for a token."""
    return await client.post("/v1/auth/token", json={"api_key": key})


async def test_key_is_traded_for_a_short_token_of_its_owner(client: httpx.AsyncClient) -> None:
    """The token speaks for the key's owner for five minutes, and the use is noted."""
    headers = await authorization(client, await register(client))
    key = await make_key(client, headers)

    answer = (await trade(client, key["key"])).json()

    assert answer["expires_in"] == 300
    me = (await client.get("/v1/auth/me", headers=headers)).json()
    assert jwt.decode(answer["access_token"], options={"verify_signature": False})["sub"] == me["subject"]
    listed = (await client.get("/v1/auth/keys", headers=headers)).json()["items"]
    assert listed[0]["last_used_at"] is not None


async def test_key_is_shown_once_and_stored_as_hash(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """Neither the list nor the database holds the key; both know its prefix."""
    headers = await authorization(client, await register(client))
    key = (await make_key(client, headers))["key"]

    listed = await client.get("/v1/auth/keys", headers=headers)
    row = (await auth_connection.execute(text("SELECT k::text FROM api_keys k"))).scalar_one()

    assert key not in listed.text
    assert listed.json()["items"][0]["prefix"] == key[:12]
    assert key.removeprefix("hg_live_")[4:] not in row


async def test_key_revoked_or_expired_or_disabled_is_refused(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A key works until it is revoked or expires, or its owner is disabled."""
    headers = await authorization(client, await register(client))
    revoked, expired, disabled = [await make_key(client, headers, expires_in_days=1) for _ in range(3)]
    assert [(await trade(client, key["key"])).status_code for key in (revoked, expired, disabled)] == [200] * 3

    assert (await client.delete(f"/v1/auth/keys/{revoked['id']}", headers=headers)).status_code == 204
    assert (await trade(client, revoked["key"])).status_code == 401
    await auth_connection.execute(
        text("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": expired["id"]}
    )
    assert (await trade(client, expired["key"])).status_code == 401
    await auth_connection.execute(text("UPDATE users SET disabled_at = now()"))
    assert (await trade(client, disabled["key"])).status_code == 401


async def test_key_manages_neither_keys_nor_people(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """Whoever finds an admin's key makes no other key that outlives it, and no other admin; a log-in may."""
    admin = await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    headers = await authorization(client, admin)
    key = await make_key(client, headers)
    by_key = {"Authorization": f"Bearer {(await trade(client, key['key'])).json()['access_token']}"}

    async def statuses(headers: dict[str, str]) -> list[int]:
        answers = [
            await client.get("/v1/auth/me", headers=headers),
            await client.get("/v1/auth/keys", headers=headers),
            await client.post("/v1/auth/keys", json={"name": "another"}, headers=headers),
            await client.get("/v1/auth/users", headers=headers),
            await client.patch(f"/v1/auth/users/{2**62}", json={"role": "admin"}, headers=headers),
            await client.delete(f"/v1/auth/keys/{key['id']}", headers=headers),
        ]
        return [answer.status_code for answer in answers]

    assert await statuses(by_key) == [200, 403, 403, 403, 403, 403]
    assert await statuses(headers) == [200, 200, 201, 200, 404, 204]


async def test_key_of_another_cannot_be_revoked(client: httpx.AsyncClient) -> None:
    """Somebody else's key is not found, and goes on working."""
    owner, other = [await authorization(client, await register(client)) for _ in range(2)]
    key = await make_key(client, owner)

    assert (await client.delete(f"/v1/auth/keys/{key['id']}", headers=other)).status_code == 404
    assert (await trade(client, key["key"])).status_code == 200


async def test_keys_are_limited_per_person(client: httpx.AsyncClient) -> None:
    """The twenty-first working key is a 409; revoking one makes room."""
    headers = await authorization(client, await register(client))
    keys = [await make_key(client, headers) for _ in range(20)]

    refused = await client.post("/v1/auth/keys", json={"name": "one more"}, headers=headers)
    await client.delete(f"/v1/auth/keys/{keys[0]['id']}", headers=headers)
    made = await client.post("/v1/auth/keys", json={"name": "one more"}, headers=headers)

    assert (refused.status_code, made.status_code) == (409, 201)


async def test_mistyped_key_never_reaches_the_database(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key whose checksum is wrong is refused before any look-up; one that is only unknown is looked up."""
    looked_up = []
    use_api_key = store.use_api_key

    async def watched(session: object, key_hash: bytes) -> object:
        looked_up.append(key_hash)
        return await use_api_key(session, key_hash)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "use_api_key", watched)
    unknown = api_keys.new_key()
    mistyped = unknown[:-1] + ("0" if unknown[-1] != "0" else "1")

    assert (await trade(client, mistyped)).status_code == 401
    assert looked_up == []
    assert (await trade(client, unknown)).status_code == 401
    assert looked_up == [api_keys.hash_of(unknown)]
