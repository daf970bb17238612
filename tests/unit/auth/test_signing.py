"""Signing keys: which one signs, which are public, and what a token holds."""

import base64
import hashlib
import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from auth.signing import AuthMethod, KeyRing, KeyTimes, current, make_key, sign
from healthguard.problems import Unauthorized
from healthguard.tokens import Keys, Role, TokenVerifier

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY_ENCRYPTION_KEY = os.urandom(32)

OLD = KeyTimes("old", NOW - 2 * HOUR, None)
YOUNG = KeyTimes("young", NOW - HOUR, None)
COMING = KeyTimes("coming", NOW + HOUR, None)
GONE = KeyTimes("gone", NOW - HOUR / 2, NOW)


@pytest.mark.parametrize(
    ("keys", "kid"),
    [
        pytest.param([OLD], "old", id="the only key signs"),
        pytest.param([YOUNG, OLD], "young", id="the youngest in use signs, in whatever order they are read"),
        pytest.param([OLD, COMING], "old", id="a key that is only published does not sign yet"),
        pytest.param([OLD, GONE], "old", id="a key that is gone does not sign"),
        pytest.param([COMING], "coming", id="the very first key signs although our clock is behind"),
        pytest.param([GONE], None, id="nothing signs when all are gone"),
        pytest.param([], None, id="nothing signs when there is none"),
    ],
)
def test_current(keys: list[KeyTimes], kid: str | None) -> None:
    """Which key signs now."""
    found = current(keys, NOW)

    assert (found.kid if found else None) == kid


def ring() -> KeyRing:
    """Return a ring with one fresh key."""
    return KeyRing([make_key(KEY_ENCRYPTION_KEY, datetime.now(UTC))], KEY_ENCRYPTION_KEY)


def verifier(of: KeyRing, issuer: str = "healthguard") -> TokenVerifier:
    """Return what every other service verifies with."""

    async def fetch() -> dict[str, list[dict[str, object]]]:
        return of.jwks(datetime.now(UTC))

    return TokenVerifier(Keys(fetch), issuer, "healthguard")


async def test_token_verifies_where_the_keys_are_known_and_nowhere_else() -> None:
    """A token names its subject and role to who knows our keys and our name, and to nobody else."""
    subject, keys = uuid.uuid4(), ring()
    token = sign(
        keys,
        subject=subject,
        role=Role.DOCTOR,
        method=AuthMethod.API_KEY,
        life_s=600,
        issuer="healthguard",
        audience="healthguard",
    ).text

    caller = await verifier(keys).verify(token)

    assert (caller.subject, caller.role) == (str(subject), Role.DOCTOR)
    assert caller.methods == {"api_key"}
    for stranger in (verifier(ring()), verifier(keys, issuer="another")):
        with pytest.raises(Unauthorized):
            await stranger.verify(token)


async def test_token_ends_with_its_life() -> None:
    """A token of a minute does not verify two minutes later."""
    keys = ring()
    token = sign(
        keys,
        subject=uuid.uuid4(),
        role=Role.PATIENT,
        method=AuthMethod.PASSWORD,
        life_s=60,
        issuer="healthguard",
        audience="healthguard",
        now_s=time.time() - 120,
    )

    with pytest.raises(Unauthorized, match="access token"):
        await verifier(keys).verify(token.text)


def test_key_id_is_the_thumbprint_of_the_published_key() -> None:
    """The id is what RFC 7638 says, and the published form holds no private part."""
    (public,) = ring().jwks(datetime.now(UTC))["keys"]
    required = {name: public[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()

    assert public["kid"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert public.keys() == {"crv", "kty", "x", "y", "kid", "alg", "use"}


def test_stored_key_is_unlike_itself_each_time() -> None:
    """Nonces are random: two stored keys have no beginning in common, and none is DER in the clear."""
    one, two = (make_key(KEY_ENCRYPTION_KEY, NOW).private_key_encrypted for _ in range(2))

    assert one[:12] != two[:12]
    assert b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07" not in one  # the DER object identifier of the curve P-256
