"""The model cards: every figure of the record is on them, in both languages, and nothing is left to fill in."""

import json
import re
from pathlib import Path

import pytest

from models import card
from models.card_texts import FRENCH
from models.catalog import PURPOSES

MODELS = Path(card.__file__).parent
MITCHELL = (
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
)
"""Source: Mitchell et al., "Model cards for model reporting" (2019), figure 1."""


@pytest.mark.parametrize("model", sorted(PURPOSES))
@pytest.mark.parametrize("language", sorted(card.NAMES))
def test_card_is_what_the_committed_record_makes(model: str, language: str) -> None:
    """No figure was typed by hand: the committed card is the record's, word for word."""
    record = json.loads((MODELS / model / "training.json").read_text(encoding="utf-8"))
    committed = (MODELS / model / card.NAMES[language]).read_text(encoding="utf-8")
    assert card.render(PURPOSES[model], record, language) == committed
    assert re.search(r"\{\w*\}", committed) is None


@pytest.mark.parametrize("model", sorted(PURPOSES))
def test_card_has_the_sections_of_model_reporting(model: str) -> None:
    """All sections of the paper are there, and as many in French as in English."""
    cards = {name: (MODELS / model / name).read_text(encoding="utf-8") for name in card.NAMES.values()}
    sections = {name: re.findall(r"^## (.+)$", text, re.MULTILINE) for name, text in cards.items()}
    assert set(MITCHELL) <= set(sections["card.md"])
    assert len(sections["card.fr.md"]) == len(sections["card.md"])
    assert "## HL7 model card" in cards["card.md"]


@pytest.mark.parametrize("model", sorted(PURPOSES))
def test_card_in_french_leaves_no_name_in_english(model: str) -> None:
    """Every name of the record that is a word has its translation."""
    record = json.loads((MODELS / model / "training.json").read_text(encoding="utf-8"))
    names = {*record["figures"], *record["refused"], *record["baselines"], *record["calibration"], *record["subgroups"]}
    assert names - set(FRENCH) == set()


@pytest.mark.parametrize(("language", "title"), [("en", "in 8 bits"), ("fr", "en 8 bits")])
def test_card_tells_what_int8_costs(language: str, title: str) -> None:
    """A version in 8 bits has a section of its own, with every figure; a float one does not mention it."""
    record = json.loads((MODELS / "cancer" / "training.json").read_text(encoding="utf-8"))
    cost = {
        "bytes": {"float": 2_624_144, "int8": 1_846_640},
        "milliseconds": {"float": 2.7, "int8": 4.3},
        "cases": 20,
        "differences": {"probability": 0.0092, "ood_score": 0.0289, "heatmap": 0.1216},
        "within": {"probability": 0.05, "ood_score": 0.06, "heatmap": 0.25},
        "tolerance": 0.05,
    }
    text = card.render(PURPOSES["cancer"], {**record, "int8": cost}, language)
    assert title in text
    for row in ("| 2,624,144 | 1,846,640 |", "| 2.7 | 4.3 |", "`ood_score` | 0.0289 | 0.06 |"):
        assert row in text
    assert title not in card.render(PURPOSES["cancer"], record, language)
