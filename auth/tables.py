"""Auth's tables. `migrations/` makes them; a test holds the two equal."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, LargeBinary, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlalchemy.schema import CheckConstraint, Index, PrimaryKeyConstraint
from sqlmodel import Field, SQLModel

# Times are set by the database's clock: services on machines whose clocks differ still agree on what came first.
# `created_at` has None as its default here, which SQLAlchemy leaves to the database.
NOW = func.now()


class AuthTable(SQLModel, registry=registry()):
    """The base of auth's tables; its metadata is its own, so that tests can import every service at once."""


class User(AuthTable, table=True):
    """A person, or a program with an account."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('patient', 'doctor', 'admin')", name="users_role_check"),)

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    """The integer that clients of the replaced application know as the user's id."""

    subject: uuid.UUID = Field(sa_column=Column(Uuid, nullable=False, unique=True))
    """What tokens carry as `sub`: says nothing about when, or as the how-manieth, somebody registered."""

    email: str = Field(sa_column=Column(Text, nullable=False))
    """As it was typed."""

    email_folded: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    """As it is compared, see `store.fold_email`. PostgreSQL's citext would tie the schema to an extension."""

    password_hash: str = Field(sa_column=Column(Text, nullable=False))
    """Argon2id in the encoded form, which names its own parameters."""

    role: str = Field(sa_column=Column(Text, nullable=False))

    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=NOW)
    )

    disabled_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class SigningKey(AuthTable, table=True):
    """An ES256 key that signs access tokens. Published from the start, used from `use_from`, gone at `retired_at`."""

    __tablename__ = "signing_keys"

    kid: str = Field(sa_column=Column(Text, primary_key=True))
    """The key's RFC 7638 thumbprint."""

    public_jwk: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))

    private_key_encrypted: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Nonce (12 bytes) and AES-256-GCM ciphertext of the PKCS #8 DER form; the kid is authenticated with it."""

    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=NOW)
    )

    use_from: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))

    retired_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class RefreshFamily(AuthTable, table=True):
    """One log-in: the refresh tokens that descend from it. Only hashes are kept, of the newest and its predecessor."""

    __tablename__ = "refresh_families"
    __table_args__ = (
        # "Revoke all of this user's log-ins", and the delete that follows a user's.
        Index("refresh_families_user_id_idx", "user_id"),
        # "Remove what has expired."
        Index("refresh_families_expires_at_idx", "expires_at"),
    )

    id: uuid.UUID = Field(sa_column=Column(Uuid, primary_key=True))

    user_id: int = Field(sa_column=Column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False))

    current_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))

    previous_hash: bytes | None = Field(default=None, sa_column=Column(LargeBinary))

    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=NOW)
    )

    rotated_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))

    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    """Set at log-in and never moved."""

    revoked_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class ApiKey(AuthTable, table=True):
    """An API key: the prefix to show, and the hash to find it by; the key itself is shown once and never kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        # A user's list of keys, and how many of them work.
        Index("api_keys_user_id_idx", "user_id", text("created_at DESC")),
    )

    id: uuid.UUID = Field(sa_column=Column(Uuid, primary_key=True))

    user_id: int = Field(sa_column=Column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False))

    name: str = Field(sa_column=Column(Text, nullable=False))

    prefix: str = Field(sa_column=Column(Text, nullable=False))

    key_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))

    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=NOW)
    )

    expires_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))

    last_used_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))

    revoked_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class IdempotencyKey(AuthTable, table=True):
    """
    A key that somebody sent with a request that stores, and what it made; a repeat makes no other.

    No answer is kept: one of them shows an API key, and the others can be had from what is stored.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "key"),
        # "Remove what has expired."
        Index("idempotency_keys_created_at_idx", "created_at"),
    )

    user_id: int = Field(sa_column=Column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False))
    """Who sent it; of a registration, whom it made."""

    key: str = Field(sa_column=Column(Text, nullable=False))

    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Hash of what was asked, without secrets: the key may not be used again for something else."""

    resource_id: str = Field(sa_column=Column(Text, nullable=False))
    """The id of what the request made or changed."""

    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=NOW)
    )
