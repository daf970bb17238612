"""Refreshing log-ins: one successor, a short grace, and the end of the family at reuse."""

import asyncio
import base64

import httpx
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from auth import store
from auth.refresh import RefreshToken
from auth.settings import AuthSettings
from healthguard.database import Database, open_database
from tests.integration.auth.people import register


async def begin(client: httpx.AsyncClient) -> str:
    """Register, log in, and return the refresh token."""
    answer = await client.post("/v1/auth/login", json=await register(client))
    return str(answer.json()["refresh_token"])


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Use a refresh token."""
    return await client.post("/v1/auth/refresh", json={"refresh_token": token})


async def count(database: Database, query: TextClause) -> int:
    """Return the number that *query* selects."""
    async with database.read() as session:
        return int((await session.execute(query)).scalar_one())


async def test_refresh_gives_a_working_access_token_and_a_successor(client: httpx.AsyncClient) -> None:
    """The answer has what a log-in's has, and the same end: refreshing does not lengthen a log-in."""
    begun = (await client.post("/v1/auth/login", json=await register(client))).json()

    answer = (await refresh(client, begun["refresh_token"])).json()

    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    assert (await client.get("/v1/auth/verify", headers=headers)).status_code == 200
    assert answer["refresh_token"] != begun["refresh_token"]
    assert answer["refresh_expires_at"] == begun["refresh_expires_at"]


async def test_refresh_repeated_at_once_gives_the_same_successor(client: httpx.AsyncClient) -> None:
    """A client whose answer was lost asks again and goes on."""
    token = await begin(client)

    first, second = await refresh(client, token), await refresh(client, token)

    assert first.json()["refresh_token"] == second.json()["refresh_token"]


async def test_refresh_in_parallel_has_one_successor(parallel_client: httpx.AsyncClient) -> None:
    """Thirty refreshes at once with one token all get the same successor, which works."""
    token = await begin(parallel_client)

    answers = await asyncio.gather(*(refresh(parallel_client, token) for _ in range(30)))

    assert {answer.status_code for answer in answers} == {200}
    successors = {answer.json()["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert (await refresh(parallel_client, successors.pop())).status_code == 200


async def test_refresh_waits_for_another_of_its_family(
    parallel_client: httpx.AsyncClient, settings: AuthSettings
) -> None:
    """Two refreshes pass one after the other: the second decides by what the first has left, never by what it found."""
    token = RefreshToken.parse(await begin(parallel_client))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'auth_alone'")
    async with open_database(settings, "auth") as database:
        async with database.write() as first:
            await store.family_for_update(first, token.family)
            second = asyncio.create_task(refresh(parallel_client, str(token)))
            async with asyncio.timeout(20):
                # A transaction for each look: inside one, PostgreSQL shows the same picture again.
                while not await count(database, waiting):
                    assert not second.done()
                    await asyncio.sleep(0.01)
            await store.revoke_family(first, token.family)

        assert (await second).status_code == 401


async def test_refresh_with_grandparent_ends_the_family(client: httpx.AsyncClient) -> None:
    """A token two generations old is refused at any time, and so is then the newest."""
    first = await begin(client)
    second = (await refresh(client, first)).json()["refresh_token"]
    third = (await refresh(client, second)).json()["refresh_token"]

    assert (await refresh(client, first)).status_code == 401
    assert (await refresh(client, third)).status_code == 401


async def test_refresh_with_parent_after_the_grace_ends_the_family(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """Eleven seconds after its replacement a token is a sign of theft; the revocation outlives the refusal."""
    first = await begin(client)
    second = (await refresh(client, first)).json()["refresh_token"]
    await auth_connection.execute(text("UPDATE refresh_families SET rotated_at = rotated_at - interval '11 seconds'"))

    answer = await refresh(client, first)

    assert (answer.status_code, answer.json()["type"]) == (401, "urn:healthguard:problem:refresh-refused")
    assert (await refresh(client, second)).status_code == 401


async def test_refresh_ends_with_the_family(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """After its absolute end no token of a log-in works."""
    token = await begin(client)
    await auth_connection.execute(text("UPDATE refresh_families SET expires_at = now() - interval '1 second'"))

    assert (await refresh(client, token)).status_code == 401


async def test_login_removes_ended_families(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """Rows of log-ins that are over do not pile up."""
    await begin(client)
    await auth_connection.execute(text("UPDATE refresh_families SET expires_at = now() - interval '1 second'"))

    await begin(client)

    assert (await auth_connection.execute(text("SELECT count(*) FROM refresh_families"))).scalar_one() == 1


async def test_logout_ends_the_log_in(client: httpx.AsyncClient) -> None:
    """After a log-out the refresh token does not work; logging out again is no error."""
    token = await begin(client)

    first = await client.post("/v1/auth/logout", json={"refresh_token": token})
    second = await client.post("/v1/auth/logout", json={"refresh_token": token})

    assert (first.status_code, second.status_code) == (204, 204)
    assert (await refresh(client, token)).status_code == 401


async def test_logout_takes_the_token_before_the_newest(client: httpx.AsyncClient) -> None:
    """A client that refreshed a moment ago may still hold the predecessor when it logs out."""
    token = await begin(client)
    newest = (await refresh(client, token)).json()["refresh_token"]

    assert (await client.post("/v1/auth/logout", json={"refresh_token": token})).status_code == 204
    assert (await refresh(client, newest)).status_code == 401


async def test_logout_needs_the_secret_and_not_only_the_family(client: httpx.AsyncClient) -> None:
    """Who knows a family's id alone ends nobody's log-in."""
    token = await begin(client)
    invented = str(RefreshToken(RefreshToken.parse(token).family, bytes(32)))

    assert (await client.post("/v1/auth/logout", json={"refresh_token": invented})).status_code == 401
    assert (await refresh(client, token)).status_code == 200


async def test_refresh_refuses_what_is_no_token(client: httpx.AsyncClient) -> None:
    """Anything else in its place is refused; what is too long is not even looked at."""
    for text_, status in (("", 401), ("hgr_" + "A" * 64, 401), ("hgr_" + "é" * 64, 401), ("x" * 69, 422)):
        assert (await refresh(client, text_)).status_code == status


async def test_stored_families_hold_no_usable_token(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """The database knows hashes: neither the token nor its secret part stands there."""
    token = await begin(client)

    rows = (await auth_connection.execute(text("SELECT f::text FROM refresh_families f"))).scalars().all()

    secret = base64.urlsafe_b64decode(token.removeprefix("hgr_"))[16:]
    assert rows
    assert all(secret.hex() not in row and token not in row for row in rows)
