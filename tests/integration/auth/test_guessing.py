"""Guessing passwords, over HTTP: who is slowed down, and who is not."""

import httpx

from tests.integration.auth.people import register


async def test_guessing_is_slowed_down_and_told_by_retry_after(client: httpx.AsyncClient) -> None:
    """After ten wrong passwords for an account the next attempt is a 429, also with the right password."""
    credentials = await register(client)
    stranger = {"X-Forwarded-For": "203.0.113.9"}
    wrong = credentials | {"password": "not the password"}

    guesses = [await client.post("/v1/auth/login", json=wrong, headers=stranger) for _ in range(11)]

    assert [answer.status_code for answer in guesses] == [401] * 10 + [429]
    assert int(guesses[-1].headers["Retry-After"]) >= 1
    assert (await client.post("/v1/auth/login", json=credentials, headers=stranger)).status_code == 429


async def test_registering_is_slowed_down_by_source(client: httpx.AsyncClient) -> None:
    """A hundred at once, and then some a minute: neither a flood of accounts, nor a list of who is registered."""
    credentials = await register(client)
    stranger = {"X-Forwarded-For": "203.0.113.9"}

    # Some are forgiven while this runs, on a slow machine more.
    for _ in range(300):
        answer = await client.post("/v1/auth/register", json=credentials, headers=stranger)
        if answer.status_code != 409:
            break

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await client.post("/v1/auth/register", json=credentials)).status_code == 409


async def test_guessing_elsewhere_locks_nobody_out_of_a_known_place(client: httpx.AsyncClient) -> None:
    """A stranger's guesses do not stop the owner from logging in where they did before."""
    credentials = await register(client)
    owner, stranger = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "203.0.113.9"}
    await client.post("/v1/auth/login", json=credentials, headers=owner)
    for _ in range(12):
        await client.post("/v1/auth/login", json=credentials | {"password": "a wrong one"}, headers=stranger)

    assert (await client.post("/v1/auth/login", json=credentials, headers=owner)).status_code == 200


async def test_guessing_counts_by_network_of_an_ipv6_address(client: httpx.AsyncClient) -> None:
    """Who logged in from one address of their /64 network is known at its others: devices change them every day."""
    credentials = await register(client)
    await client.post("/v1/auth/login", json=credentials, headers={"X-Forwarded-For": "2001:db8::1"})
    for _ in range(12):
        await client.post(
            "/v1/auth/login",
            json=credentials | {"password": "a wrong one"},
            headers={"X-Forwarded-For": "2001:db8:0:9::1"},
        )

    statuses = [
        (await client.post("/v1/auth/login", json=credentials, headers={"X-Forwarded-For": source})).status_code
        for source in ("2001:db8::ffff:2", "2001:db8:0:9::2")
    ]

    assert statuses == [200, 429]
