"""
JSON values as tensors and back, by TensorFlow Serving's rules.

Nested lists are a tensor whose shape the first elements say; every other element must agree. Numbers are never cast
across kinds: a fraction is no integer, an integer that a float cannot hold exactly is refused. Lists are handled level
by level, so that the work per element is done in C. Messages say what is wrong and where, never the value: TensorFlow
Serving repeats it, which would put pixels into the logs of whoever logs errors.
"""

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.tensors import RANK_MAX, Array, type_name, type_of

Shape = tuple[int, ...]

_JSON_TYPES: dict[type, str] = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


def json_type(value: object) -> str:
    """Return the JSON type of a parsed value, as TensorFlow Serving names it."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return _JSON_TYPES[type(value)]


def is_base64(value: object) -> bool:
    """Whether *value* is the form of binary data: an object with the one key `b64`, which is text."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def shape_of_value(value: Any) -> Shape:
    """
    Return the shape that the first elements of *value* say; what is no list is a scalar.

    Raises:
        Refused: INVALID_ARGUMENT; nested more deeply than a tensor can be.
    """
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > RANK_MAX:
            raise invalid_argument(f"Encountered list at unexpected level: {RANK_MAX} expected < {RANK_MAX}")
        if not value:
            break
        value = value[0]
    return tuple(shape)


def array_from(value: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """
    Return *value* as an array of *shape*.

    Raises:
        Refused: INVALID_ARGUMENT; lists of other sizes or depths, more of them than a tensor can have dimensions, or
            an element that the type does not take.
    """
    if len(shape) > RANK_MAX:
        raise invalid_argument(f"Encountered list at unexpected level: {RANK_MAX} expected < {RANK_MAX}")
    leaves = _leaves(value, shape)
    return _READERS[dtype.kind](leaves, dtype).reshape(shape)


def _leaves(value: Any, shape: Shape) -> list[Any]:
    """
    Return the elements in order.

    Raises:
        Refused: INVALID_ARGUMENT; a list is not where the shape has one, or is where it has none, or has another size.
    """
    level: list[Any] = [value]
    for depth, size in enumerate(shape):
        if set(map(type, level)) - {list}:
            raise invalid_argument(
                f"JSON Value: ... found at incorrect level: {depth + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        for other in set(map(len, level)) - {size}:
            raise invalid_argument(
                f"Encountered list at unexpected size: {other} at level: {depth} expected size: {size}"
            )
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return level


def _expect(leaves: Sequence[Any], kinds: set[type], dtype: np.dtype[Any]) -> None:
    """
    Hold every element to the Python types that *dtype* is made from.

    Raises:
        Refused: INVALID_ARGUMENT, naming the JSON type of the first that is none of them.
    """
    if set(map(type, leaves)) <= kinds:
        return
    wrong = next(value for value in leaves if type(value) not in kinds)
    raise _type_error(wrong, dtype)


def _type_error(value: Any, dtype: np.dtype[Any]) -> Refused:
    return invalid_argument(
        f"JSON Value: ... Type: {json_type(value)} is not of expected type: {type_name(type_of(dtype))}"
    )


def _floats(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """
    Read numbers as floats.

    Raises:
        Refused: INVALID_ARGUMENT; no number, or one that the type cannot hold (NaN and the infinities it can).
    """
    _expect(leaves, {int, float}, dtype)
    try:
        wide = np.array(leaves, dtype=np.float64)
    except OverflowError as exc:
        raise _lossy(dtype) from exc
    # An integer is held exactly up to the width of the mantissa, the implicit bit included.
    exact_max = 2 ** (np.finfo(dtype).nmant + 1) - 1
    if any(type(leaves[at]) is int for at in np.flatnonzero(np.abs(wide) > exact_max)):
        raise _lossy(dtype)
    with np.errstate(over="ignore"):
        array: Array = wide.astype(dtype)
    if np.any(np.isinf(array) & np.isfinite(wide)):
        raise _lossy(dtype)
    return array


def _lossy(dtype: np.dtype[Any]) -> Refused:
    return invalid_argument(f"Cannot convert JSON value: ... to {type_name(type_of(dtype))} without loss of precision.")


def _integers(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """
    Read integers.

    Raises:
        Refused: INVALID_ARGUMENT; no integer, or one out of the type's range.
    """
    _expect(leaves, {int}, dtype)
    limits = np.iinfo(dtype)
    if leaves and not limits.min <= min(leaves) <= max(leaves) <= limits.max:
        raise _type_error(0, dtype)
    return np.array(leaves, dtype=dtype)


def _truths(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """
    Read truth values.

    Raises:
        Refused: INVALID_ARGUMENT; another type.
    """
    _expect(leaves, {bool}, dtype)
    return np.array(leaves, dtype=dtype)


def _strings(leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    """
    Read strings: text, or binary data in its base64 form.

    Raises:
        Refused: INVALID_ARGUMENT; another type, or no base64.
    """
    _expect(leaves, {str, dict}, dtype)
    array = np.empty(len(leaves), dtype=np.object_)
    array[:] = [_decoded(value) if isinstance(value, dict) else _utf8(value) for value in leaves]
    return array


def _utf8(text: str) -> bytes:
    # JSON may escape half a surrogate pair, which is no character; it stays what it was, in three bytes.
    return text.encode("utf-8", "surrogatepass")


def _decoded(value: Any) -> bytes:
    """
    Return the bytes of a `b64` object; padding may be left out.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not is_base64(value):
        raise invalid_argument("JSON Value: ... not formatted correctly for base64 data")
    text: str = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise invalid_argument("Unable to base64 decode") from exc


def bytes_of(value: str | dict[str, str]) -> bytes:
    """
    Return a string value, text or base64, as bytes.

    Raises:
        Refused: INVALID_ARGUMENT; no base64.
    """
    return _utf8(value) if isinstance(value, str) else _decoded(value)


_READERS: dict[str, Callable[[list[Any], np.dtype[Any]], Array]] = {
    "f": _floats,
    "i": _integers,
    "u": _integers,
    "b": _truths,
    "O": _strings,
}


def value_of(array: Array, *, as_bytes: bool) -> Any:
    """
    Return *array* as nested lists, or as a bare value if it is a scalar.

    Args:
        array: any shape; strings as bytes.
        as_bytes: write strings in their base64 form.
    """
    flat = array.ravel().tolist()
    if array.dtype.kind == "f":
        flat = [decimal(value, array.dtype) for value in flat]
    elif array.dtype.kind in "OS":
        flat = [_written(value, as_bytes=as_bytes) for value in flat]
    # An array of objects nests whatever its elements are, also around dimensions of zero.
    nested = np.empty(array.size, dtype=np.object_)
    nested[:] = flat
    return nested.reshape(array.shape).tolist()


def decimal(value: float, dtype: np.dtype[Any]) -> float:
    """Return the number whose digits say *value* and no more: six where they suffice, else as many as the type has."""
    if not math.isfinite(value):
        return value
    short = float(f"{value:.6g}")
    if dtype.type(short) == dtype.type(value):
        return short
    return value if dtype.itemsize == 8 else float(f"{value:.9g}")


def _written(value: bytes, *, as_bytes: bool) -> str | dict[str, str]:
    if as_bytes:
        return {"b64": base64.b64encode(value).decode("ascii")}
    # Bytes that are no UTF-8 go out as they are, as TensorFlow Serving has it; see rest_json.written.
    return value.decode("utf-8", "surrogateescape")
