"""
What was acknowledged is there after a crash of the database.

`RECORDS_CRASH_CYCLES` says how many crashes are made; few in the usual run, many in `make prove`. The server is set to
`synchronous_commit = off`, as a careless administrator might: the service asks for its own on every connection.

Killing processes proves that nothing acknowledged is held in the server's memory only. It does not prove fsync: what
the kernel was given survives.
"""

import asyncio
import os
import random
from collections.abc import Iterator

import asyncpg
import pytest

from records.settings import RecordsSettings
from tests.asgi import client_of
from tests.factories import model_answer
from tests.integration.records.crashes import crash, migrated_server
from tests.integration.records.service import FROM_GATEWAY, records_app, records_settings
from tests.issuer import Issuer
from tests.postgres import Server

CYCLES = int(os.environ.get("RECORDS_CRASH_CYCLES", "3"))
MUTANT_CYCLES_MAX = 10
WRITERS = 4
CARELESS = {"synchronous_commit": "off", "wal_writer_delay": "10s", "fsync": "on"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server whose own setting would lose rows."""
    with migrated_server(CARELESS) as found:
        yield found


async def acknowledged_until_crash(server: Server, settings: RecordsSettings, issuer: Issuer) -> set[str]:
    """Save with several writers, crash the server while they write, and return the ids that got a 201."""
    acknowledged: set[str] = set()
    crashed = asyncio.Event()
    enough = asyncio.Event()
    goal = random.randint(20, 60)

    async with client_of(records_app(settings, issuer)) as client:

        async def write() -> None:
            headers = issuer.authorization() | FROM_GATEWAY
            while not crashed.is_set():
                answer = await client.post("/v1/predictions", json=model_answer(), headers=headers)
                assert answer.status_code in {201, 503}, answer.text
                if answer.status_code == 201:
                    acknowledged.add(answer.json()["id"])
                if len(acknowledged) >= goal:
                    enough.set()

        writers = [asyncio.create_task(write()) for _ in range(WRITERS)]
        async with asyncio.timeout(60):
            await enough.wait()
        crash(server)
        crashed.set()
        await asyncio.gather(*writers)
    return acknowledged


async def lost_in_one_crash(server: Server, settings: RecordsSettings, issuer: Issuer) -> set[str]:
    """Return which acknowledged ids are not in the database after a crash."""
    acknowledged = await acknowledged_until_crash(server, settings, issuer)
    server.start()
    connection = await asyncpg.connect(server.dsn("records").replace("+asyncpg", ""))
    stored = {str(row["id"]) for row in await connection.fetch("select id from predictions")}
    await connection.close()
    return acknowledged - stored


@pytest.mark.timeout(120 + 10 * CYCLES)
async def test_acknowledged_records_survive_crashes(server: Server, issuer: Issuer) -> None:
    """Not one is lost, although the server's own setting allows it."""
    settings = records_settings(server.dsn("records"))

    for _ in range(CYCLES):
        assert await lost_in_one_crash(server, settings, issuer) == set()


async def test_crashes_do_lose_records_without_the_guard(server: Server, issuer: Issuer) -> None:
    """The mutant: with the server's own setting rows are lost, so the test above could see it."""
    settings = records_settings(server.dsn("records")).model_copy(update={"synchronous_commit": "off"})

    for _ in range(MUTANT_CYCLES_MAX):
        if await lost_in_one_crash(server, settings, issuer):
            return
    pytest.fail("a careless server lost nothing: the crash is too gentle to prove anything")
