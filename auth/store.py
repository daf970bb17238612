"""
Auth's SQL. Functions flush and never commit: the caller's transaction ends it.

Times come from the database, so that several services agree on what is expired.
"""

import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, and_, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from auth.problems import EmailTaken
from auth.tables import ApiKey, IdempotencyKey, RefreshFamily, SigningKey, User
from healthguard.problems import IdempotencyMismatch
from healthguard.tokens import Role

SIGNING_KEYS_LOCK = 4_820_002
"""An advisory lock of auth's database that stands for "the set of signing keys is being changed"."""

LAST_USED_EVERY = timedelta(minutes=1)
PURGE_ROWS_MAX = 100


def fold_email(email: str) -> str:
    """
    Return *email* as it is compared: upper and lower case are the same person.

    NFC rather than NFKC, which would make one of addresses that are two.
    """
    return unicodedata.normalize("NFC", email).casefold()


async def now(session: AsyncSession) -> datetime:
    """Return the start of the transaction by the database's clock, UTC."""
    return (await session.execute(select(func.now()))).scalar_one()


# People


async def insert_user(session: AsyncSession, *, email: str, password_hash: str, role: Role) -> User:
    """
    Add a person and return them.

    Raises:
        EmailTaken: somebody has this e-mail.
    """
    values = {
        "subject": uuid.uuid4(),
        "email": email,
        "email_folded": fold_email(email),
        "password_hash": password_hash,
        "role": str(role),
    }
    # A look before the insert would race with a second registration; the unique index alone decides.
    statement = insert(User).values(values).on_conflict_do_nothing(index_elements=["email_folded"]).returning(User)
    user = (await session.execute(statement)).scalar_one_or_none()
    if user is None:
        raise EmailTaken
    return user


async def user_by_email(session: AsyncSession, email: str) -> User | None:
    """Return the person with this e-mail, disabled ones too."""
    return (await session.execute(select(User).where(col(User.email_folded) == fold_email(email)))).scalar_one_or_none()


async def user_by_subject(session: AsyncSession, subject: uuid.UUID) -> User | None:
    """Return the person whom tokens call *subject*, disabled ones too."""
    return (await session.execute(select(User).where(col(User.subject) == subject))).scalar_one_or_none()


