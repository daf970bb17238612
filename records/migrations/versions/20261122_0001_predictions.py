"""
Predictions, patients and idempotency keys.

There is no downgrade: it would drop what must never be lost.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the first three tables."""
    _patients()
    _predictions()
    _idempotency_keys()


def _patients() -> None:
    op.create_table(
        "patients",
        sa.Column("pseudonym", sa.Text, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("number_encrypted", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("pseudonym", name="patients_pkey"),
    )


def _predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("owner", sa.Uuid),
        sa.Column("patient", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.BigInteger),
        sa.Column("weights_digest", sa.Text),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("confidence", sa.Double),
        sa.Column("ood_score", sa.Double),
        sa.Column("recommendation", sa.Text),
        sa.Column("image_hmac", sa.Text),
        sa.Column("image_size_bytes", sa.BigInteger),
        sa.Column("filename", sa.Text),
        sa.Column("timings", JSONB),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("site", sa.Text),
        sa.Column("review_state", sa.Text, nullable=False),
        sa.Column("corrected_at", TIME),
        sa.PrimaryKeyConstraint("id", name="predictions_pkey"),
        sa.UniqueConstraint("number", name="predictions_number_key"),
        sa.ForeignKeyConstraint(["patient"], ["patients.pseudonym"], name="predictions_patient_fkey"),
        sa.CheckConstraint("source in ('model', 'client')", name="predictions_source_check"),
        sa.CheckConstraint("task in ('binary', 'risk')", name="predictions_task_check"),
        sa.CheckConstraint("review_state in ('preliminary')", name="predictions_review_state_check"),
        sa.CheckConstraint("score between 0 and 1", name="predictions_score_check"),
        sa.CheckConstraint("confidence between 0 and 1", name="predictions_confidence_check"),
        sa.CheckConstraint(
            "outcome = 'Indeterminate' or confidence is not null", name="predictions_finding_has_confidence_check"
        ),
        sa.CheckConstraint("char_length(filename) <= 255", name="predictions_filename_check"),
        sa.CheckConstraint(
            "source = 'client' or num_nulls(model, version, weights_digest, score, image_hmac, timings) = 0",
            name="predictions_model_answer_is_whole_check",
        ),
    )
    newest = [sa.text("created_at desc"), sa.text("id desc")]
    op.create_index("predictions_created_at_idx", "predictions", newest)
    op.create_index("predictions_owner_created_at_idx", "predictions", ["owner", *newest])
    op.create_index("predictions_model_outcome_created_at_idx", "predictions", ["model", "outcome", "created_at"])
    op.create_index(
        "predictions_patient_created_at_idx",
        "predictions",
        ["patient", *newest],
        postgresql_where=sa.text("patient is not null"),
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("prediction_id", sa.Uuid, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="idempotency_keys_pkey"),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name="idempotency_keys_prediction_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index("idempotency_keys_created_at_idx", "idempotency_keys", ["created_at"])
    op.create_index("idempotency_keys_prediction_id_idx", "idempotency_keys", ["prediction_id"])
