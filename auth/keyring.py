"""The signing keys in this process: read from the database when stale, made when there are none."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from auth import store
from auth.settings import AuthSettings
from auth.signing import OUTLIVE, PUBLISH_AHEAD, AuthMethod, KeyRing, Token, make_key, sign
from auth.tables import SigningKey, User
from healthguard.database import Database
from healthguard.problems import Unavailable
from healthguard.tokens import Role

log = structlog.get_logger()

FRESH_S = 60.0
"""How old the keys in memory may get; a tenth of the time between a new key's publication and its use."""

RETRY_S = 0.5
"""Pause after a reading that failed, so that many requests do not each wait for a database that is away."""


class KeyRings:
    """
    Gives the newest key ring.

    While the database is away the ring last read goes on serving: the gateway can fetch the public keys, and so serve
    predictions, without auth's database.
    """

    def __init__(
        self, database: Database, key_encryption_key: bytes, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._key_encryption_key = key_encryption_key
        self._clock = clock
        self._ring: KeyRing | None = None
        self._due_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self) -> KeyRing:
        """
        Return the ring, read again where it is stale.

        Raises:
            Unavailable: no ring was ever read, and the database is away or not migrated.
            WrongKeyEncryptionKey: the stored keys cannot be decrypted.
        """
        # Whoever has a ring does not wait for another's reading: a silent database would hold up everybody in turn.
        reading_suffices = self._ring is not None and self._lock.locked()
        if self._clock() >= self._due_at and not reading_suffices:
            async with self._lock:
                if self._clock() >= self._due_at:
                    await self._read()
        if self._ring is None:
            raise Unavailable("The signing keys cannot be read at the moment.")
        return self._ring

    async def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """
        Return the public keys as a JWK set.

        Raises:
            Unavailable, WrongKeyEncryptionKey: as for `get`.
        """
        return (await self.get()).jwks(datetime.now(UTC))

    async def _read(self) -> None:
        try:
            async with self._database.write() as session:
                rows = await store.signing_keys(session)
                if not rows:
                    await store.lock_signing_keys(session)
                    # Another process may have made the first key while this one waited for the lock.
                    rows = await store.signing_keys(session)
                if not rows:
                    now = await store.now(session)
                    rows = [await store.insert_signing_key(session, make_key(self._key_encryption_key, now))]
                    log.info("signing_key_made", kid=rows[0].kid)
        except (Unavailable, SQLAlchemyError) as exc:
            log.warning("signing_keys_not_read", exception=type(exc).__qualname__)
            self._due_at = self._clock() + RETRY_S
            return
        self._ring = KeyRing(rows, self._key_encryption_key)
        self._due_at = self._clock() + FRESH_S


class Issuer:
    """Issues access tokens."""

    def __init__(self, key_rings: KeyRings, settings: AuthSettings) -> None:
        self.key_rings = key_rings
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience

    async def access_token(self, user: User, method: AuthMethod, life_s: int) -> Token:
        """
        Return an access token for *user*, who showed *method* for it, that lives *life_s* seconds.

        Raises:
            Unavailable: the signing keys cannot be had.
        """
        ring = await self.key_rings.get()
        try:
            return sign(
                ring,
                subject=user.subject,
                role=Role(user.role),
                method=method,
                life_s=life_s,
                issuer=self._issuer,
                audience=self._audience,
            )
        except LookupError as exc:
            raise Unavailable("There is no signing key at the moment.") from exc


async def rotate(database: Database, settings: AuthSettings, *, compromised: bool) -> SigningKey:
    """
    Add a signing key, set the end of the others, and return it.

    Args:
        compromised: withdraw the others at once instead of when their tokens have expired.

    Raises:
        WrongKeyEncryptionKey: the settings name another key than the stored keys were encrypted with.
        Unavailable: the database is away.
    """
    key_encryption_key = settings.key_encryption_key_bytes()
    async with database.write() as session:
        await store.lock_signing_keys(session)
        # A key that the running service could not read would end all log-ins once it is used.
        present = KeyRing(await store.signing_keys(session), key_encryption_key)
        now = await store.now(session)
        if compromised:
            await store.withdraw_signing_keys(session)
        use_from = now if compromised or not present.can_sign(now) else now + PUBLISH_AHEAD
        if not compromised:
            last_token = timedelta(seconds=max(settings.access_token_s, settings.api_key_token_s))
            await store.retire_signing_keys(session, at=use_from + last_token + OUTLIVE)
        key = await store.insert_signing_key(session, make_key(key_encryption_key, use_from))
    log.info("signing_key_rotated", kid=key.kid, compromised=compromised)
    return key
