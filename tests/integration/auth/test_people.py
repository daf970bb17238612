"""Registering, logging in, verifying: over HTTP, on a real database."""

from typing import Any

import argon2
import httpx
import jwt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from healthguard.tokens import Keys, Role, TokenVerifier
from tests import factories
from tests.integration.auth.people import authorization, register, set_role


async def test_registration_makes_a_patient_whatever_the_body_says(client: httpx.AsyncClient) -> None:
    """A role in the body of a registration changes nothing."""
    credentials = factories.credentials()

    await client.post("/v1/auth/register", json=credentials | {"role": "admin"})

    me = await client.get("/v1/auth/me", headers=await authorization(client, credentials))
    assert me.json()["role"] == "patient"


async def test_registration_takes_an_email_once_in_any_case(client: httpx.AsyncClient) -> None:
    """Upper and lower case of an e-mail are the same person; the second registration is a 409."""
    credentials = await register(client)

    answer = await client.post(
        "/v1/auth/register", json={"email": credentials["email"].upper(), "password": "another password"}
    )

    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:healthguard:problem:email-taken"


async def test_registration_refuses_common_password_without_repeating_it(client: httpx.AsyncClient) -> None:
    """A password from the list is a 422 that says why and not what."""
    answer = await client.post("/v1/auth/register", json=factories.credentials(password="Password123"))

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:healthguard:problem:password-refused"
    assert "password123" not in answer.text.lower()


