"""The operator reads what the API server admits, and refuses what it should have refused, in the same words."""

from typing import Any

import pytest

from serving.operator.rules import RULES
from serving.operator.spec import InvalidSpec, read
from tests.unit.serving.operator import refusals, served


@pytest.mark.parametrize("changes", refusals.WHOLE)
def test_spec_reads(changes: dict[str, Any]) -> None:
    """What is right is read, and a version is found by its number."""
    spec = read(served.spec(**changes))
    assert spec.stable == spec.version(1)
    assert spec.numbers == {1, 2, 3}


@pytest.mark.parametrize(("changes", "sentence"), refusals.SENTENCES)
def test_spec_refuses_what_breaks_a_rule(changes: dict[str, Any], sentence: str) -> None:
    """A rule across fields is told by its sentence, which says what to do."""
    with pytest.raises(InvalidSpec) as refused:
        read(served.spec(**changes))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("changes", "field"), refusals.FIELDS)
def test_spec_refuses_a_field_that_is_not_as_the_schema_has_it(changes: dict[str, Any], field: str) -> None:
    """It is told by the field's name, without its value."""
    with pytest.raises(InvalidSpec, match=field) as refused:
        read(served.spec(**changes))
    assert "secret" not in str(refused.value)


def test_spec_refuses_a_version_twice() -> None:
    """The API server does by the list's key; whoever reads it otherwise would serve one of the two."""
    with pytest.raises(InvalidSpec, match="named twice"):
        read(served.spec(versions=[refusals.THREE[0], refusals.THREE[0]]))


def test_every_rule_is_in_the_table() -> None:
    """Each rule refuses something that the table names, so that the API server is asked about all of them."""
    told = [case.values[1] for case in refusals.SENTENCES]
    for rule in RULES:
        assert any(str(sentence) in rule.message for sentence in told), rule.message
