"""What is sent again under its Idempotency-Key is done once; and nothing secret is kept to know the repeat by."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from auth import api_keys, store
from auth.settings import AuthSettings
from healthguard.database import open_database
from healthguard.tokens import Role
from tests import factories
from tests.integration.auth.people import authorization, register, set_role

UNDER_KEY = {"Idempotency-Key": "a-key-of-the-client"}


def slug(answer: httpx.Response) -> tuple[int, str]:
    """Return status and kind of a problem."""
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def put_back(connection: AsyncConnection, hours: int) -> None:
    """Make all keys so much older."""
    await connection.execute(
        text("UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => :hours)"), {"hours": hours}
    )


async def kept_of(connection: AsyncConnection, credentials: dict[str, str]) -> list[str]:
    """Return all that is kept with a person's Idempotency-Keys, a text a row."""
    rows = "SELECT k::text FROM idempotency_keys k JOIN users u ON u.id = k.user_id WHERE u.email = :email"
    return list((await connection.execute(text(rows), {"email": credentials["email"]})).scalars())


async def keys_listed(client: httpx.AsyncClient, headers: dict[str, str]) -> list[str]:
    """Return the ids of a person's API keys."""
    return [key["id"] for key in (await client.get("/v1/auth/keys", headers=headers)).json()["items"]]


@pytest.mark.parametrize("path", ["/v1/auth/register", "/auth/register"])
async def test_registration_again_under_its_key_gets_the_account(client: httpx.AsyncClient, path: str) -> None:
    """A client whose answer was lost learns that it has registered; without the key it is a 409 as ever."""
    credentials = factories.credentials()

    first, again = [await client.post(path, json=credentials, headers=UNDER_KEY) for _ in range(2)]

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert slug(await client.post(path, json=credentials)) == (409, "email-taken")
    other = {"Idempotency-Key": "another"}
    assert slug(await client.post(path, json=credentials, headers=other)) == (409, "email-taken")


async def test_registration_again_needs_the_password(client: httpx.AsyncClient) -> None:
    """Whoever knows e-mail and key learns no more than that the e-mail is taken."""
    credentials = factories.credentials()
    await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)

    guess = credentials | {"password": "a guess at the password"}

    assert slug(await client.post("/v1/auth/register", json=guess, headers=UNDER_KEY)) == (409, "email-taken")


async def test_registration_again_is_no_quicker_way_to_guess(client: httpx.AsyncClient) -> None:
    """Guesses under a key count as those at the log-in do: soon they must wait."""
    credentials = factories.credentials()
    await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)
    guess = credentials | {"password": "a guess at the password"}

    statuses = [(await client.post("/v1/auth/login", json=guess)).status_code for _ in range(20)]
    at_registration = await client.post("/v1/auth/register", json=guess, headers=UNDER_KEY)

    assert statuses[-1] == 429
    assert at_registration.status_code == 429


async def test_registration_key_is_forgotten_after_a_day(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """From then on the e-mail is taken, also for who sends the old key."""
    credentials = factories.credentials()
    await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)
    await put_back(auth_connection, 25)

    assert slug(await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)) == (409, "email-taken")


async def test_api_key_again_makes_no_other_and_says_which_is_there(client: httpx.AsyncClient) -> None:
    """The answer that shows the key comes once; the repeat names it, so that it can be revoked."""
    headers = await authorization(client, await register(client)) | UNDER_KEY

    first, again = [await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers) for _ in range(2)]

    assert first.status_code == 201
    assert slug(again) == (409, "api-key-shown")
    assert again.json()["key_id"] == first.json()["id"]
    assert first.json()["key"] not in again.text
    assert await keys_listed(client, headers) == [first.json()["id"]]
    assert (await client.delete(f"/v1/auth/keys/{again.json()['key_id']}", headers=headers)).status_code == 204


async def test_api_key_of_another_name_under_a_used_key_is_refused(client: httpx.AsyncClient) -> None:
    """Another request under a used key is a mistake, whatever was done under it; another person's key is another."""
    headers, other = [await authorization(client, await register(client)) | UNDER_KEY for _ in range(2)]
    await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers)

    for change in ({"name": "export"}, {"name": "import", "expires_in_days": 7}):
        refused = await client.post("/v1/auth/keys", json=change, headers=headers)
        assert slug(refused) == (422, "idempotency-mismatch")
    assert (await client.post("/v1/auth/keys", json={"name": "import"}, headers=other)).status_code == 201


async def test_refused_api_key_does_not_use_its_key_up(client: httpx.AsyncClient) -> None:
    """Where nothing was made, the same request may succeed later."""
    headers = await authorization(client, await register(client))
    made = [(await client.post("/v1/auth/keys", json={"name": "x"}, headers=headers)).json() for _ in range(20)]
    full = await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers | UNDER_KEY)
    await client.delete(f"/v1/auth/keys/{made[0]['id']}", headers=headers)

    assert slug(full) == (409, "too-many-api-keys")
    again = await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers | UNDER_KEY)
    assert again.status_code == 201


