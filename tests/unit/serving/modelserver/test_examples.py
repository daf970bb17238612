"""Examples as a graph parses them."""

import pytest

from serving.modelserver.examples import serialized
from serving.modelserver.refusals import Refused
from serving.tfs.protos import Example, Input


def given(context_bytes: int, count: int) -> Input:
    """Return empty examples with a context of about that size."""
    asked = Input()
    shared = asked.example_list_with_context
    shared.context.features.feature["c"].bytes_list.value.append(b"x" * context_bytes)
    shared.examples.extend([Example()] * count)
    return asked


def test_serialized_puts_the_context_before_each_example() -> None:
    """What examples share is the beginning of each."""
    asked = given(10, 2)
    context = asked.example_list_with_context.context.SerializeToString()
    assert serialized(asked).tolist() == [context, context]


def test_serialized_makes_no_terabytes_of_a_megabyte() -> None:
    """A context is repeated for each example only as far as the memory should bear it."""
    with pytest.raises(Refused, match="the context, once for each example, is larger"):
        serialized(given(1_000_000, 1000))
