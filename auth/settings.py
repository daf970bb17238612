"""The auth service's settings, from `AUTH_…` in the environment."""

import base64
import binascii
from datetime import timedelta
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from healthguard.settings import DatabaseSettings, Settings

KEY_ENCRYPTION_KEY_BYTES = 32


class AuthSettings(Settings, DatabaseSettings):
    """Everything that the auth service can be told."""

    model_config = SettingsConfigDict(env_prefix="AUTH_")

    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port to listen on."""

    key_encryption_key: SecretStr
    """Base64 of 32 random bytes; encrypts the signing keys in the database. Losing it means new signing keys."""

    access_token_s: int = Field(default=3600, ge=60, le=86_400)
    """
    Life of an access token; seconds. Sixty minutes because the clients of the replaced applications know no refresh;
    where all clients refresh, ten minutes are better: a token cannot be called back before it expires.
    """

    token_issuer: str = "healthguard"  # noqa: S105 - the name of an issuer, not a secret
    """The `iss` of the tokens."""

    token_audience: str = "healthguard"  # noqa: S105 - the name of an audience, not a secret
    """The `aud` of the tokens."""

    api_key_token_s: int = Field(default=300, ge=60, le=3600)
    """Life of the access token that an API key is traded for; seconds. A revoked key works no longer than this."""

    refresh_token_s: int = Field(default=43_200, ge=600, le=2_592_000)
    """How long a log-in can be refreshed, counted from the log-in and never extended; seconds. A shift of 12 hours."""

    password_length_min: int = Field(default=8, ge=8, le=64)
    """
    Least characters of a new password. Eight because registered clients use such; NIST SP 800-63B-4 asks for 15 where
    the password is the only factor, so raise it where no old client registers people.
    """

    password_profile: Literal["rfc9106-low-memory", "owasp-minimum"] = "rfc9106-low-memory"  # noqa: S105 - a name
    """Cost of a password hash: 64 MiB and 3 passes (RFC 9106), or 19 MiB and 2 passes (OWASP) on small machines."""

    hash_threads: int = Field(default=2, ge=1, le=32)
    """Password hashes computed at once; each takes the profile's memory for a fraction of a second."""

    hash_queue_max: int = Field(default=16, ge=0, le=1000)
    """Password hashes that may wait for a thread; further log-ins get 429 with Retry-After."""

    idempotency_life_h: float = Field(default=24.0, ge=1, le=24 * 30)
    """How long an Idempotency-Key is remembered; hours."""

    trusted_hops: int = Field(default=1, ge=0, le=8)
    """
    Proxies of ours between the client and this service, each of which appends to X-Forwarded-For; the gateway is one.
    Zero: the header is not looked at, and the peer's address is the source of a log-in. Too few, and everybody shares
    the proxy's count of failed log-ins; too many, and a client can invent its address.
    """

    @field_validator("key_encryption_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        try:
            key = base64.b64decode(value.get_secret_value(), validate=True)
        except binascii.Error as exc:
            raise ValueError("not base64") from exc
        if len(key) != KEY_ENCRYPTION_KEY_BYTES:
            raise ValueError(f"not {KEY_ENCRYPTION_KEY_BYTES} bytes")
        return value

    def idempotency_life(self) -> timedelta:
        """Return how long an Idempotency-Key is remembered."""
        return timedelta(hours=self.idempotency_life_h)

    def key_encryption_key_bytes(self) -> bytes:
        """Return the key-encryption key: 32 bytes."""
        return base64.b64decode(self.key_encryption_key.get_secret_value())
