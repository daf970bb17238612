"""What comes in is bounded before anything is done with it."""

from typing import Any

import pytest
from pydantic import ValidationError

from records.schemas import Correction, Filters, NewPrediction, OldCorrection, OldRecordIn, PageQuery, Search
from tests.factories import model_answer


def test_new_prediction_takes_what_the_gateway_sends() -> None:
    """The whole body, and the same without what may be absent."""
    optional = ("ood_score", "recommendation", "filename", "patient", "site")
    least = {name: value for name, value in model_answer().items() if name not in optional}

    assert NewPrediction.model_validate(model_answer(patient="4711", site="north")).patient == "4711"
    assert NewPrediction.model_validate(least).filename is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "../cancer"},
        {"model": "c" * 64},
        {"version": 0},
        {"version": 2**63},
        {"version": "1"},
        {"weights_digest": "sha256:abc"},
        {"task": "segmentation"},
        {"outcome": "<script>"},
        {"outcome": "x" * 64},
        {"score": 1.01},
        {"score": float("nan")},
        {"score": None},
        {"confidence": -0.01},
        {"confidence": None},
        {"ood_score": float("inf")},
        {"recommendation": "x" * 2001},
        {"recommendation": "a\0b"},
        {"image_hmac": "short"},
        {"image_size_bytes": -1},
        {"filename": ""},
        {"filename": "   "},
        {"filename": "x" * 256},
        {"filename": "a\nb.png"},
        {"filename": "a\x00b.png"},
        {"filename": "a\x1b[31m.png"},
        {"filename": "a\x85b.png"},
        {"filename": "a\u2028b.png"},
        {"filename": "a\ud800b.png"},
        {"patient": "x" * 65},
        {"patient": "4711\r\n"},
        {"site": "x" * 65},
        {"timings": {"read_ms": -1.0, "decode_ms": 0.0, "inference_ms": 0.0}},
        {"timings": {"read_ms": 1.0, "decode_ms": 0.0, "inference_ms": 0.0, "name": 1.0}},
        {"timings": {}},
        {"owner": "somebody"},
    ],
    ids=str,
)
def test_new_prediction_refuses(wrong: dict[str, Any]) -> None:
    """A value outside its bounds, a field that we don't know, or one whose type is only similar."""
    with pytest.raises(ValidationError):
        NewPrediction.model_validate(model_answer(**wrong))


def test_new_prediction_may_be_indeterminate_without_confidence() -> None:
    """Only there: an image that the model does not know has no class to be confident about."""
    found = NewPrediction.model_validate(model_answer(outcome="Indeterminate", confidence=None))

    assert found.confidence is None


@pytest.mark.parametrize("empty", [{}, {"outcome": None}, {"filename": None, "confidence": None}], ids=str)
def test_correction_names_something(empty: dict[str, Any]) -> None:
    """A correction of nothing is a mistake of the caller's, and is told."""
    for kind in (Correction, OldCorrection):
        with pytest.raises(ValidationError):
            kind.model_validate(empty)


@pytest.mark.parametrize("outcome", ["seen by Dr. A", "Positive\n", "BRCA1", "", "x" * 65], ids=str)
def test_correction_takes_no_free_text(outcome: str) -> None:
    """An outcome is a label of letters, spaces and hyphens: no note, and nobody's number."""
    with pytest.raises(ValidationError):
        Correction(outcome=outcome)


@pytest.mark.parametrize("typed", [" 4711-\u00c4", "4711-\u00c4 ", "4711-A\u0308"], ids=ascii)
def test_patient_number_is_the_same_however_it_is_typed(typed: str) -> None:
    """Blanks around it, and a letter in one character or two, make no other patient, neither stored nor searched."""
    stored = NewPrediction.model_validate(model_answer(patient=typed, site=typed))
    searched = Search(patient=typed, site=typed)

    assert {stored.patient, stored.site, searched.patient, searched.site} == {"4711-\u00c4"}


def test_old_correction_speaks_the_old_name() -> None:
    """`prediction` is the outcome, and no other word than the old two is taken for it."""
    assert OldCorrection.model_validate({"prediction": "Negative"}).outcome == "Negative"
    with pytest.raises(ValidationError):
        OldCorrection.model_validate({"prediction": "HIGH"})


def test_old_record_passes_over_fields_that_it_does_not_know() -> None:
    """Old clients send what they like beside the three fields; it never was an error and is never stored."""
    sent = {"prediction": "Positive", "confidence": 0.9, "filename": "a.png", "source": "model", "id": 7}

    assert OldRecordIn.model_validate(sent).model_dump() == {
        "prediction": "Positive",
        "confidence": 0.9,
        "filename": "a.png",
    }


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PageQuery, {"limit": 0}),
        (PageQuery, {"limit": 201}),
        (PageQuery, {"cursor": "x" * 65}),
        (PageQuery, {"patient": "4711"}),
        (Filters, {"created_from": "2026-01-01T00:00:00"}),
        (Filters, {"outcome": "a;b"}),
        (Search, {"patient": ""}),
        (Search, {}),
    ],
    ids=str,
)
def test_query_refuses(kind: type[Filters] | type[Search], wrong: dict[str, Any]) -> None:
    """Pages are bounded, times have a zone, and a patient's number is no part of a URL."""
    with pytest.raises(ValidationError):
        kind.model_validate(wrong)
