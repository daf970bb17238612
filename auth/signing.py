"""
The keys that sign access tokens, and the signing.

Keys are ES256, lie encrypted in the database, and have a life of three dates: published (at once), used from
`use_from`, gone at `retired_at`. A new key is published before it is used, so that every verifier has fetched it by
then; an old key stays published until the last token that it signed has expired.

Source: RFC 7518 §3.4 (ES256), RFC 7638 (thumbprints), RFC 9068 (at+jwt), NIST SP 800-38D §8.2.2 (random GCM nonces).
"""

import base64
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from auth.tables import SigningKey
from healthguard.tokens import ALGORITHM, KEYS_FRESH_S, LEEWAY_S, TOKEN_TYPE, Role

NONCE_BYTES = 12
COORDINATE_BYTES = 32

PUBLISH_AHEAD = timedelta(seconds=2 * KEYS_FRESH_S)
"""From a new key's publication to its use: verifiers fetch the keys again after `KEYS_FRESH_S`, and may fail once."""

OUTLIVE = timedelta(seconds=LEEWAY_S + 60)
"""For how long after its last token's expiry a key stays published: the verifiers' leeway, and clocks that differ."""


class AuthMethod(StrEnum):
    """
    What a person showed for a token: its `amr` claim.

    Source: RFC 8176; `pwd` is registered there, an API key has no registered value.
    """

    PASSWORD = "pwd"  # noqa: S105 - the name of a method, not a secret
    API_KEY = "api_key"


class WrongKeyEncryptionKey(Exception):
    """The stored signing keys were encrypted with another key than the settings name."""


@dataclass(frozen=True, slots=True)
class Token:
    """A signed access token and its life in seconds."""

    text: str
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """When a key is used and published."""

    kid: str
    use_from: datetime
    retired_at: datetime | None

    def is_published(self, now: datetime) -> bool:
        """Tell whether verifiers should know the key."""
        return self.retired_at is None or now < self.retired_at


def current(keys: Iterable[KeyTimes], now: datetime) -> KeyTimes | None:
    """
    Return the key that signs at *now*: of those in use the youngest, else the one that comes into use first.

    The latter is for a clock that is behind the database's: the very first key must sign at once all the same.
    """
    published = sorted((key for key in keys if key.is_published(now)), key=lambda key: key.use_from)
    in_use = [key for key in published if key.use_from <= now]
    return next(iter(in_use[-1:] or published), None)


def make_key(key_encryption_key: bytes, use_from: datetime) -> SigningKey:
    """Return a new key as it is stored."""
    private = ec.generate_private_key(ec.SECP256R1())
    public_jwk = _public_jwk(private.public_key())
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(
        kid=public_jwk["kid"],
        public_jwk=public_jwk,
        private_key_encrypted=_encrypt(der, key_encryption_key, public_jwk["kid"]),
        use_from=use_from,
    )


def _public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """Return the public key as a JWK, its RFC 7638 thumbprint as the id."""
    numbers = key.public_numbers()
    required = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    return required | {"kid": _base64url(hashlib.sha256(canonical).digest()), "alg": ALGORITHM, "use": "sig"}


def _encrypt(der: bytes, key: bytes, kid: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, der, _associated(kid))


def _decrypt(stored: bytes, key: bytes, kid: str) -> bytes:
    """
    Return the PKCS #8 DER form of a stored private key.

    Raises:
        WrongKeyEncryptionKey: *key* is not the one, or the row was changed.
    """
    try:
        return AESGCM(key).decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], _associated(kid))
    except InvalidTag as exc:
        raise WrongKeyEncryptionKey from exc


def _associated(kid: str) -> bytes:
    """Bind the ciphertext to its row: a private key cannot be moved under another's id."""
    return f"healthguard/auth/signing-key/{kid}".encode()


def _coordinate(value: int) -> str:
    return _base64url(value.to_bytes(COORDINATE_BYTES, "big"))


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class KeyRing:
    """The signing keys as last read from the database: pure look-ups, no I/O."""

    def __init__(self, rows: Sequence[SigningKey], key_encryption_key: bytes) -> None:
        """
        Raises:
            WrongKeyEncryptionKey: a key cannot be decrypted.
        """
        self._times = [KeyTimes(row.kid, row.use_from, row.retired_at) for row in rows]
        self._public = {row.kid: row.public_jwk for row in rows}
        self._private = {row.kid: _private_key(row, key_encryption_key) for row in rows}

    def jwks(self, now: datetime) -> dict[str, list[dict[str, Any]]]:
        """Return the JWK set to publish at *now*."""
        return {"keys": [self._public[key.kid] for key in self._times if key.is_published(now)]}

    def can_sign(self, now: datetime) -> bool:
        """Tell whether there is a key to sign with at *now*."""
        return current(self._times, now) is not None

    def signing_key(self, now: datetime) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """
        Return the id and private part of the key that signs at *now*.

        Raises:
            LookupError: there is none.
        """
        key = current(self._times, now)
        if key is None:
            raise LookupError("no signing key is published")
        return key.kid, self._private[key.kid]


def _private_key(row: SigningKey, key_encryption_key: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_der_private_key(_decrypt(row.private_key_encrypted, key_encryption_key, row.kid), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WrongKeyEncryptionKey
    return key


def sign(
    ring: KeyRing,
    *,
    subject: uuid.UUID,
    role: Role,
    method: AuthMethod,
    life_s: int,
    issuer: str,
    audience: str,
    now_s: float | None = None,
) -> Token:
    """
    Return an access token.

    Args:
        life_s: seconds until it expires.
        now_s: seconds since 1970; the present, unless a test says otherwise.

    Raises:
        LookupError: there is no key to sign with.
    """
    now = int(time.time() if now_s is None else now_s)
    kid, private_key = ring.signing_key(datetime.fromtimestamp(now, UTC))
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": str(subject),
        "role": str(role),
        "amr": [str(method)],
        "iat": now,
        "exp": now + life_s,
        "jti": uuid.uuid4().hex,
    }
    text = jwt.encode(claims, private_key, algorithm=ALGORITHM, headers={"typ": TOKEN_TYPE, "kid": kid})
    return Token(text, life_s)
