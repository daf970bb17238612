"""The settings that services share; each service extends these classes with its own fields and its own prefix."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """
    Settings from the environment, read once in `create_app()`'s caller and frozen.

    A field that a person must decide has no default: the service then refuses to start and names it.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    """Address to listen on; a container sets 0.0.0.0."""

    port: int = Field(ge=1, le=65535)
    """TCP port to listen on; each service has its own default."""

    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"
    """Least level that is written."""

    log_format: Literal["json", "console"] = "json"
    """`json` for machines, a line per event; `console` for a developer's terminal."""

    drain_s: float = Field(default=0.0, ge=0.0, le=60.0)
    """How long `/readyz` says 503 before the listener closes, so that load balancers can leave first; seconds."""

    shutdown_s: int = Field(default=20, ge=1, le=300)
    """How long requests in flight may take to finish after the listener closed; seconds."""

    connections_max: int = Field(default=4096, ge=16, le=65536)
    """Connections at once; one more is answered 503 and closed. A process needs as many open files, and some more."""

    slow_s: float = Field(default=8.0, ge=1.0, le=60.0)
    """How long the head of a request may take, and a body may fall behind 1 KiB a second; seconds."""

    tls_cert_file: Path | None = None
    """PEM file with this server's certificate and what leads to its authority; none: plain HTTP."""

    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""

    tls_client_ca_file: Path | None = None
    """PEM file with the authority of the clients' certificates; none: clients are not asked for any."""

    otlp_endpoint: str | None = None
    """OTLP/HTTP endpoint for traces, e.g. http://collector:4318/v1/traces; none: no traces are recorded."""

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together: set both or none")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file: without TLS nobody shows a certificate")
        return self


class TokenSettings(Settings):
    """Settings of a service that verifies access tokens."""

    jwks_url: str
    """Where auth publishes its public keys, e.g. http://auth:8000/.well-known/jwks.json."""

    upstream_ca_file: Path | None = None
    """PEM file with the authority of the services that are called by https; none: the system's authorities."""

    token_issuer: str = "healthguard"  # noqa: S105 - the name of an issuer, not a secret
    """The `iss` that a token must carry; the same value as auth's."""

    token_audience: str = "healthguard"  # noqa: S105 - the name of an audience, not a secret
    """The `aud` that a token must carry; the same value as auth's."""


class DatabaseSettings(BaseSettings):
    """
    Settings of a service that has a database; alone, all that its migrations need, so that their job holds no secret
    but the database's.

    The waits for a connection, for its opening and for the transaction add up to the longest that a request can wait
    for the database: four seconds with the defaults, which is less than the gateway waits for auth or records.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    dsn: SecretStr = Field(min_length=1)
    """PostgreSQL ≥ 15 as a libpq URI, e.g. postgresql://records:…@db:5432/records?sslmode=verify-full."""

    pool_size: int = Field(default=8, ge=1, le=100)
    """Connections kept open to PostgreSQL, and the most that are ever opened. A query takes about a millisecond."""

    pool_wait_s: float = Field(default=1.0, gt=0, le=30)
    """How long a request waits for a free connection before it is a 503; seconds."""

    connect_timeout_s: float = Field(default=1.0, gt=0, le=30)
    """How long opening a connection may take; seconds."""

    statement_timeout_s: float = Field(default=1.5, gt=0, le=60)
    """How long PostgreSQL works on one statement before it gives up; seconds."""

    transaction_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """How long a request may hold a connection; then it is cut, even where PostgreSQL no longer answers; seconds."""


def wrong_settings(prefix: str, exc: ValidationError) -> str:
    """Return a line for each setting that is missing or wrong: its name in the environment, never its value."""
    return "\n".join(f"{prefix}{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}" for error in exc.errors())
