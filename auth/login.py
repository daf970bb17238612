"""
Log-ins: begun with a password, kept by refreshing, ended.

These are transactions of their own rather than the request's. A hash takes a large part of a second, in which no
connection should be held; and what a refusal leaves behind (a revoked family) must be committed although the request
ends in an error.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from auth import store
from auth.passwords import Passwords
from auth.problems import CredentialsRefused, RefreshRefused
from auth.refresh import FamilyState, RefreshToken, Verdict, judge
from auth.tables import RefreshFamily, User
from auth.throttle import Throttle
from healthguard.database import Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refreshable:
    """A log-in that can be refreshed, and until when."""

    user: User
    token: RefreshToken
    expires_at: datetime


async def authenticate(
    database: Database, passwords: Passwords, throttle: Throttle, *, email: str, password: str, source: str
) -> User:
    """
    Return the person whose e-mail and password these are.

    Raises:
        CredentialsRefused: nobody's, or a disabled person's; each takes the time of one hash.
        TooManyAttempts: the source or the account must wait, or too many hashes wait already.
        Unavailable: the database is away.
    """
    attempt = throttle.admit(store.fold_email(email), source)
    try:
        async with database.read() as session:
            user = await store.user_by_email(session, email)
        verified = await passwords.verify(user.password_hash if user else None, password)
    except CredentialsRefused:
        log.info("login_refused")
        raise
    except BaseException:
        # Too busy, the database away, the client gone: no guess was answered.
        attempt.not_made()
        raise
    if user is None or user.disabled_at is not None:
        log.info("login_refused")
        raise CredentialsRefused
    attempt.succeeded()
    if verified.new_hash is not None:
        async with database.write() as session:
            await store.replace_password_hash(session, id_of(user), old=user.password_hash, new=verified.new_hash)
    log.info("login_accepted", user_id=user.id)
    return user


async def begin(database: Database, user: User, life: timedelta) -> Refreshable:
    """
    Begin a log-in of *user* that can be refreshed for *life*.

    Raises:
        Unavailable: the database is away.
    """
    token = RefreshToken.new()
    async with database.write() as session:
        family = await store.insert_family(
            session, family=token.family, user_id=id_of(user), token_hash=token.hash(), life=life
        )
    return Refreshable(user, token, family.expires_at)


async def refresh(database: Database, key: bytes, token: RefreshToken) -> Refreshable:
    """
    Return the log-in with the successor of *token*.

    Raises:
        RefreshRefused: the token does not hold. One that was replaced before ends its whole family.
        Unavailable: the database is away.
    """
    successor = token.successor(key)
    async with database.write() as session:
        found = await store.family_for_update(session, token.family)
        if found is None:
            raise RefreshRefused
        family, user = found
        # Read after the lock was had: another refresh may have passed while this one waited.
        at = await store.clock(session)
        verdict = Verdict.REFUSE if user.disabled_at else judge(token, _state(family), at)
        if verdict is Verdict.ROTATE:
            await store.rotate_family(session, family, new_hash=successor.hash(), at=at)
        if verdict is Verdict.REVOKE:
            await store.revoke_family(session, family.id)
    # Only now: raised inside the block it would roll the revocation back.
    if verdict is Verdict.REVOKE:
        # Without the family's id, which is a part of its tokens.
        log.warning("refresh_token_reused", user_id=user.id)
    if verdict in {Verdict.REVOKE, Verdict.REFUSE}:
        raise RefreshRefused
    return Refreshable(user, successor, family.expires_at)


def _state(family: RefreshFamily) -> FamilyState:
    return FamilyState(
        family.current_hash, family.previous_hash, family.rotated_at, family.expires_at, family.revoked_at
    )


def id_of(user: User) -> int:
    """Return the id of a user who was read from the database and so has one."""
    assert user.id is not None  # noqa: S101 - tells the type checker what the database guarantees
    return user.id
