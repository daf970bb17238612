"""
Passwords: which are taken, how they are hashed, and how they are checked.

Hashes are Argon2id in the encoded form (`$argon2id$v=19$m=…`), which names its own parameters: hashes that passlib made
verify as they are, and whatever is weaker than today's profile is replaced at the next log-in.

Source: RFC 9106 §4 (parameters), NIST SP 800-63B-4 §3.1.1 (no composition rules, a blocklist, Unicode normalisation).
"""

import asyncio
import base64
import functools
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from auth.problems import CredentialsRefused, PasswordRefused, TooManyAttempts

T = TypeVar("T")
Profile = Literal["rfc9106-low-memory", "owasp-minimum"]

NEW_PASSWORD_CHARS_MAX = 128
"""Nothing is cut: a longer password is refused."""

PASSWORD_CHARS_MAX = 4096
"""What a log-in may send: passlib, which made the hashes of migrated people, took as much."""

OWASP_MINIMUM = argon2.Parameters(
    type=argon2.Type.ID,
    version=argon2.low_level.ARGON2_VERSION,
    salt_len=16,
    hash_len=32,
    time_cost=2,
    memory_cost=19_456,  # 19 MiB
    parallelism=1,
)
"""The least that is called safe. Source: OWASP Password Storage Cheat Sheet, "Argon2id"."""

PROFILES: dict[Profile, argon2.Parameters] = {
    # RFC 9106 §4, second recommended option: 64 MiB, 3 passes, 4 lanes. Also passlib's default, so that the hashes of
    # migrated people are not made weaker. The first option takes 2 GiB a log-in.
    "rfc9106-low-memory": argon2.profiles.RFC_9106_LOW_MEMORY,
    "owasp-minimum": OWASP_MINIMUM,
}


def normalise(password: str) -> str:
    """
    Return *password* in the one form that is hashed (Unicode NFC).

    The same accented letter can be typed as one code point or as two, depending on the keyboard. NFC rather than NFKC:
    it never makes two passwords one that look different.
    """
    return unicodedata.normalize("NFC", password)


@functools.cache
def common_passwords() -> frozenset[str]:
    """Return the passwords that are tried first by anyone who guesses, in lower case."""
    text = resources.files("auth").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def check_new_password(password: str, *, email: str, length_min: int) -> None:
    """
    Return when *password* may be used for the account of *email*.

    Raises:
        PasswordRefused: it is too short, too long, a common one, or made of the e-mail.
    """
    password = normalise(password)
    folded = password.casefold()
    if len(password) < length_min:
        raise PasswordRefused(f"A password has at least {length_min} characters.")
    if len(password) > NEW_PASSWORD_CHARS_MAX:
        raise PasswordRefused(f"A password has at most {NEW_PASSWORD_CHARS_MAX} characters.")
    if folded in {email.casefold(), email.casefold().partition("@")[0]}:
        raise PasswordRefused("The e-mail address cannot be the password.")
    if folded in common_passwords() or len(set(folded)) == 1:
        raise PasswordRefused("This is one of the passwords that are tried first.")


def is_weaker(hash_: str, than: argon2.Parameters) -> bool:
    """
    Tell whether *hash_* took less work than *than* asks for.

    argon2-cffi's own check asks for equality, and would make a stronger hash weaker.
    """
    made = argon2.extract_parameters(hash_)
    return (
        made.type is not than.type
        or made.version < than.version
        or made.memory_cost < than.memory_cost
        or made.memory_cost * made.time_cost < than.memory_cost * than.time_cost
    )


def hash_of_nothing(parameters: argon2.Parameters) -> str:
    """Return an encoded hash that costs as much to check as any, and that no password has: its bytes are random."""
    salt, digest = (
        base64.b64encode(os.urandom(count)).rstrip(b"=").decode()
        for count in (parameters.salt_len, parameters.hash_len)
    )
    cost = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${cost}${salt}${digest}"


class HashingPool:
    """
    A few threads that hash, and a bounded queue before them.

    Each hash takes tens of MiB and a large part of a second; unbounded, a burst of log-ins would take all memory. The
    threads really run at once: argon2 lets go of the interpreter lock.
    """

    def __init__(self, *, threads: int, queue_max: int) -> None:
        self._places = threads + queue_max
        self._threads = threads
        self._taken = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="hash")

    async def run(self, work: Callable[[], T]) -> T:
        """
        Return the result of *work*, done in a thread.

        Raises:
            TooManyAttempts: all threads are busy and the queue is full.
        """
        if self._taken >= self._places:
            # About one hash's time for each that is before us.
            raise TooManyAttempts(retry_after_ms=250 * self._places // self._threads)
        self._taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        # By the future, not by this coroutine's end: a client that goes away takes its place in the queue with it, and
        # a hash that is being computed is then still bounded by the number of threads.
        future.add_done_callback(self._done)
        return await future

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _done(self, _future: "asyncio.Future[T]") -> None:
        self._taken -= 1


@dataclass(frozen=True, slots=True)
class Verified:
    """A password that was right; `new_hash` is there when the stored hash should be replaced by it."""

    new_hash: str | None


class Passwords:
    """Hashes and checks passwords, in the pool."""

    def __init__(self, parameters: argon2.Parameters, pool: HashingPool) -> None:
        self._parameters = parameters
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._pool = pool
        # Checked when nobody has the e-mail, so that the answer takes as long as for a wrong password.
        self._nobodys_hash = hash_of_nothing(parameters)

    async def hash(self, password: str) -> str:
        """
        Return the encoded hash of *password*.

        Raises:
            TooManyAttempts: the pool is full.
        """
        return await self._pool.run(functools.partial(self._hasher.hash, normalise(password)))

    async def verify(self, hash_: str | None, password: str) -> Verified:
        """
        Return when *password* belongs to *hash_*; None, for an unknown user, never does and takes as long.

        Raises:
            CredentialsRefused: it does not.
            TooManyAttempts: the pool is full.
        """
        return await self._pool.run(functools.partial(self._verify, hash_, normalise(password)))

    def _verify(self, hash_: str | None, password: str) -> Verified:
        try:
            self._hasher.verify(hash_ or self._nobodys_hash, password)
        except (VerificationError, InvalidHashError) as exc:
            raise CredentialsRefused from exc
        if hash_ is None:
            raise CredentialsRefused
        weaker = is_weaker(hash_, self._parameters)
        return Verified(self._hasher.hash(password) if weaker else None)
