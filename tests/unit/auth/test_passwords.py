"""Which passwords are taken, and how they are hashed and checked."""

import asyncio
import threading

import argon2
import pytest

from auth.passwords import (
    OWASP_MINIMUM,
    PROFILES,
    HashingPool,
    Passwords,
    check_new_password,
    common_passwords,
    hash_of_nothing,
    is_weaker,
    normalise,
)
from auth.problems import CredentialsRefused, PasswordRefused, TooManyAttempts

CHEAPEST = argon2.profiles.CHEAPEST
# Source: the Argon2 reference implementation's own tests (version 19, Argon2id, 64 MiB, 2 passes, "somesalt").
REFERENCE = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


def cheap(threads: int = 1, queue_max: int = 4) -> Passwords:
    """Return real hashing that costs milliseconds."""
    return Passwords(CHEAPEST, HashingPool(threads=threads, queue_max=queue_max))


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("1234567", id="shorter than the least length"),
        pytest.param("x" * 129, id="longer than the most"),
        pytest.param("password123", id="a common one"),
        pytest.param("PassWord123", id="a common one in other case"),
        pytest.param("zzzzzzzzzz", id="one character repeated"),
        pytest.param("Ada.Lovelace@example.org", id="the e-mail in other case"),
        pytest.param("ada.lovelace", id="the e-mail's first part"),
    ],
)
def test_new_password_refused(password: str) -> None:
    """What is short, long, common or the e-mail itself is refused, in a sentence that does not repeat it."""
    with pytest.raises(PasswordRefused) as refused:
        check_new_password(password, email="ada.lovelace@example.org", length_min=8)

    assert password.casefold() not in (refused.value.detail or "").casefold()


@pytest.mark.parametrize(
    "password", ["correct!", "пароль-мой", "日本語のパスワードです", "x " * 64, "\N{GRINNING FACE}abcdefg"]
)
def test_new_password_taken(password: str) -> None:
    """No rule asks for kinds of characters: any script, spaces and 128 characters are fine."""
    check_new_password(password, email="ada@example.org", length_min=8)


def test_new_password_length_counts_normalised_characters() -> None:
    """Seven accented letters typed as fourteen code points are seven characters."""
    with pytest.raises(PasswordRefused):
        check_new_password("e\u0301" * 3 + "abcd", email="ada@example.org", length_min=8)


def test_common_passwords_are_as_they_are_looked_up() -> None:
    """Every entry is in lower case, normalised and long enough to matter."""
    found = common_passwords()

    assert len(found) > 400
    assert all(entry == normalise(entry).casefold() and len(entry) >= 8 for entry in found)


async def test_verify_takes_the_reference_hash() -> None:
    """An encoded hash that another implementation made verifies as it is."""
    verified = await cheap().verify(REFERENCE, "password")

    assert verified.new_hash is None


async def test_verify_takes_either_spelling_of_an_accent() -> None:
    """A password that was set on one keyboard is typed on another."""
    passwords = cheap()

    await passwords.verify(await passwords.hash("caf\u00e9-au-lait"), "cafe\u0301-au-lait")


@pytest.mark.parametrize("stored", [None, "not a hash", "$argon2id$v=19$m=8,t=1,p=1$c29tc2FsdA$AAAA"])
async def test_verify_refuses_nobody_and_damaged_hashes(stored: str | None) -> None:
    """Nobody's password is never right, nor is one whose stored hash is damaged."""
    with pytest.raises(CredentialsRefused):
        await cheap().verify(stored, "a password")


async def test_verify_of_nobody_costs_a_whole_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an unknown e-mail a hash with the same parameters is computed, so that the time tells nothing."""
    checked: list[str] = []
    verify = argon2.PasswordHasher.verify

    def watched(self: argon2.PasswordHasher, hash_: str, password: str) -> bool:
        checked.append(hash_)
        return verify(self, hash_, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", watched)
    with pytest.raises(CredentialsRefused):
        await cheap().verify(None, "a password")

    assert [argon2.extract_parameters(hash_) for hash_ in checked] == [CHEAPEST]


@pytest.mark.parametrize("parameters", PROFILES.values(), ids=PROFILES)
def test_hash_of_nothing_costs_what_the_profile_says(parameters: argon2.Parameters) -> None:
    """It is a well-formed hash with the profile's parameters."""
    assert argon2.extract_parameters(hash_of_nothing(parameters)) == parameters


def test_profiles_are_at_least_what_owasp_asks_for() -> None:
    """No setting leads below 19 MiB and two passes of Argon2id."""
    assert not any(is_weaker(hash_of_nothing(profile), OWASP_MINIMUM) for profile in PROFILES.values())


@pytest.mark.parametrize(
    ("hash_", "weaker"),
    [
        pytest.param(hash_of_nothing(PROFILES["rfc9106-low-memory"]), False, id="equal"),
        pytest.param(REFERENCE, True, id="fewer passes"),
        pytest.param(hash_of_nothing(OWASP_MINIMUM), True, id="less memory"),
        pytest.param("$argon2id$v=19$m=102400,t=2,p=8$c29tc2FsdHNvbWVzYQ$" + "A" * 43, False, id="passlib's of old"),
        pytest.param("$argon2i$v=19$m=65536,t=9,p=4$c29tc2FsdHNvbWVzYQ$" + "A" * 43, True, id="another kind"),
        pytest.param("$argon2id$v=16$m=65536,t=9,p=4$c29tc2FsdHNvbWVzYQ$" + "A" * 43, True, id="an old version"),
    ],
)
def test_is_weaker(hash_: str, weaker: bool) -> None:
    """Only what took less work is replaced; a hash that took more stays."""
    assert is_weaker(hash_, PROFILES["rfc9106-low-memory"]) is weaker


async def test_verify_offers_a_new_hash_for_a_weaker_one() -> None:
    """The new hash is of the same password, with today's parameters."""
    strict = Passwords(OWASP_MINIMUM, HashingPool(threads=1, queue_max=1))
    verified = await strict.verify(await cheap().hash("a password"), "a password")

    assert verified.new_hash is not None
    assert argon2.extract_parameters(verified.new_hash) == OWASP_MINIMUM
    await strict.verify(verified.new_hash, "a password")


async def test_pool_refuses_beyond_its_queue_and_recovers() -> None:
    """With one thread and one place, the third hash at once is told to wait; afterwards all goes on."""
    pool = HashingPool(threads=1, queue_max=1)
    gate = threading.Event()
    held = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(TooManyAttempts) as refused:
        await pool.run(gate.wait)
    gate.set()

    assert refused.value.extra["retry_after_ms"] > 0
    assert await asyncio.gather(*held) == [True, True]
    assert await pool.run(gate.wait) is True


async def test_pool_gives_the_place_of_a_client_that_went_away_to_the_next() -> None:
    """A cancelled wait leaves the queue."""
    pool = HashingPool(threads=1, queue_max=1)
    gate = threading.Event()
    running, waiting = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    next_one = asyncio.create_task(pool.run(gate.wait))
    await asyncio.sleep(0)
    gate.set()

    assert await running
    assert await next_one
