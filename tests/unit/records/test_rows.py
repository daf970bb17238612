"""Rows are whole, and hold nothing that they should not."""

import uuid

from records.rows import client_row, model_row
from records.schemas import NewPrediction, OldRecordIn
from records.tables import Prediction
from tests.factories import model_answer

COLUMNS = {*Prediction.model_fields} - {"number"}


def test_rows_have_every_column() -> None:
    """The insert is one prepared statement: a column that is missing here would fail there."""
    answer = model_row(NewPrediction.model_validate(model_answer()), uuid.uuid4(), None)
    posted = client_row(OldRecordIn(prediction="Positive", confidence=0.5, filename="a.png"), uuid.uuid4())

    assert set(answer) == COLUMNS
    assert set(posted) == COLUMNS


def test_model_row_has_the_pseudonym_and_not_the_number() -> None:
    """The number of the patient never stands beside a finding."""
    row = model_row(NewPrediction.model_validate(model_answer(patient="4711")), None, "a-pseudonym")

    assert row["patient"] == "a-pseudonym"
    assert "4711" not in row.values()


def test_client_row_claims_no_model() -> None:
    """What a client posted is nobody's output: no model, version, score, digest or image."""
    row = client_row(OldRecordIn(prediction="Positive", confidence=0.5, filename="a.png"), uuid.uuid4())

    assert row["source"] == "client"
    assert {row[name] for name in ("model", "version", "weights_digest", "score", "image_hmac", "timings")} == {None}
