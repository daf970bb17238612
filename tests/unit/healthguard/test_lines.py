"""What a clinician reads of a prediction."""

from dataclasses import replace

import pytest

from healthguard import lines
from healthguard.results import Model, OutcomeCount, Prediction, Statistics

FOUND = Prediction(
    id="01a2036d-ee3d-7bd3-bf15-f01951ed408f",
    number=1,
    created_at="2026-01-28T10:30:00Z",
    outcome="Negative",
    task="binary",
    source="model",
    review_state="preliminary",
    model="cancer",
    version=1,
    confidence=0.934,
    ood_score=0.3,
    recommendation="Keep to the usual screening interval.",
)
STRANGE = replace(FOUND, outcome="Indeterminate", confidence=None, ood_score=5.71)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.50"), (0.984, "0.98"), (0.99, "0.99"), (0.996, ">0.99"), (1.0, ">0.99")]
)
def test_confidence_is_never_shown_as_certainty(value: float, shown: str) -> None:
    """Rounding must not claim what the model does not."""
    assert lines.confidence(value) == shown


def test_prediction_has_the_recommendation_on_a_line_of_its_own() -> None:
    """Outcome and confidence first, then what to do."""
    first, second = lines.prediction("left.png", FOUND)
    assert first == f"left.png: Negative  confidence 0.93  cancer v1  {FOUND.id}"
    assert second == "  Keep to the usual screening interval."


def test_indeterminate_says_why() -> None:
    """The score stands beside the limit where that is known, and alone where it is not."""
    limit = lines.limit_of({"out_of_distribution": {"limit": 0.887}})
    assert lines.outcome(STRANGE, limit) == "Indeterminate (unlike what the model was made for: 5.7, limit 0.89)"
    assert lines.outcome(STRANGE) == "Indeterminate (unlike what the model was made for: 5.7)"
    assert "confidence" not in lines.prediction("left.png", STRANGE)[0]


@pytest.mark.parametrize("contract", [{}, {"out_of_distribution": None}, {"out_of_distribution": {"limit": "x"}}])
def test_limit_is_left_out_where_a_contract_names_none(contract: dict[str, object]) -> None:
    """A contract of another form is no error: the line only says less."""
    assert lines.limit_of(contract) is None


def test_model_says_that_its_weights_are_a_demonstration() -> None:
    """The list of models says what must not be used on patients."""
    shown = lines.model(Model("cancer", True, 1, {"labels": ["Negative", "Positive"], "demonstration": True}))
    assert shown == f"cancer v1  available  Negative, Positive  {lines.DEMONSTRATION}"
    assert lines.model(Model("cancer", False, 1)) == "cancer v1  not available"


def test_details_and_statistics_show_what_is_known() -> None:
    """A field without a value has no line, and the sum stands last."""
    assert not any(line.startswith("site") for line in lines.details(FOUND))
    assert any(line.split() == ["site", "north"] for line in lines.details(replace(FOUND, site="north")))
    found = Statistics(3, (OutcomeCount("model", "Negative", 2, "cancer"), OutcomeCount("client", "Positive", 1)))
    assert [line.split() for line in lines.statistics(found)] == [
        ["2", "cancer", "Negative"],
        ["1", "client", "Positive"],
        ["3", "in", "all"],
    ]
