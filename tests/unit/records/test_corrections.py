"""A corrected row says truthfully whose word it is."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from records.schemas import Correction
from records.store import apply
from records.tables import Prediction

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def model_said() -> Prediction:
    """Return a row as a model left it."""
    return Prediction(
        id=uuid.uuid4(),
        created_at=NOW,
        task="binary",
        outcome="Positive",
        confidence=0.93,
        score=0.93,
        filename="a.png",
        recommendation="Consult a specialist.",
        model="cancer",
        source="model",
    )


@pytest.mark.parametrize(
    ("correction", "source", "recommendation"),
    [
        ({"filename": "b.png"}, "model", "Consult a specialist."),
        ({"outcome": "Positive", "confidence": 0.93, "filename": "b.png"}, "model", "Consult a specialist."),
        ({"confidence": 0.5}, "client", "Consult a specialist."),
        ({"outcome": "Negative"}, "client", None),
        ({"outcome": "Negative", "confidence": 0.5}, "client", None),
    ],
    ids=[
        "a new file name leaves the finding the model's",
        "the same values back again change nothing",
        "another confidence is the client's word",
        "another outcome is the client's word, and the model's advice goes with it",
        "both",
    ],
)
def test_correction_keeps_the_source_truthful(
    correction: dict[str, Any], source: str, recommendation: str | None
) -> None:
    """Each kind of correction, and what the row says afterwards."""
    row = model_said()

    apply(Correction.model_validate(correction), row, NOW)

    assert (row.source, row.recommendation) == (source, recommendation)
    assert row.corrected_at == (NOW if source == "client" else None)
    assert {name: getattr(row, name) for name in correction} == correction


def test_correction_keeps_what_the_model_said() -> None:
    """Score and model stay: what the model answered can still be told from them."""
    row = model_said()

    apply(Correction(outcome="Negative", confidence=0.6), row, NOW)

    assert (row.score, row.model) == (0.93, "cancer")
