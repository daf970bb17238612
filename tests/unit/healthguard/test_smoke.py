"""The smoke test can fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from healthguard.local import smoke
from healthguard.results import Prediction
from models import artifact

STORED = Prediction("id", 1, "2026", "Positive", "binary", "model", "preliminary", score=0.9)
CASE = artifact.GoldenCase(Path("positive-01.png"), "Positive", 0.9, 1.0)


def test_smoke_takes_what_is_right() -> None:
    """The golden answer passes."""
    smoke.check_case("cancer", CASE, STORED, 0.001)
    smoke.check_history([STORED, replace(STORED, id="2")], [replace(STORED, id="2"), STORED])


@pytest.mark.parametrize(
    "wrong", [{"outcome": "Negative"}, {"score": 0.902}, {"score": None}], ids=["class", "score", "no score"]
)
def test_smoke_finds_a_wrong_answer(wrong: dict[str, str | float | None]) -> None:
    """Another class, another score or none: not right."""
    with pytest.raises(smoke.NotRight):
        smoke.check_case("cancer", CASE, replace(STORED, **wrong), 0.001)  # type: ignore[arg-type]


def test_smoke_finds_a_hole_in_the_history() -> None:
    """One missing, or one in another place: not right."""
    other = replace(STORED, id="2")
    for history in ([other], [STORED, other], [other, STORED, STORED]):
        with pytest.raises(smoke.NotRight):
            smoke.check_history([STORED, other], history)
