"""
Registration: a person and their password, once.

An Idempotency-Key belongs to the account that it made. In a name space that strangers share, anybody who sends a key
that another chose would get in their way; and a hash of the password beside the key, to know a repeat by, could be
searched through far faster than the password's own hash. So a repeat is known by the account, and its password counts.
"""

from dataclasses import dataclass
from datetime import timedelta

from auth import login, store
from auth.passwords import Passwords
from auth.problems import CredentialsRefused, EmailTaken
from auth.store import KeyUse
from auth.tables import User
from auth.throttle import Throttle
from healthguard.database import Database
from healthguard.idempotency import fingerprint
from healthguard.tokens import Role


@dataclass(frozen=True, slots=True)
class Applicant:
    """Somebody who wants an account, and from where."""

    email: str
    password: str
    source: str


async def register(
    database: Database,
    passwords: Passwords,
    throttle: Throttle,
    applicant: Applicant,
    *,
    key: str | None,
    key_life: timedelta,
) -> User:
    """
    Return the new account of *applicant*, or the one that the same request made before under the same *key*.

    Raises:
        EmailTaken: somebody has this e-mail.
        TooManyAttempts: the source must wait, or too many hashes wait already.
        Unavailable: the database is away.
    """
    throttle.admit_source(applicant.source)
    password_hash = await passwords.hash(applicant.password)
    try:
        # A transaction of its own: the request's would hold a connection during the hash.
        async with database.write() as session:
            user = await store.insert_user(
                session, email=applicant.email, password_hash=password_hash, role=Role.PATIENT
            )
            if key is not None:
                await store.use_key(session, _use(user, key), key_life)
    except EmailTaken:
        if key is None or not await _was_made_under(database, applicant.email, key, key_life):
            raise
        return await _shown_again(database, passwords, throttle, applicant)
    return user


async def _was_made_under(database: Database, email: str, key: str, key_life: timedelta) -> bool:
    """Tell whether there is an account of *email* that was made under *key*."""
    async with database.read() as session:
        user = await store.user_by_email(session, email)
        return user is not None and await store.is_used(session, _use(user, key), key_life)


async def _shown_again(database: Database, passwords: Passwords, throttle: Throttle, applicant: Applicant) -> User:
    """
    Return the account whose e-mail and password *applicant* has.

    Whoever knows a key may not guess at passwords here faster than at the log-in, so it is as slowed as there.

    Raises:
        EmailTaken: the password is another than the account's.
        TooManyAttempts: wait before the next attempt.
    """
    try:
        return await login.authenticate(
            database,
            passwords,
            throttle,
            email=applicant.email,
            password=applicant.password,
            source=applicant.source,
        )
    except CredentialsRefused as exc:
        raise EmailTaken from exc


def _use(user: User, key: str) -> KeyUse:
    user_id = login.id_of(user)
    return KeyUse(user_id, key, fingerprint("register"), str(user_id))
