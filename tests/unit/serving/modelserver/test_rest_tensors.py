"""JSON values as tensors and back."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.modelserver.refusals import Refused
from serving.modelserver.rest_json import written
from serving.modelserver.rest_tensors import array_from, decimal, shape_of_value, value_of

TYPES = ["<f4", "<f8", "<f2", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "?"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)


@given(st.sampled_from(TYPES).flatmap(lambda kind: hnp.arrays(np.dtype(kind), SHAPES)))
def test_tensors_survive_json(array: np.ndarray[Any, Any]) -> None:
    """What goes out as JSON comes back the same: type, shape, every value, NaN and infinities among them."""
    value = json.loads(written(value_of(array, as_bytes=False)))
    back = array_from(value, shape_of_value(value), array.dtype)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.booleans())
def test_strings_survive_json_as_base64(strings: list[bytes], square: bool) -> None:
    """Any bytes come back from their base64 form."""
    array = np.array(strings, dtype=np.object_).reshape((1, -1) if square else (-1,))
    value = json.loads(written(value_of(array, as_bytes=True)))
    back = array_from(value, shape_of_value(value), np.dtype("O"))
    assert back.tolist() == array.tolist()


def test_strings_that_are_no_utf8_leave_as_they_are() -> None:
    """Without base64, a string output goes out byte by byte as the model gave it."""
    array = np.array([b"\xff\xfe"], dtype=np.object_)
    assert written(value_of(array, as_bytes=False)) == b'["\xff\xfe"]'


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1 / 3, "0.333333343"), (1e30, "1e+30"), (7.0, "7.0"), (16777216.0, "16777216.0"), (0.0, "0.0")],
)
def test_decimal_writes_what_a_float_says(value: float, text: str) -> None:
    """Six digits where they are enough, nine where not: never the noise of a wider type."""
    assert json.dumps(decimal(float(np.float32(value)), np.dtype("<f4"))) == text


def test_decimal_passes_what_is_no_number() -> None:
    """NaN and the infinities stay what they are."""
    assert math.isnan(decimal(math.nan, np.dtype("<f4")))
    assert decimal(-math.inf, np.dtype("<f4")) == -math.inf


REFUSED = {
    "an integer out of range": ([300], "u1", "is not of expected type: uint8"),
    "a negative for an unsigned": ([-1], "<u8", "is not of expected type: uint64"),
    "a huge integer for a float": ([10**400], "<f8", "to double without loss of precision."),
    "null": ([None], "<f4", "Type: Null is not of expected type: float"),
    "a number for a truth value": ([1], "?", "Type: Number is not of expected type: bool"),
    "a truth value for an integer": ([False], "<i4", "Type: False is not of expected type: int32"),
    "a number for text": ([1], "O", "Type: Number is not of expected type: string"),
    "an object that is no base64": ([{"b64": 1}], "O", "not formatted correctly for base64 data"),
    "bad base64": ([{"b64": "*"}], "O", "Unable to base64 decode"),
}


@pytest.mark.parametrize(("value", "kind", "text"), REFUSED.values(), ids=REFUSED)
def test_tensors_refuse_other_kinds(value: Any, kind: str, text: str) -> None:
    """No number is cast into another kind, and no value is repeated."""
    with pytest.raises(Refused) as caught:
        array_from(value, shape_of_value(value), np.dtype(kind))
    assert text in caught.value.details
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_tensors_refuse_more_dimensions_than_there_are() -> None:
    """A list nested seventy deep is no tensor."""
    value: Any = 1
    for _ in range(70):
        value = [value]
    with pytest.raises(Refused, match="unexpected level"):
        shape_of_value(value)


@given(st.recursive(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans()), st.lists))
def test_tensors_refuse_or_read_whatever_is_sent(value: Any) -> None:
    """Any JSON is read or refused; nothing else can happen."""
    for kind in ("<f4", "u1", "O", "?"):
        try:
            array_from(value, shape_of_value(value), np.dtype(kind))
        except Refused:
            continue


def test_tensors_have_no_more_dimensions_than_numpy() -> None:
    """Rows add a dimension to what each of them has."""
    with pytest.raises(Refused, match="at unexpected level: 64"):
        array_from([1.0], (1,) * 65, np.dtype("f4"))
