"""The contract document: what is written is what the schema allows, and the schema allows nothing else."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from models import contract, int8
from models.catalog import PURPOSES
from models.weights import Convolution, Weights

SCHEMA = json.loads((Path(contract.__file__).parent / "contract.schema.json").read_text())
WEIGHTS = Weights(
    density=False,
    convolutions=(Convolution(np.ones((3, 3, 3, 1), np.float32), np.ones(1, np.float32), 2),),
    head=np.ones(1, np.float32),
    bias=0.0,
    temperature=1.25,
    familiarity=(),
)


def document(model: str) -> dict[str, Any]:
    """Return the contract that a training of *model* might end in."""
    table = ([0.0, 0.3, 0.7, 1.0], [0.9, 0.8, 0.9]) if PURPOSES[model].task == "risk" else None
    measured = contract.Measured(confidence=table, ood_limit=1.5, grid=(7, 7))
    return contract.document(PURPOSES[model], WEIGHTS, measured, "card")


def is_valid(candidate: dict[str, Any]) -> bool:
    """Tell whether the schema allows the document."""
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(candidate))


def test_schema_is_a_schema() -> None:
    """The schema itself is valid JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("model", sorted(PURPOSES))
def test_contract_is_valid(model: str) -> None:
    """What `document` makes passes the schema after a way through JSON."""
    assert is_valid(json.loads(contract.text(document(model))))


def test_contract_tells_limitations_where_there_are_any() -> None:
    """A version in 8 bits says so, and the schema allows it; a float one of ours has nothing to say."""
    measured = contract.Measured(confidence=None, ood_limit=1.5, grid=(7, 7))
    made = contract.document(PURPOSES["cancer"], WEIGHTS, measured, "card", limitations=(int8.LIMITATION,))
    assert made["limitations"] == [int8.LIMITATION]
    assert is_valid(made)
    assert "limitations" not in document("cancer")


@pytest.mark.parametrize("model", sorted(PURPOSES))
def test_contract_recommends_something_for_every_outcome(model: str) -> None:
    """Each label and Indeterminate has a sentence; thresholds are one fewer than labels."""
    made = document(model)
    assert set(made["recommendations"]) == {*made["labels"], "Indeterminate"}
    assert len(made["thresholds"]) == len(made["labels"]) - 1


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "healthguard.io/contract/v2"},
        {"task": "oracle"},
        {"thresholds": [1.5]},
        {"labels": ["one"]},
        {"confidence": {"method": "table"}},
        {"confidence": {"method": "max", "edges": [0, 1]}},
        {"out_of_distribution": {"method": "mahalanobis", "limit": 0}},
        {"weights_digest": "sha256:abc"},
        {"demonstration": "yes"},
        {"surprise": 1},
    ],
    ids=json.dumps,
)
def test_schema_refuses_what_is_wrong(change: dict[str, Any]) -> None:
    """Each of these documents differs from a valid one in one place."""
    assert not is_valid(document("cancer") | change)


@pytest.mark.parametrize("missing", SCHEMA["required"])
def test_schema_refuses_what_is_incomplete(missing: str) -> None:
    """No member may be left out."""
    made = document("anemia")
    del made[missing]
    assert not is_valid(made)
