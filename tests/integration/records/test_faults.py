"""When the database is away, slow or full: a problem in time, and all well again as soon as it is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.asgi import client_of
from tests.factories import model_answer
from tests.integration.records.crashes import crash, frozen, migrated_server
from tests.integration.records.service import FROM_GATEWAY, problem, records_app, records_settings, save
from tests.issuer import Issuer
from tests.postgres import Server

HANG_S = 15.0
"""Beyond this a request hangs. The limits below add up to two seconds; the machine may be busy."""
QUICK = {"pool_wait_s": 0.5, "connect_timeout_s": 0.5, "statement_timeout_s": 0.5, "transaction_timeout_s": 1.0}
HEALED_S = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server that the tests of this module may break."""
    with migrated_server() as found:
        yield found


@pytest.fixture
async def breakable(server: Server, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the service on that server, with short limits."""
    settings = records_settings(server.dsn("records"), pool_size=2, **QUICK)
    async with client_of(records_app(settings, issuer)) as client:
        yield client


@pytest.fixture
async def beside(server: Server) -> AsyncIterator[Any]:
    """Return a connection beside the service's."""
    connection = await connection_to(server)
    yield connection
    await connection.close()


async def connection_to(server: Server) -> Any:
    """Return a connection of our own."""
    return await asyncpg.connect(server.dsn("records").replace("+asyncpg", ""))


@pytest.fixture
def me(issuer: Issuer) -> dict[str, str]:
    """Return the headers of one patient."""
    return issuer.authorization("patient")


async def ask(client: httpx.AsyncClient, me: dict[str, str]) -> httpx.Response:
    """Save once; raise where that hangs."""
    async with asyncio.timeout(HANG_S):
        return await client.post("/v1/predictions", json=model_answer(), headers=me | FROM_GATEWAY)


def assert_unavailable(response: httpx.Response) -> None:
    """A 503 that says when to come back and nothing of the database."""
    assert problem(response) == (503, "unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert "postgres" not in response.text.lower()


async def until_saved(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """Save again and again until it works; every answer before is a 503, never another."""
    deadline = time.monotonic() + HEALED_S
    while (answer := await ask(client, me)).status_code != 201:
        assert_unavailable(answer)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_no_database_is_a_503(issuer: Issuer, me: dict[str, str], tmp_path: Any) -> None:
    """The service starts, lives, is not ready and says so, and answers at once."""
    settings = records_settings(f"postgresql+asyncpg://records@/records?host={tmp_path}")
    async with client_of(records_app(settings, issuer)) as client:
        assert_unavailable(await ask(client, me))
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/health/ready")

    assert ready.status_code == 503
    assert ready.json()["checks"] == {"database": "unavailable", "token_keys": "ok"}


async def test_crashed_database_heals(server: Server, breakable: httpx.AsyncClient, me: dict[str, str]) -> None:
    """Killed with connections in the pool: 503 while it is away, and stored again once it is back."""
    await asyncio.gather(*(save(breakable, me) for _ in range(4)))

    crash(server)
    for _ in range(3):
        assert_unavailable(await ask(breakable, me))
    server.start()

    await until_saved(breakable, me)
    assert all(answer.status_code == 201 for answer in [await ask(breakable, me) for _ in range(4)])


async def test_restarted_database_costs_no_request(
    server: Server, breakable: httpx.AsyncClient, me: dict[str, str]
) -> None:
    """Connections that died while nobody used them are noticed before a request gets one."""
    await asyncio.gather(*(save(breakable, me) for _ in range(4)))
    crash(server)
    server.start()
    await (await connection_to(server)).close()  # the loop runs, and so gets to know what happened while it stood still

    answers = [await ask(breakable, me) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [201] * 4


async def test_silent_database_is_a_503_and_heals(
    server: Server, breakable: httpx.AsyncClient, me: dict[str, str]
) -> None:
    """Its sockets are open and nothing answers: requests are cut at their deadline, however many they are."""
    await save(breakable, me)
    with frozen(server):
        for answer in await asyncio.gather(*(ask(breakable, me) for _ in range(6))):
            assert_unavailable(answer)

    await until_saved(breakable, me)


async def test_slow_database_is_a_503(breakable: httpx.AsyncClient, me: dict[str, str], beside: Any) -> None:
    """A locked table holds a few requests until their statements time out; the rest wait for no connection for long."""
    await save(breakable, me)
    async with beside.transaction():
        await beside.execute("lock table predictions in access exclusive mode")
        for answer in await asyncio.gather(*(ask(breakable, me) for _ in range(8))):
            assert_unavailable(answer)

    assert (await ask(breakable, me)).status_code == 201


@pytest.mark.parametrize(
    ("sqlstate", "expected"), [("XX000", (500, "internal-error")), ("53100", (503, "unavailable"))]
)
async def test_failed_commit_is_no_success(
    breakable: httpx.AsyncClient, me: dict[str, str], beside: Any, sqlstate: str, expected: tuple[int, str]
) -> None:
    """The client gets its 201 after the commit or not at all; 53100 is a full disk."""
    await beside.execute(
        f"""
        create function fail() returns trigger language plpgsql as
        $$ begin raise exception 'at commit' using errcode = '{sqlstate}'; end $$;
        create constraint trigger fails after insert on predictions
        deferrable initially deferred for each row execute function fail();
        """
    )
    before = await beside.fetchval("select count(*) from predictions")
    try:
        answer = await ask(breakable, me)
        metrics = (await breakable.get("/metrics")).text
    finally:
        await beside.execute("drop trigger fails on predictions; drop function fail")

    assert problem(answer) == expected
    assert "at commit" not in answer.text
    assert await beside.fetchval("select count(*) from predictions") == before
    assert 'healthguard_records_saved_total{source="model"}' not in metrics


async def test_connections_come_back_to_the_pool(breakable: httpx.AsyncClient, me: dict[str, str]) -> None:
    """After good and bad requests none is lost."""
    for _ in range(3):
        await ask(breakable, me)
        await breakable.get("/v1/predictions/6a4bd0a5-1f0b-7b6a-8df4-7d8a0a3b2c11", headers=me)
        await breakable.post("/v1/predictions", json={}, headers=me)

    assert "healthguard_records_connections_in_use 0.0" in (await breakable.get("/metrics")).text
