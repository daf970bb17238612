"""
Turn numpy arrays into TensorProto and back, with TensorFlow's meaning of every field.

A TensorProto carries its values either as raw bytes (`tensor_content`) or in a typed list (`float_val` and so on),
where a short list repeats its last value and an empty one means zeros. Because one value may stand for a whole tensor,
a message of a few bytes can ask for any amount of memory: the size is checked before anything is made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.tfs.protos import DataType, TensorProto, TensorShapeProto

Array = NDArray[Any]

BYTES_MAX = 256 * 1024 * 1024
FILLED_BYTES_MAX = 16 * 1024 * 1024
"""
Largest tensor of which a message carries only a part, which is repeated to the end.

What is sent whole costs the sender as much as the receiver. This does not: a dozen messages of twenty bytes each would
fill the memory.
"""
RANK_MAX = 64
"""numpy's limit of the number of dimensions; TensorFlow's is 254."""


class BadTensor(ValueError):
    """A TensorProto that says something impossible: sizes that do not fit, a type that cannot be carried."""


@dataclass(frozen=True)
class Kind:
    """One element type: its numpy type (little-endian, as on the wire) and the typed list that carries it."""

    dtype: np.dtype[Any]
    values: str


_KINDS: dict[int, Kind] = {
    DataType.DT_FLOAT: Kind(np.dtype("<f4"), "float_val"),
    DataType.DT_DOUBLE: Kind(np.dtype("<f8"), "double_val"),
    DataType.DT_INT8: Kind(np.dtype("i1"), "int_val"),
    DataType.DT_INT16: Kind(np.dtype("<i2"), "int_val"),
    DataType.DT_INT32: Kind(np.dtype("<i4"), "int_val"),
    DataType.DT_INT64: Kind(np.dtype("<i8"), "int64_val"),
    DataType.DT_UINT8: Kind(np.dtype("u1"), "int_val"),
    DataType.DT_UINT16: Kind(np.dtype("<u2"), "int_val"),
    DataType.DT_UINT32: Kind(np.dtype("<u4"), "uint32_val"),
    DataType.DT_UINT64: Kind(np.dtype("<u8"), "uint64_val"),
    DataType.DT_HALF: Kind(np.dtype("<f2"), "half_val"),
    DataType.DT_BOOL: Kind(np.dtype("?"), "bool_val"),
    DataType.DT_STRING: Kind(np.dtype("O"), "string_val"),
}
_TYPES: dict[np.dtype[Any], int] = {kind.dtype: number for number, kind in _KINDS.items()}
_STRING_BYTES = 8
"""What one element of a string tensor costs before its text: the reference."""


def type_of(dtype: np.dtype[Any]) -> int:
    """
    Return the DataType number of a numpy type; byte strings and objects are strings.

    Raises:
        BadTensor: TensorFlow has no such type here.
    """
    number = _TYPES.get(np.dtype("O") if dtype.kind == "S" else dtype)
    if number is None:
        raise BadTensor("this numpy type has no TensorProto form")
    return number


def dtype_of(number: int) -> np.dtype[Any]:
    """
    Return the numpy type of a DataType number.

    Raises:
        BadTensor: it is not one that we carry.
    """
    kind = _KINDS.get(number)
    if kind is None:
        raise BadTensor("this DataType is not supported")
    return kind.dtype


def type_name(number: int) -> str:
    """Return a DataType as TensorFlow's messages write it: `float`, `uint8`, `int32`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower() if number in DataType.values() else str(number)


def shape_of(proto: TensorShapeProto, *, itemsize: int, bytes_max: int = BYTES_MAX) -> tuple[int, ...]:
    """
    Return the shape that *proto* says, once its size is known to be bearable.

    Raises:
        BadTensor: unknown rank, a negative dimension, or more than *bytes_max* bytes.
    """
    if proto.unknown_rank or len(proto.dim) > RANK_MAX:
        raise BadTensor("the shape is not fully known")
    shape = tuple(dim.size for dim in proto.dim)
    if any(size < 0 for size in shape):
        raise BadTensor("a dimension is negative")
    # Each dimension on its own too: beside a dimension of zero, any other size would pass the product.
    if max(shape, default=0) > bytes_max or math.prod(shape) * itemsize > bytes_max:
        raise BadTensor("the tensor is too large")
    return shape


