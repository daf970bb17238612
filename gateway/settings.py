"""Every setting of the gateway, from the environment variables `GATEWAY_…`."""

import base64
import binascii
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from healthguard.settings import TokenSettings
from healthguard.sources import Network

MIB = 1024 * 1024
HMAC_KEY_BYTES = 32
ASSETS_URL = r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9@._~-]+)*$"
"""An origin and a path, of which nothing can be taken for more of a header or of a page."""


class GatewaySettings(TokenSettings):
    """What a gateway needs to know; what has no default a person must decide."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    port: int = Field(default=8004, ge=1, le=65535)
    """TCP port to listen on."""

    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """TCP port for the Open Inference Protocol over gRPC, e.g. 8005; none: it is spoken over HTTP alone."""

    auth_url: str
    """Where auth listens, e.g. http://auth:8000. Its keys are read from there unless `jwks_url` says another place."""

    records_url: str
    """Where records listens, e.g. http://records:8002."""

    discovery: Literal["file", "kubernetes"] = "file"
    """How the gateway learns what it serves: from `models_file`, or by watching the ServedModels of its namespace."""

    models_file: Path | None = None
    """JSON file that names each model, its stable version and its endpoints; needed where `discovery` is `file`."""

    kubernetes_namespace: str = Field(default="", max_length=63)
    """The namespace whose ServedModels are served; empty: the service account's own."""

    models_ca_file: Path | None = None
    """PEM file with the authority of the model servers; none: they are spoken to without TLS."""

    models_cert_file: Path | None = None
    """PEM file with the certificate that the gateway shows to model servers; none: it shows none."""

    models_key_file: Path | None = None
    """PEM file with that certificate's private key."""

    models_server_name: str = Field(default="", max_length=253)
    """What every model server's certificate names; empty: the host of its endpoint, or in Kubernetes its Service."""

    records_secret: SecretStr = Field(min_length=32)
    """The secret by which records knows this gateway; the same value as records' `gateway_secret`."""

    upstream_cert_file: Path | None = None
    """PEM file with the certificate by which records knows this gateway; none: nothing is shown."""

    upstream_key_file: Path | None = None
    """PEM file with that certificate's private key."""

    image_hmac_key: SecretStr
    """Base64 of 32 random bytes: the key of the hash under which an image's pixels are recorded."""

    image_bytes_max: int = Field(default=25 * MIB, ge=1024, le=256 * MIB)
    """Largest image that is read; bytes."""

    image_pixels_max: int = Field(default=40_000_000, ge=1, le=200_000_000)
    """Largest image that is decoded; width times height. Of kinds that need more memory, fewer: `images.BYTES_MAX`."""

    image_kinds: tuple[Literal["webp", "tiff"], ...] = ()
    """Kinds of images that are taken beside JPEG and PNG, e.g. ["webp", "tiff"]; each is one more decoder to trust."""

    uploads_bytes_max: int = Field(default=256 * MIB, ge=1024)
    """How much of all bodies together may be in memory at once; bytes. Beyond it, uploads get an early 503."""

    forwarded_bytes_max: int = Field(default=8 * MIB, ge=1024)
    """The same for bodies that go on to auth and records, so that many slow log-ins leave room for images; bytes."""

    upload_timeout_s: float = Field(default=30.0, gt=0, le=600)
    """How long a client may take to send its image; seconds."""

    decode_threads: int = Field(default=2, ge=1, le=64)
    """
    Threads that decode images; the decoders release the interpreter's lock, so a thread per core is right. Each may
    take `images.BYTES_MAX` of memory at its peak.
    """

    predict_timeout_s: float = Field(default=10.0, gt=0, le=120)
    """How long decoding and the model may take together; seconds. A client may ask for less by X-Request-Timeout."""

    predictions_in_flight_max: int = Field(default=256, ge=1, le=4096)
    """
    Predictions of one model at once; beyond it, an early 503. The limit that holds at a moment is lower where answers
    take longer than `latency_target_s`.
    """

    latency_target_s: float = Field(default=1.0, gt=0, le=60)
    """Latency of a prediction above which fewer are made at once; seconds."""

    shadows_in_flight_max: int = Field(default=4, ge=0, le=256)
    """Questions to shadow versions at once; beyond it they are dropped, and counted."""

    answers_kept_max: int = Field(default=4096, ge=0, le=1_000_000)
    """Scores that are kept for the same pixels and version, some hundred bytes each; 0: every picture is asked anew."""

    answers_kept_s: int = Field(default=3600, ge=1, le=604_800)
    """How long Redis keeps scores, where one is set; seconds."""

    redis_url: SecretStr | None = None
    """
    Redis or Valkey, e.g. rediss://:…@redis:6379/0, where gateways share rate limits and kept scores; none: each pod
    has its own.
    """

    requests_per_minute: int = Field(default=6000, ge=0, le=1_000_000)
    """Requests that one person or program may make a minute; 0: any number."""

    status_timeout_s: float = Field(default=1.5, gt=0, le=30)
    """Deadline of a question about a model's state; seconds."""

    status_interval_s: float = Field(default=2.0, gt=0, le=300)
    """How often each model server is asked for its state once it serves; seconds. Until then it is asked sooner."""

    records_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Deadline of a call to records; seconds."""

    auth_timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Deadline of a call to auth, which hashes passwords and so is slow on purpose; seconds."""

    upstream_connections_max: int = Field(default=64, ge=1, le=1024)
    """Connections to auth and to records, each."""

    anonymous_anemia: bool = False
    """Whether POST /api/predict and GET /api/results work without a token, as in the application they come from."""

    anonymous_per_minute: int = Field(default=10, ge=1, le=600)
    """Requests without a token that one network address may make a minute."""

    trusted_hops: int = Field(default=0, ge=0, le=8)
    """
    Proxies of ours before the gateway, each of which appends to X-Forwarded-For the address that it saw. 0: none, and
    the header is not read. Too few, and all clients count as one; too many, and a client can say who it is.
    """

    trusted_proxies: tuple[Network, ...] = ()
    """Networks from which X-Forwarded-For is believed, e.g. ["10.0.0.0/8"]; none: from whoever connects."""

    assets_url: str | None = Field(default=None, max_length=512, pattern=ASSETS_URL)
    """
    Where the files of Swagger UI (the npm package swagger-ui-dist) lie, on a CDN or a server of one's own, e.g.
    https://cdn.example.org/swagger-ui-dist@5.29.0; then GET /docs is the API's reference. Name a fixed version: whoever
    can change these files can act with the token of whoever uses the page. None: there is no page.
    """

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call this API from a browser; none by default, and never `*`."""

    @model_validator(mode="before")
    @classmethod
    def _keys_from_auth(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("jwks_url") and isinstance(values.get("auth_url"), str):
            values = values | {"jwks_url": values["auth_url"].rstrip("/") + "/.well-known/jwks.json"}
        return values

    @model_validator(mode="after")
    def _upstream_certificate_with_key(self) -> Self:
        if (self.upstream_cert_file is None) != (self.upstream_key_file is None):
            raise ValueError("upstream_cert_file and upstream_key_file belong together: set both or none")
        return self

    @model_validator(mode="after")
    def _models_can_be_found(self) -> Self:
        if self.discovery == "file" and self.models_file is None:
            raise ValueError("models_file: needed where discovery is file")
        if (self.models_cert_file is None) != (self.models_key_file is None):
            raise ValueError("models_cert_file and models_key_file belong together: set both or none")
        if self.models_cert_file is not None and self.models_ca_file is None:
            raise ValueError("models_cert_file is of no use without models_ca_file")
        return self

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("auth_url", "records_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _no_wildcard(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if any("*" in origin for origin in origins):
            raise ValueError("an allow-list of origins, without wildcards")
        return origins

    @field_validator("image_hmac_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr) -> SecretStr:
        try:
            length = len(base64.b64decode(key.get_secret_value(), validate=True))
        except binascii.Error:
            length = 0
        if length != HMAC_KEY_BYTES:
            raise ValueError(f"must be the base64 of {HMAC_KEY_BYTES} bytes")
        return key

    def hmac_key(self) -> bytes:
        """Return the image hash's key as bytes."""
        return base64.b64decode(self.image_hmac_key.get_secret_value())