async def test_stored_hash_is_argon2id(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """What lies in the database is an encoded Argon2id hash, not the password."""
    credentials = await register(client)

    stored = (
        await auth_connection.execute(
            text("SELECT password_hash FROM users WHERE email = :email"), {"email": credentials["email"]}
        )
    ).scalar_one()

    assert stored.startswith("$argon2id$v=19$")
    assert credentials["password"] not in stored


async def test_login_takes_json_and_both_forms(client: httpx.AsyncClient) -> None:
    """The body of a log-in is JSON, a URL-encoded form, or a multipart form with OAuth2's names."""
    credentials = await register(client)
    form = {"username": credentials["email"], "password": credentials["password"]}
    multipart = {name: (None, value) for name, value in form.items()}

    answers = [
        await client.post("/v1/auth/login", json=credentials),
        await client.post("/v1/auth/login", data=form),
        await client.post("/v1/auth/login", files=multipart),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_login_token_holds_exactly_the_agreed_claims(client: httpx.AsyncClient) -> None:
    """The access token verifies with the published keys, and says nothing beyond subject, role and method."""
    credentials = await register(client)
    token = (await client.post("/v1/auth/login", json=credentials)).json()["access_token"]

    async def fetch() -> Any:
        return (await client.get("/.well-known/jwks.json")).json()

    caller = await TokenVerifier(Keys(fetch), "healthguard", "healthguard").verify(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert caller.role is Role.PATIENT
    assert claims.keys() == {"iss", "aud", "sub", "role", "amr", "iat", "exp", "jti"}
    assert claims["amr"] == ["pwd"]
    assert jwt.get_unverified_header(token).keys() == {"alg", "typ", "kid"}


async def test_login_answers_alike_for_unknown_wrong_and_disabled(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """Nothing in the answer tells whether an e-mail is registered."""
    known, disabled = await register(client), await register(client)
    await auth_connection.execute(
        text("UPDATE users SET disabled_at = now() WHERE email = :email"), {"email": disabled["email"]}
    )

    answers = [
        await client.post("/v1/auth/login", json=factories.credentials()),
        await client.post("/v1/auth/login", json=known | {"password": "not the password"}),
        await client.post("/v1/auth/login", json=disabled),
    ]

    shown = [
        (answer.status_code, {**answer.json(), "request_id": ""}, answer.headers["WWW-Authenticate"])
        for answer in answers
    ]
    assert shown[0][0] == 401
    assert shown == [shown[0]] * 3


async def test_login_verifies_passlibs_hash_and_replaces_a_weaker_one(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A migrated Argon2i hash lets its owner in, and is stored anew as Argon2id; the new one lets them in as well."""
    credentials = await register(client)
    weaker = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=argon2.Type.I)
    values = {"hash": weaker.hash(credentials["password"]), "email": credentials["email"]}
    await auth_connection.execute(text("UPDATE users SET password_hash = :hash WHERE email = :email"), values)

    first = await client.post("/v1/auth/login", json=credentials)
    stored = await auth_connection.execute(text("SELECT password_hash FROM users WHERE email = :email"), values)
    second = await client.post("/v1/auth/login", json=credentials)

    assert (first.status_code, second.status_code) == (200, 200)
    assert stored.scalar_one().startswith("$argon2id$")


async def test_login_bad_bodies_are_problems_that_echo_nothing(client: httpx.AsyncClient) -> None:
    """Each body that cannot be read is a 4xx problem without a word of the body."""
    json = {"Content-Type": "application/json"}
    secret = "s3cret-canary"
    cases: list[tuple[int, dict[str, Any]]] = [
        (400, {"content": f'{{"email": "{secret}', "headers": json}),
        (400, {"content": f'["{secret}"]', "headers": json}),
        (400, {"content": "[" * 8000, "headers": json}),
        (413, {"content": secret * 2000, "headers": json}),
        (415, {"content": secret, "headers": {"Content-Type": "text/plain"}}),
        (415, {"content": secret}),
        (422, {"json": {"email": secret}}),
        (422, {"json": {"email": secret, "password": [secret]}}),
        (422, {"json": {"email": secret, "password": secret * 350}}),
        (400, {"files": {"password": ("name", secret)}, "data": {"username": secret}}),
    ]
    for status, body in cases:
        answer = await client.post("/v1/auth/login", **body)

        assert (answer.status_code, secret in answer.text) == (status, False), body
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_verify_refuses_what_is_no_longer_so(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """A token stops to verify at auth when its person's role changes."""
    credentials = await register(client)
    headers = await authorization(client, credentials)
    assert (await client.get("/v1/auth/verify", headers=headers)).status_code == 200

    await set_role(auth_connection, credentials, Role.DOCTOR)

    assert (await client.get("/v1/auth/verify", headers=headers)).status_code == 401


async def test_verify_refuses_none_and_damaged_tokens(client: httpx.AsyncClient) -> None:
    """Without a token, or with a changed one, the answer is a 401 that names the scheme."""
    headers = await authorization(client, await register(client))
    damaged = headers["Authorization"][:-8] + "AAAAAAAA"

    none = await client.get("/v1/auth/verify")
    changed = await client.get("/v1/auth/verify", headers={"Authorization": damaged})

    assert (none.status_code, none.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (changed.status_code, changed.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_people_are_listed_and_changed_by_admins_only(
    client: httpx.AsyncClient, auth_connection: AsyncConnection
) -> None:
    """A patient gets a 403, nobody a 401; an admin sees pages, and what they change ends the person's log-ins."""
    patient, admin = await register(client), await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    as_patient, as_admin = await authorization(client, patient), await authorization(client, admin)
    begun = (await client.post("/v1/auth/login", json=patient)).json()
    me = (await client.get("/v1/auth/me", headers=as_patient)).json()

    assert (await client.get("/v1/auth/users")).status_code == 401
    assert (await client.get("/v1/auth/users", headers=as_patient)).status_code == 403
    assert (
        await client.patch(f"/v1/auth/users/{me['id']}", json={"role": "admin"}, headers=as_patient)
    ).status_code == 403
    first = (await client.get("/v1/auth/users", params={"limit": 1}, headers=as_admin)).json()
    rest = (await client.get("/v1/auth/users", params={"cursor": first["next_cursor"]}, headers=as_admin)).json()
    changed = await client.patch(f"/v1/auth/users/{me['id']}", json={"disabled": True}, headers=as_admin)

    assert [first["items"][0]["email"], rest["items"][0]["email"]] == [admin["email"], patient["email"]]
    assert changed.json()["disabled_at"] is not None
    assert (await client.post("/v1/auth/login", json=patient)).status_code == 401
    assert (await client.get("/v1/auth/me", headers=as_patient)).status_code == 401
    refreshed = await client.post("/v1/auth/refresh", json={"refresh_token": begun["refresh_token"]})
    assert refreshed.status_code == 401


@pytest.mark.parametrize(
    "changes", [[{"role": "doctor"}], [{"disabled": True}, {"disabled": False}]], ids=["a role", "disabled and enabled"]
)
async def test_change_by_an_admin_ends_the_log_ins_of_before(
    client: httpx.AsyncClient, auth_connection: AsyncConnection, changes: list[dict[str, Any]]
) -> None:
    """Also of a person who may log in: what they had begun as somebody else cannot be refreshed."""
    patient, admin = await register(client), await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    headers = await authorization(client, admin)
    begun = (await client.post("/v1/auth/login", json=patient)).json()
    person = (await client.get("/v1/auth/users", headers=headers)).json()["items"][1]
    assert person["email"] == patient["email"]

    for change in changes:
        changed = await client.patch(f"/v1/auth/users/{person['id']}", json=change, headers=headers)
        assert changed.status_code == 200

    refreshed = await client.post("/v1/auth/refresh", json={"refresh_token": begun["refresh_token"]})
    assert refreshed.status_code == 401
    assert (await client.post("/v1/auth/login", json=patient)).status_code == 200


async def test_admin_cannot_change_themselves(client: httpx.AsyncClient, auth_connection: AsyncConnection) -> None:
    """No installation is left without an admin by a slip."""
    admin = await register(client)
    await set_role(auth_connection, admin, Role.ADMIN)
    headers = await authorization(client, admin)
    me = (await client.get("/v1/auth/me", headers=headers)).json()

    answer = await client.patch(f"/v1/auth/users/{me['id']}", json={"role": "patient"}, headers=headers)

    assert answer.status_code == 403


async def test_path_with_a_slash_too_many_is_not_found(client: httpx.AsyncClient) -> None:
    """A redirect would send the caller to whatever host the request names."""
    answer = await client.get("/v1/auth/me/", headers={"Host": "host-canary.example"})

    assert answer.status_code == 404
    assert "host-canary" not in answer.text + str(answer.headers)