async def test_api_key_past_its_day_is_made_anew_and_old_keys_go(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A key's life ends, and each use removes some whose life is over: the table does not grow for ever."""
    credentials = await register(client)
    headers = await authorization(client, credentials)
    for number in range(3):
        keyed = headers | {"Idempotency-Key": f"key-{number}"}
        assert (await client.post("/v1/auth/keys", json={"name": "import"}, headers=keyed)).status_code == 201
    await put_back(auth_connection, 25)

    again = await client.post("/v1/auth/keys", json={"name": "x"}, headers=headers | {"Idempotency-Key": "key-0"})

    assert again.status_code == 201
    (left,) = await kept_of(auth_connection, credentials)
    assert "key-0" in left


async def test_expired_key_that_was_not_removed_yet_is_claimed_anew(
    client: httpx.AsyncClient, auth_connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only some are removed at a time; whichever those are, an old key holds nobody up."""
    monkeypatch.setattr(store, "PURGE_ROWS_MAX", 0)
    headers = await authorization(client, await register(client)) | UNDER_KEY
    await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers)
    await put_back(auth_connection, 25)

    assert (await client.post("/v1/auth/keys", json={"name": "x"}, headers=headers)).status_code == 201


async def test_api_key_asked_for_many_times_at_once_is_made_once(parallel_client: httpx.AsyncClient) -> None:
    """The others wait for the first to commit."""
    headers = await authorization(parallel_client, await register(parallel_client))
    for number in range(5):
        keyed = headers | {"Idempotency-Key": f"key-{number}"}
        sent = (parallel_client.post("/v1/auth/keys", json={"name": "import"}, headers=keyed) for _ in range(6))
        answers = await asyncio.gather(*sent)
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert len(await keys_listed(parallel_client, headers)) == 5


async def test_change_of_a_person_again_changes_nothing_more(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A late repeat neither undoes what was changed since nor ends the log-in that began since."""
    admin, person = await register(client), await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    by = await authorization(client, admin)
    user_id = (await client.get("/v1/auth/me", headers=await authorization(client, person))).json()["id"]
    path = f"/v1/auth/users/{user_id}"

    first = await client.patch(path, json={"role": "doctor"}, headers=by | UNDER_KEY)
    await client.patch(path, json={"role": "patient"}, headers=by)
    begun = (await client.post("/v1/auth/login", json=person)).json()
    again = await client.patch(path, json={"role": "doctor"}, headers=by | UNDER_KEY)

    assert (first.json()["role"], again.status_code, again.json()["role"]) == ("doctor", 200, "patient")
    refreshed = await client.post("/v1/auth/refresh", json={"refresh_token": begun["refresh_token"]})
    assert refreshed.status_code == 200
    other = await client.patch(path, json={"role": "admin"}, headers=by | UNDER_KEY)
    assert slug(other) == (422, "idempotency-mismatch")


async def test_change_of_nobody_does_not_use_its_key_up(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A 404 stores nothing, the key neither."""
    admin = await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    by = await authorization(client, admin)

    absent = await client.patch(f"/v1/auth/users/{2**62}", json={"disabled": True}, headers=by | UNDER_KEY)

    assert absent.status_code == 404
    assert await kept_of(auth_connection, admin) == []


async def test_admins_who_change_each_other_at_once_never_wait_in_a_circle(
    settings: AuthSettings, parallel_client: httpx.AsyncClient
) -> None:
    """Each locks the other's row and refers to their own by the key: neither of the two may be refused."""
    admins = [await register(parallel_client) for _ in range(2)]
    async with open_database(settings, "auth") as database, database.write() as session:
        for admin in admins:
            await set_role(await session.connection(), admin, Role.ADMIN)
    headers = [await authorization(parallel_client, admin) for admin in admins]
    ids = [(await parallel_client.get("/v1/auth/me", headers=each)).json()["id"] for each in headers]

    for number in range(10):
        key = {"Idempotency-Key": f"key-{number}"}
        answers = await asyncio.gather(
            *(
                parallel_client.patch(f"/v1/auth/users/{other}", json={"role": "admin"}, headers=each | key)
                for each, other in zip(headers, reversed(ids), strict=True)
            )
        )
        assert [answer.status_code for answer in answers] == [200, 200]


async def test_nothing_secret_is_kept_with_a_key(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """Neither the API key, nor the password, nor a hash of either stands in the table."""
    credentials = factories.credentials()
    await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)
    headers = await authorization(client, credentials)
    key = (
        await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers | {"Idempotency-Key": "key-1"})
    ).json()["key"]

    rows = await kept_of(auth_connection, credentials)

    kept = "\n".join(rows)
    secrets = [*credentials.values(), key, *(api_keys.hash_of(each).hex() for each in (*credentials.values(), key))]
    assert len(rows) == 2
    assert [secret for secret in secrets if secret in kept] == []


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "é"])
async def test_key_is_bounded(client: httpx.AsyncClient, key: str) -> None:
    """A key is at most 128 visible ASCII characters; what was sent is not repeated."""
    headers = [("Idempotency-Key", key.encode())]

    refused = await client.post("/v1/auth/register", json=factories.credentials(), headers=headers)  # type: ignore[arg-type]  # bytes are taken

    assert slug(refused) == (422, "validation-failed")
