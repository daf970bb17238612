"""What a contract must be, and what scores mean under it."""

import json
from typing import Any

import pytest

from gateway.contracts import CONTRACT_BYTES_MAX, BadContract, BadScores, Contract, decide, parse_contract
from tests.factories import contract, risk_contract

BINARY = Contract.model_validate(contract())
RISK = Contract.model_validate(risk_contract())


@pytest.mark.parametrize(
    ("of", "probability", "outcome", "confidence"),
    [
        (BINARY, 0.0, "Negative", 1.0),
        (BINARY, 0.4999, "Negative", 0.5001),
        (BINARY, 0.5, "Positive", 0.5),
        (BINARY, 1.0, "Positive", 1.0),
        (RISK, 0.0, "LOW", 0.9),
        (RISK, 0.2999, "LOW", 0.9),
        (RISK, 0.3, "MEDIUM", 0.6),
        (RISK, 0.6999, "MEDIUM", 0.6),
        (RISK, 0.7, "HIGH", 0.8),
        (RISK, 1.0, "HIGH", 0.8),
    ],
)
def test_decide_follows_thresholds_and_confidence(
    of: Contract, probability: float, outcome: str, confidence: float
) -> None:
    """A threshold belongs to what lies above it, and so does a bin's edge."""
    finding = decide(of, probability, 0.0)
    assert finding.outcome == outcome
    assert finding.confidence == pytest.approx(confidence)
    assert finding.recommendation == of.recommendations[outcome]


def test_decide_gives_no_finding_beyond_the_limit() -> None:
    """At the limit there still is one; above it neither class nor confidence."""
    limit = BINARY.out_of_distribution.limit
    assert decide(BINARY, 0.9, limit).outcome == "Positive"
    beyond = decide(BINARY, 0.9, limit + 0.001)
    assert (beyond.outcome, beyond.confidence) == ("Indeterminate", None)
    assert beyond.recommendation == "Take the image again."


@pytest.mark.parametrize(
    ("probability", "ood_score"),
    [(-0.01, 0.0), (1.01, 0.0), (float("nan"), 0.0), (0.5, float("nan")), (0.5, float("inf"))],
)
def test_decide_refuses_what_is_no_score(probability: float, ood_score: float) -> None:
    """NaN compares false to everything, so it would be Negative if it were let through."""
    with pytest.raises(BadScores):
        decide(BINARY, probability, ood_score)


def test_contract_is_read_as_it_is_written() -> None:
    """What comes out is what went in."""
    parsed = parse_contract(json.dumps(contract()).encode(), "cancer", 1)
    assert parsed.model_dump(by_alias=True, exclude_unset=True) == contract()


def test_contract_may_say_what_the_version_cannot_do() -> None:
    """An imported version has no heat map or no measure of familiarity, and says so."""
    lacking = {
        "explain": {"method": "none", "reason": "a reason"},
        "calibration": {"method": "none", "temperature": 1.0},
        "out_of_distribution": {"method": "none", "limit": 1.0},
        "limitations": ["No heat map."],
    }
    parsed = parse_contract(json.dumps(contract() | lacking).encode(), "cancer", 1)
    assert parsed.explain.grid == []
    assert parsed.limitations == ["No heat map."]


@pytest.mark.parametrize("explain", [{"method": "none", "grid": [7, 7]}, {"method": "grad-cam"}])
def test_contract_with_half_a_heat_map_is_refused(explain: dict[str, Any]) -> None:
    """A method goes with its grid, and none with none."""
    with pytest.raises(BadContract):
        parse_contract(json.dumps(contract() | {"explain": explain}).encode(), "cancer", 1)


BAD: dict[str, dict[str, Any]] = {
    "another schema": {"schema": "healthguard.io/contract/v2"},
    "another model": {"model": "anemia"},
    "another version": {"version": 2},
    "a version that is no integer": {"version": 1.0},
    "too few thresholds": {"thresholds": []},
    "thresholds that fall": {"labels": ["A", "B", "C"], "thresholds": [0.7, 0.3]},
    "a threshold above one": {"thresholds": [1.5]},
    "a label without recommendation": {"labels": ["Negative", "Other"]},
    "another filter": {"input": contract()["input"] | {"resize": "bilinear"}},
    "an input of no height": {"input": contract()["input"] | {"height": 0}},
    "an input that is too large": {"input": contract()["input"] | {"width": 100_000}},
    "a table with a gap": {"confidence": {"method": "table", "edges": [0.0, 0.5], "values": [0.5]}},
    "a table with too few values": {"confidence": {"method": "table", "edges": [0.0, 0.5, 1.0], "values": [0.5]}},
    "a table whose edges fall": {"confidence": {"method": "table", "edges": [0.0, 0.0, 1.0], "values": [0.5, 0.5]}},
    "an unknown confidence": {"confidence": {"method": "guess"}},
    "a limit that is no number": {"out_of_distribution": {"method": "mahalanobis", "limit": "12"}},
    "no digest": {"weights_digest": "sha256:abc"},
    "a field that nobody knows": {"surprise": 1},
    "too long a text": {"intended_use": "x" * 9000},
}


@pytest.mark.parametrize("name", BAD)
def test_contract_that_is_not_one_is_refused(name: str) -> None:
    """Each alone makes an otherwise good contract bad."""
    with pytest.raises(BadContract):
        parse_contract(json.dumps(contract() | BAD[name]).encode(), "cancer", 1)


@pytest.mark.parametrize("document", [b"", b"[]", b"\xff", b"{" * 1000], ids=["empty", "a list", "no text", "no end"])
def test_document_that_is_no_contract_is_refused(document: bytes) -> None:
    """Whatever a model server answers."""
    with pytest.raises(BadContract):
        parse_contract(document, "cancer", 1)


def test_contract_that_is_too_long_is_not_even_parsed() -> None:
    """Spaces make a good document too long."""
    document = json.dumps(contract()).encode()
    parse_contract(document + b" " * (CONTRACT_BYTES_MAX - len(document)), "cancer", 1)
    with pytest.raises(BadContract):
        parse_contract(document + b" " * (CONTRACT_BYTES_MAX - len(document) + 1), "cancer", 1)
