"""People, signing keys, refresh families and API keys."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    LargeBinary,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("subject", Uuid, nullable=False, unique=True),
        Column("email", Text, nullable=False),
        Column("email_folded", Text, nullable=False, unique=True),
        Column("password_hash", Text, nullable=False),
        Column("role", Text, nullable=False),
        _time("created_at", server_default=func.now(), nullable=False),
        _time("disabled_at"),
        CheckConstraint("role IN ('patient', 'doctor', 'admin')", name="users_role_check"),
    )
    op.create_table(
        "signing_keys",
        Column("kid", Text, primary_key=True),
        Column("public_jwk", JSONB, nullable=False),
        Column("private_key_encrypted", LargeBinary, nullable=False),
        _time("created_at", server_default=func.now(), nullable=False),
        _time("use_from", nullable=False),
        _time("retired_at"),
    )
    op.create_table(
        "refresh_families",
        Column("id", Uuid, primary_key=True),
        _user(),
        Column("current_hash", LargeBinary, nullable=False),
        Column("previous_hash", LargeBinary),
        _time("created_at", server_default=func.now(), nullable=False),
        _time("rotated_at"),
        _time("expires_at", nullable=False),
        _time("revoked_at"),
    )
    op.create_index("refresh_families_user_id_idx", "refresh_families", ["user_id"])
    op.create_index("refresh_families_expires_at_idx", "refresh_families", ["expires_at"])
    op.create_table(
        "api_keys",
        Column("id", Uuid, primary_key=True),
        _user(),
        Column("name", Text, nullable=False),
        Column("prefix", Text, nullable=False),
        Column("key_hash", LargeBinary, nullable=False, unique=True),
        _time("created_at", server_default=func.now(), nullable=False),
        _time("expires_at"),
        _time("last_used_at"),
        _time("revoked_at"),
    )
    op.create_index("api_keys_user_id_idx", "api_keys", ["user_id", text("created_at DESC")])


def downgrade() -> None:
    """Drop the tables, and with them everybody's account."""
    for table in ("api_keys", "refresh_families", "signing_keys", "users"):
        op.drop_table(table)


def _time(name: str, **options: object) -> Column[object]:
    return Column(name, DateTime(timezone=True), **options)  # type: ignore[arg-type]


def _user() -> Column[int]:
    return Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False)
