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
