"""What happens when the database fails or is away; and the schema."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import alembic.command
import httpx
import pytest
from sqlalchemy import text

from auth.app import create_app
from auth.commands import MIGRATIONS
from auth.settings import AuthSettings
from healthguard.database import open_database
from healthguard.migrations import alembic_config
from tests import factories
from tests.asgi import client_of
from tests.integration.auth.people import authorization, register
from tests.postgres import Postgres

FAILS_AT_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'at commit'; END $$;
CREATE CONSTRAINT TRIGGER refuse_at_commit AFTER INSERT ON api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.name = 'fails at commit') EXECUTE FUNCTION refuse();
"""


def away(folder: Path) -> AuthSettings:
    """Return settings that name a socket in *folder*, where no database listens."""
    return AuthSettings(
        dsn=f"postgresql+asyncpg://auth@/auth?host={folder}",
        key_encryption_key="A" * 43 + "=",
        password_profile="owasp-minimum",
    )


@pytest.fixture
async def commit_fails(settings: AuthSettings) -> AsyncIterator[None]:
    """Make the database refuse, at commit and not before, every API key of a certain name."""
    async with open_database(settings, "auth") as database:
        async with database.write() as session:
            for statement in FAILS_AT_COMMIT.strip().split(";\nCREATE C"):
                await session.execute(text(statement if statement.startswith("CREATE") else "CREATE C" + statement))
        yield
        async with database.write() as session:
            await session.execute(text("DROP FUNCTION refuse CASCADE"))


async def test_commit_that_fails_is_a_5xx(parallel_client: httpx.AsyncClient, commit_fails: None) -> None:
    """The client never reads a 201 for something that is not there, and never the database's words."""
    headers = await authorization(parallel_client, await register(parallel_client))

    refused = await parallel_client.post("/v1/auth/keys", json={"name": "fails at commit"}, headers=headers)
    made = await parallel_client.post("/v1/auth/keys", json={"name": "does not"}, headers=headers)

    assert (refused.status_code, made.status_code) == (500, 201)
    assert "at commit" not in refused.text
    listed = (await parallel_client.get("/v1/auth/keys", headers=headers)).json()["items"]
    assert [key["name"] for key in listed] == ["does not"]


async def test_application_leaves_the_logging_of_its_process_alone(tmp_path: Path) -> None:
    """`python -m auth` sets it up before anything else, so that what fails early is a line of JSON, too."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    async with client_of(create_app(away(tmp_path))):
        assert (root.handlers, root.level) == before


async def test_database_away_is_a_quick_503_and_the_service_stands(tmp_path: Path) -> None:
    """Without a database the service starts, says that it is not ready, and answers 503 with Retry-After."""
    async with client_of(create_app(away(tmp_path))) as client:
        login = await client.post("/v1/auth/login", json=factories.credentials())
        jwks = await client.get("/.well-known/jwks.json")
        ready = await client.get("/health/ready")
        alive = await client.get("/livez")

    for answer in (login, jwks):
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) >= 1
    assert ready.json()["checks"] == {"database": "unavailable", "signing_keys": "unavailable"}
    assert (ready.status_code, alive.status_code) == (503, 200)


def test_migrations_make_the_tables_as_declared(auth_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and migrations say the same: Alembic finds nothing to add."""
    monkeypatch.setenv("AUTH_DSN", auth_dsn)

    alembic.command.check(alembic_config(MIGRATIONS))


def test_upgrade_keeps_people_and_lets_the_version_before_go_on(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pods are replaced, old ones still run on the new schema: they write people without a thought of keys."""
    monkeypatch.setenv("AUTH_DSN", postgres.create_database("auth_upgraded"))
    columns = "subject, email, email_folded, password_hash, role"
    person = f"INSERT INTO users ({columns}) VALUES (gen_random_uuid(), '{{0}}', '{{0}}', 'x', 'patient')"
    alembic.command.upgrade(alembic_config(MIGRATIONS), "0001")
    postgres.cluster.run_sql(person.format("before"), database="auth_upgraded")

    alembic.command.upgrade(alembic_config(MIGRATIONS), "head")
    postgres.cluster.run_sql(person.format("after"), database="auth_upgraded")

    found = postgres.cluster.run_sql("SELECT string_agg(email, ' ' ORDER BY id) FROM users", database="auth_upgraded")
    assert found.strip() == "before after"


def test_migrations_can_be_taken_back(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps down and up again end where they began."""
    monkeypatch.setenv("AUTH_DSN", postgres.create_database("auth_steps"))

    for take, revision in ((alembic.command.upgrade, "head"), (alembic.command.downgrade, "base")):
        take(alembic_config(MIGRATIONS), revision)
    alembic.command.upgrade(alembic_config(MIGRATIONS), "head")
    alembic.command.check(alembic_config(MIGRATIONS))
