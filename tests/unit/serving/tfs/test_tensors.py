"""Tensors keep TensorFlow's meaning in both encodings, and nothing that a message says can make them large."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.tfs.protos import TensorProto, TensorShapeProto
from serving.tfs.tensors import Array, BadTensor, from_array, to_array, type_name, type_of

NUMBERS = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(np.dtype(dtype), SHAPES))
STRINGS = arrays.arrays(np.dtype("O"), SHAPES, elements=st.binary(max_size=8), fill=st.nothing())


def shape(*sizes: int) -> TensorShapeProto:
    """Return a TensorShapeProto."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


@given(array=st.one_of(ARRAYS, STRINGS), typed=st.booleans())
def test_tensors_return_as_they_went(array: Array, typed: bool) -> None:
    """Any array comes back equal from raw bytes and from typed lists, over the wire."""
    wire = from_array(array, typed=typed).SerializeToString()
    back = to_array(TensorProto.FromString(wire))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(array=ARRAYS)
def test_tensors_are_equal_in_both_encodings(array: Array) -> None:
    """Raw bytes and typed lists mean the same."""
    raw, typed = to_array(from_array(array)), to_array(from_array(array, typed=True))
    np.testing.assert_array_equal(raw, typed)


@given(values=st.lists(st.integers(-100, 100), max_size=6), rows=st.integers(0, 12))
def test_tensors_repeat_the_last_value(values: list[int], rows: int) -> None:
    """A short list goes on with its last value, an empty one means zeros, a long one is refused."""
    proto = TensorProto(dtype="DT_INT32", tensor_shape=shape(rows), int_val=values)
    if len(values) > rows:
        with pytest.raises(BadTensor):
            to_array(proto)
        return
    last = values[-1] if values else 0
    assert to_array(proto).tolist() == values + [last] * (rows - len(values))


def test_tensors_repeat_the_last_string() -> None:
    """Strings follow the same rule; an empty list means empty strings."""
    proto = TensorProto(dtype="DT_STRING", tensor_shape=shape(3), string_val=[b"a", b"b"])
    assert to_array(proto).tolist() == [b"a", b"b", b"b"]
    assert to_array(TensorProto(dtype="DT_STRING", tensor_shape=shape(2))).tolist() == [b"", b""]


def test_tensors_share_the_bytes_of_the_message() -> None:
    """Raw bytes are viewed, not copied: the array is read-only."""
    assert not to_array(from_array(np.ones((2, 2), np.float32))).flags.writeable


def test_tensors_of_bytes_arrays_are_strings() -> None:
    """numpy's fixed-length bytes are carried as strings."""
    proto = from_array(np.array([b"ab", b"c"]))
    assert list(proto.string_val) == [b"ab", b"c"]


BAD = {
    "a type that we do not carry": TensorProto(dtype="DT_COMPLEX64", tensor_shape=shape(1)),
    "no type": TensorProto(tensor_shape=shape(1)),
    "an unknown rank": TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(unknown_rank=True)),
    "a negative dimension": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(-1)),
    "two negative dimensions": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(-1, -1), float_val=[1]),
    "content too short": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2), tensor_content=b"1234"),
    "content too long": TensorProto(dtype="DT_UINT8", tensor_shape=shape(3), tensor_content=b"1234"),
    "strings as raw bytes": TensorProto(dtype="DT_STRING", tensor_shape=shape(1), tensor_content=b"1"),
    "a value out of range": TensorProto(dtype="DT_UINT8", tensor_shape=shape(1), int_val=[300]),
    "a negative value of an unsigned type": TensorProto(dtype="DT_UINT8", tensor_shape=shape(1), int_val=[-1]),
    "one value for terabytes": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2**20, 2**20), float_val=[1]),
    "a product that would overflow": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2**62, 2**62)),
    "a huge dimension beside an empty one": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2**62, 0)),
    "too many dimensions": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(*[1] * 65)),
    "many empty strings": TensorProto(dtype="DT_STRING", tensor_shape=shape(2**30)),
    "one value for 20 million": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(20_000_000), float_val=[1]),
    "nothing for 20 million": TensorProto(dtype="DT_UINT8", tensor_shape=shape(20_000_000)),
}


@pytest.mark.parametrize("proto", BAD.values(), ids=BAD.keys())
def test_tensors_refuse_what_does_not_fit(proto: TensorProto) -> None:
    """What a message cannot mean is refused before memory is taken for it."""
    with pytest.raises(BadTensor):
        to_array(proto)


def test_tensors_keep_the_limit_that_the_caller_sets() -> None:
    """A limit below the default holds."""
    proto = from_array(np.zeros(100, np.uint8))
    assert to_array(proto, bytes_max=100).size == 100
    with pytest.raises(BadTensor):
        to_array(proto, bytes_max=99)


def test_tensors_make_bools_of_any_byte() -> None:
    """A bool byte other than 0 and 1 is true, not something in between."""
    proto = TensorProto(dtype="DT_BOOL", tensor_shape=shape(3), tensor_content=b"\x00\x01\x07")
    assert to_array(proto).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U4"])
def test_tensors_refuse_numpy_types_without_a_form(dtype: str) -> None:
    """Complex numbers, dates and text are not carried."""
    with pytest.raises(BadTensor):
        from_array(np.zeros(1, np.dtype(dtype)))


@pytest.mark.parametrize(("dtype", "name"), [("f4", "float"), ("u1", "uint8"), ("O", "string"), ("?", "bool")])
def test_tensors_name_types_as_tensorflow_does(dtype: str, name: str) -> None:
    """The names in error texts are TensorFlow's."""
    number: Any = type_of(np.dtype(dtype))
    assert type_name(number) == name
