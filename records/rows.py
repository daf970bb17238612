"""Rows from the words of HTTP, and back into those of the old paths: pure functions."""

from typing import Any
from uuid import UUID

from records.ids import new_id
from records.schemas import NewPrediction, OldRecord, OldRecordIn, OldResult, PredictionOut
from records.tables import Prediction

Row = dict[str, Any]
"""A new row by column, all columns but the number. Not a `Prediction`: making one costs more CPU than storing it."""

_NOTHING: Row = dict.fromkeys(
    (
        *("patient", "model", "version", "weights_digest", "score", "ood_score", "recommendation", "image_hmac"),
        *("image_size_bytes", "timings", "site", "corrected_at"),
    )
)


def model_row(new: NewPrediction, owner: UUID | None, pseudonym: str | None) -> Row:
    """Return the row of a model's answer; the patient's number in *new* gives way to the pseudonym."""
    record_id, created_at = new_id()
    made = {"id": record_id, "created_at": created_at, "owner": owner, "patient": pseudonym, "source": "model"}
    return new.model_dump() | made | {"review_state": "preliminary", "corrected_at": None}


def client_row(record: OldRecordIn, owner: UUID) -> Row:
    """Return the row of a record that a client made itself: no model, and never shown as one's output."""
    record_id, created_at = new_id()
    return _NOTHING | {
        "id": record_id,
        "created_at": created_at,
        "owner": owner,
        "task": "binary",
        "outcome": record.prediction,
        "confidence": record.confidence,
        "filename": record.filename,
        "source": "client",
        "review_state": "preliminary",
    }


def old_record(row: Prediction | PredictionOut) -> OldRecord:
    """Return *row*, a binary finding, as the breast-cancer application's clients know it."""
    return OldRecord.model_validate(
        {
            "id": row.number,
            "prediction": row.outcome,
            "confidence": row.confidence,
            "filename": row.filename,
            "created_at": row.created_at,
            "source": row.source,
            "uuid": row.id,
        }
    )


def old_result(row: Prediction) -> OldResult:
    """Return *row*, a risk, as the anemia application's clients know it."""
    return OldResult.model_validate(
        {
            "condition": row.model,
            "risk_level": row.outcome.lower(),
            "confidence": row.confidence,
            "recommendation": row.recommendation,
            "analysis_date": row.created_at,
            "message_id": f"pred_{row.id.hex}",
            "source": row.source,
        }
    )
