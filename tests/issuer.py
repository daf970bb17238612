"""
An issuer of access tokens for tests: a real ES256 key that signs, and the JWK set that auth would publish.

It is a signer of its own, not auth's code: the services know only the form of a token, and so do their tests.
"""

import base64
import time
import uuid
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from healthguard.tokens import ALGORITHM, TOKEN_TYPE, Keys, Role, TokenVerifier

ISSUER = "healthguard"
AUDIENCE = "healthguard"
LIFE_S = 600


class Issuer:
    """Signs access tokens with one key; two issuers do not accept each other's."""

    def __init__(self, kid: str = "test-1") -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def token(
        self,
        role: Role | str = Role.PATIENT,
        *,
        headers: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **overrides: Any,
    ) -> str:
        """
        Return a token of *role*.

        Args:
            headers: header fields that replace the usual ones, e.g. `{"typ": "JWT"}`.
            without: names of claims to leave out.
            overrides: claims that replace the usual ones, e.g. `sub=…` or `exp=0`.
        """
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(uuid.uuid4()),
            "role": str(role),
            "iat": now,
            "exp": now + LIFE_S,
            "jti": uuid.uuid4().hex,
        }
        kept = {name: value for name, value in (claims | overrides).items() if name not in without}
        header = {"typ": TOKEN_TYPE, "kid": self.kid} | dict(headers or {})
        return jwt.encode(kept, self._key, algorithm=ALGORITHM, headers=header)

    def authorization(self, role: Role | str = Role.PATIENT, **overrides: Any) -> dict[str, str]:
        """Return the header that carries a token of *role*."""
        return {"Authorization": f"Bearer {self.token(role, **overrides)}"}

    def jwks(self) -> dict[str, Any]:
        """Return the JWK set with this issuer's public key."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": ALGORITHM,
            "kid": self.kid,
            "x": _base64url(numbers.x),
            "y": _base64url(numbers.y),
        }
        return {"keys": [key]}

    async def fetch(self) -> Mapping[str, Any]:
        """Return the JWK set as `healthguard.tokens.Keys` fetches it, without a network."""
        return self.jwks()

    def verifier(self) -> TokenVerifier:
        """Return a verifier that trusts this issuer alone."""
        return TokenVerifier(Keys(self.fetch), ISSUER, AUDIENCE)


def _base64url(number: int) -> str:
    """Return a coordinate of P-256 as a JWK has it: 32 bytes, big-endian, no padding (RFC 7518 §6.2.1.2)."""
    return base64.urlsafe_b64encode(number.to_bytes(32)).rstrip(b"=").decode()
