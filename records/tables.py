"""
The tables of the records service.

They have a metadata of their own: auth's tables live in another database, and one process (a test) may import both.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

NAMING = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}

_TIME = TIMESTAMP(timezone=True)


class RecordsTable(SQLModel):
    """What all tables of this service share."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING)


class Prediction(RecordsTable, table=True):
    """
    One answer about one image: a model's, or one that a client posted.

    `source` tells the two apart. What a model answered always has its score, version and digests, and keeps them when
    a client overwrites the outcome; `source` then says client, and `corrected_at` when.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        CheckConstraint("source in ('model', 'client')", "source"),
        CheckConstraint("task in ('binary', 'risk')", "task"),
        CheckConstraint("review_state in ('preliminary')", "review_state"),
        CheckConstraint("score between 0 and 1", "score"),
        CheckConstraint("confidence between 0 and 1", "confidence"),
        CheckConstraint("outcome = 'Indeterminate' or confidence is not null", "finding_has_confidence"),
        CheckConstraint("char_length(filename) <= 255", "filename"),
        CheckConstraint(
            "source = 'client' or num_nulls(model, version, weights_digest, score, image_hmac, timings) = 0",
            "model_answer_is_whole",
        ),
        Index("predictions_created_at_idx", text("created_at desc"), text("id desc")),
        Index("predictions_owner_created_at_idx", "owner", text("created_at desc"), text("id desc")),
        Index("predictions_model_outcome_created_at_idx", "model", "outcome", "created_at"),
        Index(
            "predictions_patient_created_at_idx",
            "patient",
            text("created_at desc"),
            text("id desc"),
            postgresql_where=text("patient is not null"),
        ),
    )

    id: UUID = Field(primary_key=True)
    """UUIDv7, made by us; the id of the v1 paths."""

    number: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False, unique=True))
    """The integer id of the old paths; the database gives it."""

    created_at: datetime = Field(sa_type=_TIME)

    owner: UUID | None = None
    """Who asked: the `sub` of their token. None: asked anonymously."""

    patient: str | None = Field(default=None, foreign_key="patients.pseudonym", sa_type=Text)
    """About whom, as a pseudonym."""

    model: str | None = Field(default=None, sa_type=Text)
    """None on what a client posted: no model of ours said it."""

    version: int | None = Field(default=None, sa_type=BigInteger)
    weights_digest: str | None = Field(default=None, sa_type=Text)
    task: str = Field(sa_type=Text)
    outcome: str = Field(sa_type=Text)
    score: float | None = Field(default=None, sa_type=Double)
    confidence: float | None = Field(default=None, sa_type=Double)
    """None only where the outcome is Indeterminate."""

    ood_score: float | None = Field(default=None, sa_type=Double)
    recommendation: str | None = Field(default=None, sa_type=Text)
    image_hmac: str | None = Field(default=None, sa_type=Text)
    image_size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    filename: str | None = Field(default=None, sa_type=Text)
    timings: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    source: str = Field(sa_type=Text)
    site: str | None = Field(default=None, sa_type=Text)
    review_state: str = Field(default="preliminary", sa_type=Text)
    corrected_at: datetime | None = Field(default=None, sa_type=_TIME)


class Patient(RecordsTable, table=True):
    """The way from a pseudonym back to a hospital's patient number, apart from the findings, and encrypted."""

    __tablename__ = "patients"

    pseudonym: str = Field(primary_key=True, sa_type=Text)
    site: str = Field(sa_type=Text)
    number_encrypted: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_column=Column(_TIME, nullable=False, server_default=text("now()")))


class IdempotencyKey(RecordsTable, table=True):
    """A key that a caller sent with a save or a correction, and its row; a repeat gets that row."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("owner", "key"),
        Index("idempotency_keys_created_at_idx", "created_at"),
        Index("idempotency_keys_prediction_id_idx", "prediction_id"),
    )

    owner: UUID
    """Who sent it; the nil UUID stands for anonymous callers, since nulls are never equal."""

    key: str = Field(sa_type=Text)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    """Hash of what was asked (of a save: model, image and patient): the key may not be used again for another."""

    prediction_id: UUID = Field(
        sa_column=Column(ForeignKey("predictions.id", ondelete="CASCADE"), nullable=False),
    )
    created_at: datetime = Field(sa_type=_TIME)
