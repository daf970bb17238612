"""Signing keys in the database: made once, encrypted, rotated without a refused token."""

import asyncio
import base64
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from auth import keyring
from auth.keyring import FRESH_S, RETRY_S, KeyRings
from auth.settings import AuthSettings
from auth.signing import PUBLISH_AHEAD, AuthMethod, WrongKeyEncryptionKey, sign
from healthguard.database import Database, open_database
from healthguard.problems import Unauthorized
from healthguard.tokens import Keys, Role, TokenVerifier
from tests.databases import migrated
from tests.postgres import Postgres


def key_rings(settings: AuthSettings, database: Database) -> KeyRings:
    """Return a fresh process's view of the keys."""
    return KeyRings(database, settings.key_encryption_key_bytes())


def verifier(settings: AuthSettings, database: Database) -> TokenVerifier:
    """Return a verifier that has just fetched the public keys."""
    return TokenVerifier(Keys(key_rings(settings, database).jwks), "healthguard", "healthguard")


async def kids(rings: KeyRings, at: datetime) -> list[str]:
    """Return the ids of the keys published at *at*."""
    return [key["kid"] for key in (await rings.get()).jwks(at)["keys"]]


async def signing_kid(rings: KeyRings, at: datetime) -> str:
    """Return the id of the key that signs at *at*."""
    return (await rings.get()).signing_key(at)[0]


@pytest.fixture
async def fresh(postgres: Postgres) -> AuthSettings:
    """Return the settings of a service whose database has just been migrated."""
    dsn = await asyncio.to_thread(migrated, postgres, "auth", "auth_fresh")
    return AuthSettings(dsn=dsn, key_encryption_key=base64.b64encode(os.urandom(32)).decode())


async def test_first_key_is_made_once_by_many_starts(fresh: AuthSettings) -> None:
    """Eight services that start at once on an empty database agree on one key."""
    async with open_database(fresh, "auth") as database:
        rings = [key_rings(fresh, database) for _ in range(8)]

        await asyncio.gather(*(ring.get() for ring in rings))

        async with database.read() as session:
            assert (await session.execute(text("SELECT count(*) FROM signing_keys"))).scalar_one() == 1
        assert len({await signing_kid(ring, datetime.now(UTC)) for ring in rings}) == 1


async def test_keys_last_read_outlive_the_database(
    settings: AuthSettings, rolled_back: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away the ring last read goes on, and the database is not asked at every turn."""
    now, tries, connect = 0.0, [], asyncpg.connect

    async def watched(*arguments: Any, **options: Any) -> object:
        tries.append(arguments)
        return await connect(*arguments, **options)

    rings = KeyRings(rolled_back, settings.key_encryption_key_bytes(), clock=lambda: now)
    before = await rings.get()
    monkeypatch.setattr(asyncpg, "connect", watched)
    away = settings.model_copy(update={"dsn": SecretStr(f"postgresql+asyncpg://auth@/auth?host={tmp_path}")})
    async with open_database(away, "auth") as nothing_there:
        rings._database = nothing_there
        now = FRESH_S + 1

        assert [await rings.get() for _ in range(5)] == [before] * 5
        assert len(tries) == 1
        now += RETRY_S
        assert await rings.get() is before
        assert len(tries) == 2


async def test_rotated_key_is_published_before_it_signs(settings: AuthSettings, rolled_back: Database) -> None:
    """After a rotation both keys are public, the old one signs for ten minutes more, then the new one."""
    now = datetime.now(UTC)
    before = await signing_kid(key_rings(settings, rolled_back), now)

    new = await keyring.rotate(rolled_back, settings, compromised=False)

    rings = key_rings(settings, rolled_back)
    assert set(await kids(rings, now)) == {before, new.kid}
    assert await signing_kid(rings, now + PUBLISH_AHEAD - timedelta(seconds=5)) == before
    assert await signing_kid(rings, now + PUBLISH_AHEAD + timedelta(seconds=5)) == new.kid


async def test_old_key_stays_until_its_last_token_has_expired(settings: AuthSettings, rolled_back: Database) -> None:
    """The last token that the old key signs can be verified through its whole life, and the key goes afterwards."""
    now = datetime.now(UTC)
    before = await signing_kid(key_rings(settings, rolled_back), now)
    new = await keyring.rotate(rolled_back, settings, compromised=False)
    rings = key_rings(settings, rolled_back)
    last_expiry = new.use_from + timedelta(seconds=settings.access_token_s)

    assert before in await kids(rings, last_expiry)
    assert await kids(rings, last_expiry + timedelta(minutes=10)) == [new.kid]


async def test_compromised_key_is_withdrawn_at_once(settings: AuthSettings, rolled_back: Database) -> None:
    """A token of a withdrawn key does not verify with the keys published from then on."""
    ring = await key_rings(settings, rolled_back).get()
    token = sign(
        ring,
        subject=uuid.uuid4(),
        role=Role.PATIENT,
        method=AuthMethod.PASSWORD,
        life_s=600,
        issuer="healthguard",
        audience="healthguard",
    )
    assert await verifier(settings, rolled_back).verify(token.text)

    await keyring.rotate(rolled_back, settings, compromised=True)

    with pytest.raises(Unauthorized):
        await verifier(settings, rolled_back).verify(token.text)


async def test_private_keys_lie_encrypted_and_bound_to_their_id(
    settings: AuthSettings, rolled_back: Database, auth_connection: AsyncConnection
) -> None:
    """Another key-encryption key opens nothing, and a key under another's id does not open either."""
    await key_rings(settings, rolled_back).get()

    with pytest.raises(WrongKeyEncryptionKey):
        await KeyRings(rolled_back, os.urandom(32)).get()
    await auth_connection.execute(text("UPDATE signing_keys SET kid = 'another'"))
    with pytest.raises(WrongKeyEncryptionKey):
        await key_rings(settings, rolled_back).get()


async def test_rotation_refuses_a_wrong_key_encryption_key(settings: AuthSettings, rolled_back: Database) -> None:
    """A key that the running service could not read is not added."""
    await key_rings(settings, rolled_back).get()
    other = base64.b64encode(os.urandom(32)).decode()

    with pytest.raises(WrongKeyEncryptionKey):
        await keyring.rotate(rolled_back, AuthSettings(dsn=settings.dsn, key_encryption_key=other), compromised=False)
