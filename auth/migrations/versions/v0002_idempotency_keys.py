"""Idempotency keys."""

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, LargeBinary, PrimaryKeyConstraint, Text, func

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what runs of the version before knows nothing of it, and goes on."""
    op.create_table(
        "idempotency_keys",
        Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        Column("key", Text, nullable=False),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("resource_id", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
        PrimaryKeyConstraint("user_id", "key", name="idempotency_keys_pkey"),
    )
    op.create_index("idempotency_keys_created_at_idx", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Forget the keys: what is sent again is done again."""
    op.drop_table("idempotency_keys")
