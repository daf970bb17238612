"""The documents of the REST API: what a predict request says, and how its answer is written; pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from serving.modelserver.refusals import Refused, invalid_argument
from serving.modelserver.rest_tensors import array_from, is_base64, shape_of_value, value_of
from serving.tfs.signatures import Signature
from serving.tfs.tensors import Array

Document = dict[str, Any]

BYTES_SUFFIX = "_bytes"
"""Outputs whose name ends so are binary, and are answered in base64."""

NESTS_MAX = 4_000_000
"""
Lists of a document, an object counting for four: as Python's objects two bytes of brackets take eighty of memory.

Fifty images of 224 by 224 pixels, each a list of three numbers, are two and a half million.
"""

EXPLAINED_MAX = 1024
"""Of how many instances the wrong one is looked for, so that a refusal is not the most expensive answer."""


def parse(body: bytes) -> Document:
    """
    Parse a request's body; NaN, Infinity and -Infinity are numbers.

    Raises:
        Refused: INVALID_ARGUMENT; it is no JSON, or no object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if body.count(b"[") + 4 * body.count(b"{") > NESTS_MAX:
        raise invalid_argument(f"JSON Parse error: more than {NESTS_MAX} lists")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        raise invalid_argument(f"JSON Parse error: {exc.msg} at offset: {exc.pos}") from exc
    except (ValueError, RecursionError) as exc:
        # No UTF-8, an integer of thousands of digits, or lists nested a thousand deep.
        raise invalid_argument("JSON Parse error: Invalid value.") from exc
    if not isinstance(document, dict):
        raise invalid_argument("JSON Value: ... Is not object")
    return document


def written(document: object) -> bytes:
    """Write an answer; bytes that were no UTF-8 in a string output leave as they came out of the model."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def error(text: str) -> bytes:
    """Write a refusal."""
    return json.dumps({"error": text}).encode()


def signature_name(document: Document) -> str:
    """
    Return the signature that a request names, "" for the default.

    Raises:
        Refused: INVALID_ARGUMENT; it is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument("JSON Value: ... not formatted correctly. 'signature_name' key must be a string value.")
    return name


def by_rows(document: Document) -> bool:
    """Whether a request gives its tensors as rows; its answer is given as they are."""
    return "instances" in document


def read_inputs(document: Document, signature: Signature) -> dict[str, Array]:
    """
    Return the tensors of a predict request: a list of `instances`, or `inputs` by column.

    Raises:
        Refused: INVALID_ARGUMENT, in TensorFlow Serving's words, less the values.
    """
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            "JSON Value: ... Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return _instances(document["instances"], signature)
    if "inputs" in document:
        return _columns(document["inputs"], signature)
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _instances(instances: Any, signature: Signature) -> dict[str, Array]:
    """
    Read the row form: plain elements for the one input, or objects with a key per input.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not isinstance(instances, list):
        raise invalid_argument("JSON Value: ... Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("JSON Value: ... No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(signature.inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_named(instances[0])
    for at, each in enumerate(instances):
        if _is_named(each) is not named:
            kinds = ("object", "list") if named else ("value/list", "object")
            raise invalid_argument(f"Expecting {kinds[0]} but got {kinds[1]} at item {at} of input list")
    if not named:
        alias = next(iter(signature.inputs))
        return {alias: _rows(instances, signature.inputs[alias].dtype)}
    _check_keys(instances, sorted(signature.inputs))
    return {
        alias: _rows([each[alias] for each in instances], spec.dtype, alias) for alias, spec in signature.inputs.items()
    }


def _check_keys(instances: Iterable[Mapping[str, object]], aliases: list[str]) -> None:
    """
    Hold every instance to the signature's inputs.

    Raises:
        Refused: INVALID_ARGUMENT; a key is missing or unknown.
    """
    wanted = set(aliases)
    for at, each in enumerate(instances):
        for alias in each.keys() - wanted:
            raise invalid_argument(
                f"Failed to process element: {at} key: {alias} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON object: does not have named input: {alias}"
            )
        if each.keys() != wanted:
            raise invalid_argument(
                f"Failed to process element: {at} of 'instances' list. JSON object: ... keys must be equal to: "
                f"{','.join(aliases)}"
            )


def _rows(column: list[Any], dtype: np.dtype[Any], alias: str = "") -> Array:
    """
    Lay the instances of one input on top of each other; the first says what shape each has.

    Raises:
        Refused: INVALID_ARGUMENT, naming the instance that does not fit.
    """
    shape = shape_of_value(column[0])
    try:
        return array_from(column, (len(column), *shape), dtype)
    except Refused:
        for at, item in enumerate(column[:EXPLAINED_MAX]):
            if wrong := _wrong_instance(item, shape, dtype):
                key = f" key: {alias}" if alias else ""
                raise invalid_argument(
                    f"Failed to process element: {at}{key} of 'instances' list. Error: INVALID_ARGUMENT: {wrong}"
                ) from None
        raise


def _wrong_instance(item: Any, expected: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """Say what is wrong with one instance, or None."""
    shape = shape_of_value(item)
    try:
        size = array_from(item, shape, dtype).size
    except Refused as exc:
        return exc.details
    wanted = int(np.prod(expected))
    if size != wanted:
        return f"Expecting tensor size: {wanted} but got: {size}"
    return None if shape == expected else f"Expecting shape {_shape(expected)} but got: {_shape(shape)}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _columns(given: Any, signature: Signature) -> dict[str, Array]:
    """
    Read the column form: the value of the one input, or an object with a key per input; other keys are ignored.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not _is_named(given):
        if len(signature.inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        given = dict.fromkeys(signature.inputs, given)
    for alias in sorted(signature.inputs.keys() - given.keys()):
        raise invalid_argument(f"Missing named input: {alias} in 'inputs' object.")
    return {
        alias: array_from(given[alias], shape_of_value(given[alias]), spec.dtype)
        for alias, spec in signature.inputs.items()
    }


def predictions(outputs: Mapping[str, Array], *, rows: bool) -> Document:
    """
    Return the answer to a predict request in the form of its question; an only output stands without its name.

    Raises:
        Refused: INVALID_ARGUMENT; rows were asked for, and an output has none, or another number of them.
    """
    if not rows:
        columns = {alias: _value(alias, array) for alias, array in outputs.items()}
        return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
    _check_rows(outputs)
    values = {alias: _value(alias, array) for alias, array in outputs.items()}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _check_rows(outputs: Mapping[str, Array]) -> None:
    """
    Hold all outputs to one number of rows.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    size = None
    for alias, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if size is not None and array.shape[0] != size:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]} expecting: {size}"
            )
        size = array.shape[0]


def _value(alias: str, array: Array) -> Any:
    return value_of(array, as_bytes=array.dtype.kind in "OS" and alias.endswith(BYTES_SUFFIX))