async def users_page(session: AsyncSession, *, before_id: int | None, limit: int) -> Sequence[User]:
    """Return up to *limit* people, the newest first, older than *before_id*."""
    statement = select(User).order_by(col(User.id).desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(col(User.id) < before_id)
    return (await session.execute(statement)).scalars().all()


async def update_user(
    session: AsyncSession, user_id: int, *, role: Role | None = None, disabled: bool | None = None
) -> User | None:
    """
    Change a person's role, or whether they are disabled, and return them; None where there is no such person.

    Either change ends their log-ins: what a refresh would hand out must be true.
    """
    # FOR NO KEY UPDATE: what refers to this row, such as an idempotency key of theirs, need not wait, and so two admins
    # who change each other never wait in a circle.
    user = await session.get(User, user_id, with_for_update={"key_share": True})
    if user is None:
        return None
    if role is not None:
        user.role = str(role)
    if disabled is not None:
        user.disabled_at = (user.disabled_at or await now(session)) if disabled else None
    await session.flush()
    await revoke_families_of(session, user_id)
    return user


async def user_by_id(session: AsyncSession, user_id: int) -> User | None:
    """Return a person by the integer that old clients know, disabled ones too."""
    return await session.get(User, user_id)


async def replace_password_hash(session: AsyncSession, user_id: int, *, old: str, new: str) -> None:
    """Store *new* where *old* still stands; a password that was changed meanwhile stays."""
    statement = update(User).where(col(User.id) == user_id, col(User.password_hash) == old).values(password_hash=new)
    await session.execute(statement)


# Idempotency keys


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What somebody uses an Idempotency-Key for."""

    user_id: int
    key: str
    fingerprint: bytes
    resource_id: str
    """Of what is made or changed; a repeat may come with another, and gets the first one's."""


async def use_key(session: AsyncSession, use: KeyUse, life: timedelta) -> str | None:
    """
    Note that a key is used, with what it is used for; return None, or what the same request made before under it.

    Of two at once the second waits until the first has committed.

    Raises:
        IdempotencyMismatch: the key was used for something else.
    """
    claim = insert(IdempotencyKey).values(
        user_id=use.user_id, key=use.key, fingerprint=use.fingerprint, resource_id=use.resource_id
    )
    # Expired ones that are not removed yet are claimed anew.
    claimed = claim.on_conflict_do_update(
        index_elements=["user_id", "key"],
        set_={name: claim.excluded[name] for name in ("fingerprint", "resource_id", "created_at")},
        where=col(IdempotencyKey.created_at) < func.now() - life,
    ).returning(col(IdempotencyKey.user_id))
    if (await session.execute(claimed)).scalar_one_or_none() is not None:
        return None
    first = select(col(IdempotencyKey.fingerprint), col(IdempotencyKey.resource_id)).where(_is_key(use))
    fingerprint, resource_id = (await session.execute(first)).one()
    if fingerprint != use.fingerprint:
        raise IdempotencyMismatch
    return resource_id


async def is_used(session: AsyncSession, use: KeyUse, life: timedelta) -> bool:
    """Tell whether the same request was made under the key, no longer ago than *life*."""
    alive = col(IdempotencyKey.created_at) >= func.now() - life
    statement = select(col(IdempotencyKey.fingerprint)).where(_is_key(use), alive)
    return (await session.execute(statement)).scalar_one_or_none() == use.fingerprint


async def forget_keys(life: timedelta, session: AsyncSession, limit: int) -> int:
    """Remove idempotency keys that are older than *life*, *limit* at most a call; return how many."""
    expired = (
        select(col(IdempotencyKey.user_id), col(IdempotencyKey.key))
        .where(col(IdempotencyKey.created_at) < func.now() - life)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = tuple_(col(IdempotencyKey.user_id), col(IdempotencyKey.key))
    gone = await session.execute(delete(IdempotencyKey).where(keys.in_(expired)))
    return cast("CursorResult[Any]", gone).rowcount


def _is_key(use: KeyUse) -> Any:
    return and_(col(IdempotencyKey.user_id) == use.user_id, col(IdempotencyKey.key) == use.key)


# Signing keys


async def lock_signing_keys(session: AsyncSession) -> None:
    """Wait until no other transaction is changing the set of keys; held until this one ends."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SIGNING_KEYS_LOCK})


async def signing_keys(session: AsyncSession) -> Sequence[SigningKey]:
    """Return the keys that are not retired, the oldest first."""
    retired_at = col(SigningKey.retired_at)
    statement = select(SigningKey).where(or_(retired_at.is_(None), retired_at > func.now()))
    return (await session.execute(statement.order_by(col(SigningKey.use_from)))).scalars().all()


async def insert_signing_key(session: AsyncSession, key: SigningKey) -> SigningKey:
    """Add a key and return it."""
    session.add(key)
    await session.flush()
    return key


async def retire_signing_keys(session: AsyncSession, *, at: datetime) -> None:
    """Let every key go that has no end yet, at *at*."""
    await session.execute(update(SigningKey).where(col(SigningKey.retired_at).is_(None)).values(retired_at=at))


async def withdraw_signing_keys(session: AsyncSession) -> None:
    """Let every key go now."""
    retired_at = col(SigningKey.retired_at)
    still_there = or_(retired_at.is_(None), retired_at > func.now())
    await session.execute(update(SigningKey).where(still_there).values(retired_at=func.now()))


# Refresh families


async def insert_family(
    session: AsyncSession, *, family: uuid.UUID, user_id: int, token_hash: bytes, life: timedelta
) -> RefreshFamily:
    """Add a log-in that can be refreshed for *life* and return it; some that have long ended are removed."""
    expires_at = await now(session) + life
    added = RefreshFamily(id=family, user_id=user_id, current_hash=token_hash, expires_at=expires_at)
    session.add(added)
    await session.flush()
    expired = (
        select(col(RefreshFamily.id))
        .where(col(RefreshFamily.expires_at) < func.now())
        .limit(PURGE_ROWS_MAX)
        .with_for_update(skip_locked=True)
    )
    await session.execute(delete(RefreshFamily).where(col(RefreshFamily.id).in_(expired)))
    return added


async def family_for_update(session: AsyncSession, family: uuid.UUID) -> tuple[RefreshFamily, User] | None:
    """Return a family and whose it is; two refreshes of one family pass here one after the other."""
    statement = (
        select(RefreshFamily, User)
        .join(User, col(User.id) == col(RefreshFamily.user_id))
        .where(col(RefreshFamily.id) == family)
        .with_for_update(of=RefreshFamily)
    )
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def clock(session: AsyncSession) -> datetime:
    """Return the database's time at this moment: later than `now` in a transaction that waited for a lock."""
    return cast(datetime, (await session.execute(select(func.clock_timestamp()))).scalar_one())


async def rotate_family(session: AsyncSession, family: RefreshFamily, *, new_hash: bytes, at: datetime) -> None:
    """Make *new_hash* the newest token of *family*."""
    family.previous_hash = family.current_hash
    family.current_hash = new_hash
    family.rotated_at = at
    await session.flush()


async def revoke_family(session: AsyncSession, family: uuid.UUID) -> None:
    """End a log-in."""
    await _revoke_families(session, col(RefreshFamily.id) == family)


async def end_family(session: AsyncSession, family: uuid.UUID, token_hash: bytes) -> bool:
    """
    End a log-in whose newest token, or the one before, has this hash; False where there is none.

    The id alone does not do: it is no secret. Ending again changes nothing.
    """
    known = or_(col(RefreshFamily.current_hash) == token_hash, col(RefreshFamily.previous_hash) == token_hash)
    theirs = update(RefreshFamily).where(col(RefreshFamily.id) == family, known)
    result = await session.execute(theirs.values(revoked_at=func.coalesce(col(RefreshFamily.revoked_at), func.now())))
    return cast("CursorResult[Any]", result).rowcount == 1


async def revoke_families_of(session: AsyncSession, user_id: int) -> None:
    """End all log-ins of a person."""
    await _revoke_families(session, col(RefreshFamily.user_id) == user_id)


async def _revoke_families(session: AsyncSession, which: Any) -> None:
    statement = update(RefreshFamily).where(which, col(RefreshFamily.revoked_at).is_(None))
    await session.execute(statement.values(revoked_at=func.now()))


# API keys


async def insert_api_key(session: AsyncSession, key: ApiKey) -> ApiKey:
    """Add a key and return it."""
    session.add(key)
    await session.flush()
    return key


async def working_api_keys(session: AsyncSession, user_id: int) -> int:
    """Return how many keys of a person work; the person's row is locked, so that two at once cannot pass a limit."""
    # FOR NO KEY UPDATE, as in `update_user`.
    await session.execute(select(col(User.id)).where(col(User.id) == user_id).with_for_update(key_share=True))
    statement = select(func.count()).select_from(ApiKey).where(col(ApiKey.user_id) == user_id, *_works())
    return (await session.execute(statement)).scalar_one()


async def api_keys_of(session: AsyncSession, user_id: int, *, limit: int) -> Sequence[ApiKey]:
    """Return a person's keys, the newest first, revoked and expired ones too."""
    statement = select(ApiKey).where(col(ApiKey.user_id) == user_id).order_by(col(ApiKey.created_at).desc())
    return (await session.execute(statement.limit(limit))).scalars().all()


async def revoke_api_key(session: AsyncSession, *, user_id: int, key_id: uuid.UUID) -> bool:
    """Revoke a key of a person; False where they have no such key. Revoking again changes nothing."""
    mine = update(ApiKey).where(col(ApiKey.id) == key_id, col(ApiKey.user_id) == user_id)
    result = await session.execute(mine.values(revoked_at=func.coalesce(col(ApiKey.revoked_at), func.now())))
    return cast("CursorResult[Any]", result).rowcount == 1


async def use_api_key(session: AsyncSession, key_hash: bytes) -> User | None:
    """Return whose working key this is, and note the use, once a minute at most; None where it works for nobody."""
    statement = (
        select(ApiKey, User)
        .join(User, col(User.id) == col(ApiKey.user_id))
        .where(col(ApiKey.key_hash) == key_hash, col(User.disabled_at).is_(None), *_works())
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    last_used_at = col(ApiKey.last_used_at)
    stale = or_(last_used_at.is_(None), last_used_at < func.now() - LAST_USED_EVERY)
    await session.execute(update(ApiKey).where(col(ApiKey.id) == row[0].id, stale).values(last_used_at=func.now()))
    return row[1]


def _works() -> tuple[Any, ...]:
    expires_at = col(ApiKey.expires_at)
    return col(ApiKey.revoked_at).is_(None), or_(expires_at.is_(None), expires_at > func.now())
