"""What is sent again under its Idempotency-Key is done once; and nothing secret is kept to know the repeat by."""

import asyncio
from datetime import timedelta
from functools import partial

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from auth import api_keys, store
from auth.app import create_app, running
from auth.settings import AuthSettings
from healthguard import expiry
from healthguard.database import Database, open_database
from healthguard.expiry import forget_keys
from healthguard.tokens import Role
from tests import factories
from tests.asgi import client_of
from tests.integration.auth.conftest import cheap_passwords
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


async def fingerprints_of(connection: AsyncConnection, credentials: dict[str, str]) -> dict[str, bytes]:
    """Return the hashes that are kept with a person's Idempotency-Keys, by key."""
    rows = "SELECT k.key, k.fingerprint FROM idempotency_keys k JOIN users u ON u.id = k.user_id WHERE u.email = :email"
    found = await connection.execute(text(rows), {"email": credentials["email"]})
    return {row.key: row.fingerprint for row in found}


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


async def test_registration_of_another_email_under_a_used_key_is_another_account(client: httpx.AsyncClient) -> None:
    """A registration's key belongs to the account: strangers who chose the same one are not in each other's way."""
    one, other = [
        await client.post("/v1/auth/register", json=factories.credentials(), headers=UNDER_KEY) for _ in range(2)
    ]

    assert (one.status_code, other.status_code) == (201, 201)
    assert one.json()["id"] != other.json()["id"]


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


async def test_old_keys_are_forgotten_and_what_they_made_stays(
    client: httpx.AsyncClient, auth_connection: AsyncConnection, rolled_back: Database
) -> None:
    """All of them, in as many transactions as it takes; the table does not grow for ever."""
    credentials = await register(client)
    headers = await authorization(client, credentials)
    for number in range(5):
        keyed = headers | {"Idempotency-Key": f"old-{number}"}
        assert (await client.post("/v1/auth/keys", json={"name": "import"}, headers=keyed)).status_code == 201
    await put_back(auth_connection, 25)
    await client.post("/v1/auth/keys", json={"name": "x"}, headers=headers | UNDER_KEY)

    assert await forget_keys(rolled_back, partial(store.forget_keys, timedelta(hours=24)), batch=2) == 5

    (left,) = await kept_of(auth_connection, credentials)
    assert UNDER_KEY["Idempotency-Key"] in left
    assert len(await keys_listed(client, headers)) == 6


async def test_service_forgets_old_keys_by_itself(settings: AuthSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody need send another key for it: what belongs to an e-mail goes with its day."""
    monkeypatch.setattr(expiry, "INTERVAL_S", 0.01)
    credentials = factories.credentials()
    async with (
        open_database(settings, "auth") as database,
        client_of(create_app(settings, lambda app: running(app, settings, database, cheap_passwords()))) as client,
    ):
        await client.post("/v1/auth/register", json=credentials, headers=UNDER_KEY)
        async with database.write() as session:
            assert len(await kept_of(await session.connection(), credentials)) == 1
            await put_back(await session.connection(), 25)
        async with asyncio.timeout(20):
            while True:
                async with database.read() as session:
                    if not await kept_of(await session.connection(), credentials):
                        break
                await asyncio.sleep(0.01)


async def test_expired_key_that_was_not_removed_yet_is_claimed_anew(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """They are removed from time to time; until then an old key holds nobody up."""
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


async def test_what_is_kept_with_a_key_does_not_depend_on_a_secret(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """Of people with other passwords, and other API keys, the same hashes stand there: none can be searched through."""
    people = [await register(client, headers=UNDER_KEY) for _ in range(2)]
    for person in people:
        headers = await authorization(client, person) | {"Idempotency-Key": "key-1"}
        assert (await client.post("/v1/auth/keys", json={"name": "import"}, headers=headers)).status_code == 201

    one, other = [await fingerprints_of(auth_connection, person) for person in people]

    assert len(one) == 2
    assert one == other


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "é"])
async def test_key_is_bounded(client: httpx.AsyncClient, key: str) -> None:
    """A key is at most 128 visible ASCII characters; what was sent is not repeated."""
    headers = [("Idempotency-Key", key.encode())]

    refused = await client.post("/v1/auth/register", json=factories.credentials(), headers=headers)  # type: ignore[arg-type]  # bytes are taken

    assert slug(refused) == (422, "validation-failed")
