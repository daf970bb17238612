"""Settings of the records service, from environment variables that begin with `RECORDS_`."""

import base64
import binascii
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from healthguard.settings import DatabaseSettings, TokenSettings

PSEUDONYM_KEY_BYTES = 32


class RecordsSettings(TokenSettings, DatabaseSettings):
    """Settings of the records service."""

    model_config = SettingsConfigDict(env_prefix="RECORDS_")

    port: int = Field(default=8002, ge=1, le=65535)
    """TCP port to listen on."""

    gateway_secret: SecretStr = Field(min_length=32)
    """Shared with the gateway alone: only who sends it may store a model's results. At least 32 characters."""

    gateway_name: str | None = None
    """The DNS name in the gateway's certificate; only its holder may then use the API at all. Needs
    `tls_client_ca_file`; none: the secret alone tells the gateway, and network policies keep others away."""

    pseudonym_key: SecretStr
    """
    32 random bytes in base64: the root of the keys for pseudonyms, patient numbers and page cursors.

    Losing it loses the way from a pseudonym to a patient number, for good.
    """

    synchronous_commit: Literal["on", "remote_apply"] = "on"
    """
    When a commit counts: `on`, flushed to disk here and on synchronous standbys; `remote_apply`, visible there too.

    It is set on every connection, so that a server, database or role that is set to `off` loses no acknowledged record.
    """

    idempotency_life_h: float = Field(default=24.0, ge=1, le=24 * 30)
    """How long an Idempotency-Key is remembered; hours."""

    @field_validator("pseudonym_key")
    @classmethod
    def _a_key(cls, key: SecretStr) -> SecretStr:
        if len(_decoded(key)) != PSEUDONYM_KEY_BYTES:
            raise ValueError(f"must be {PSEUDONYM_KEY_BYTES} bytes in base64")
        return key

    @model_validator(mode="after")
    def _names_are_checked(self) -> Self:
        if self.gateway_name and not self.tls_client_ca_file:
            raise ValueError("gateway_name needs tls_client_ca_file: nobody could show that name")
        return self

    def pseudonym_key_bytes(self) -> bytes:
        """Return the 32 bytes of the root key."""
        return _decoded(self.pseudonym_key)


def _decoded(key: SecretStr) -> bytes:
    """Return the bytes of a base64 text; one that is none has no bytes."""
    try:
        return base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        return b""