def to_array(proto: TensorProto, *, bytes_max: int = BYTES_MAX) -> Array:
    """
    Return the array that *proto* carries; raw bytes are not copied, so the array may be read-only.

    Returns:
        An array of the proto's type and shape; strings are an object array of bytes.

    Raises:
        BadTensor: type, shape and values do not fit each other, or the tensor is larger than *bytes_max*.
    """
    kind = _KINDS.get(proto.dtype)
    if kind is None:
        raise BadTensor("this DataType is not supported")
    itemsize = _STRING_BYTES if kind.dtype.kind == "O" else kind.dtype.itemsize
    shape = shape_of(proto.tensor_shape, itemsize=itemsize, bytes_max=bytes_max)
    if proto.tensor_content:
        return _from_content(proto.tensor_content, kind, shape)
    return _from_values(getattr(proto, kind.values), kind, shape)


def _from_content(content: bytes, kind: Kind, shape: tuple[int, ...]) -> Array:
    """
    View raw bytes as an array.

    Raises:
        BadTensor: the number of bytes is not what the shape says, or strings came as raw bytes.
    """
    if kind.dtype.kind == "O":
        raise BadTensor("strings are carried in string_val")
    if len(content) != math.prod(shape) * kind.dtype.itemsize:
        raise BadTensor("the content does not fit the shape")
    if kind.dtype.kind == "b":
        # A byte other than 0 and 1 is no valid bool in numpy: any comparison with it would surprise.
        truths: Array = np.frombuffer(content, dtype=np.uint8) != 0
        return truths.reshape(shape)
    return np.frombuffer(content, dtype=kind.dtype).reshape(shape)


def _from_values(values: Sequence[Any], kind: Kind, shape: tuple[int, ...]) -> Array:
    """
    Lay a typed list out, its last value repeated to the end.

    Raises:
        BadTensor: more values than elements, far fewer, or a value that the type cannot hold.
    """
    count = math.prod(shape)
    if len(values) > count:
        raise BadTensor("more values than the shape has elements")
    if len(values) < count and count * kind.dtype.itemsize > FILLED_BYTES_MAX:
        raise BadTensor("too few values for a shape of that size")
    array = np.full(count, b"" if kind.dtype.kind == "O" else 0, dtype=kind.dtype)
    if values:
        try:
            _fill(array, values, kind)
        except (OverflowError, ValueError) as exc:
            raise BadTensor("a value is out of the type's range") from exc
    return array.reshape(shape)


def _fill(array: Array, values: Sequence[Any], kind: Kind) -> None:
    """Write *values* and the repeats of the last one into *array* (one-dimensional, at least as long)."""
    if kind.values == "half_val":
        # A half travels as its sixteen bits in an integer.
        given = np.fromiter(values, dtype=np.uint16, count=len(values)).view(np.float16)
    else:
        given = np.fromiter(values, dtype=kind.dtype, count=len(values))
    array[: len(given)] = given
    array[len(given) :] = given[-1]


def from_array(array: Array, *, typed: bool = False) -> TensorProto:
    """
    Return *array* as a TensorProto.

    Args:
        array: of any shape; strings as bytes, `S` or object.
        typed: use the typed list, as TensorFlow Serving answers unless told otherwise, instead of raw bytes.

    Raises:
        BadTensor: the element type has no TensorProto form.
    """
    number = type_of(array.dtype)
    proto = TensorProto(dtype=DataType.Name(number))
    proto.tensor_shape.dim.extend(TensorShapeProto.Dim(size=size) for size in array.shape)
    kind = _KINDS[number]
    if kind.values == "half_val" and typed:
        proto.half_val.extend(array.astype("<f2").view("<u2").ravel().tolist())
    elif typed or kind.dtype.kind == "O":
        getattr(proto, kind.values).extend(array.ravel().tolist())
    else:
        proto.tensor_content = np.ascontiguousarray(array, dtype=kind.dtype).tobytes()
    return proto
