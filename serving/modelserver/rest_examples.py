"""Classify and Regress over REST: JSON objects as `tf.Example`s, and their answers; pure."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from serving.modelserver.backend import LoadedModel
from serving.modelserver.examples import CLASSIFY, REGRESS, Method, classification, read_examples, regression
from serving.modelserver.predict import Question
from serving.modelserver.refusals import invalid_argument
from serving.modelserver.rest_json import Document, signature_name
from serving.modelserver.rest_paths import What
from serving.modelserver.rest_tensors import bytes_of, decimal, is_base64, json_type
from serving.tfs.protos import Example, Feature, Input
from serving.tfs.tensors import Array

FLOAT = np.dtype("<f4")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Reader = Callable[[LoadedModel], Question]
Shown = Callable[[int, Mapping[str, Array]], Document]


def read_request(what: What, document: Document, *, check_method: bool) -> tuple[Method, Reader, Shown]:
    """
    Return the method of a request, how to ask a model, and how to write the answer.

    Raises:
        Refused: INVALID_ARGUMENT; the document is no list of examples.
    """
    method = CLASSIFY if what == "classify" else REGRESS
    name, given = signature_name(document), examples(document)

    def read(model: LoadedModel) -> Question:
        return read_examples(model, method, name, given, check_method=check_method)

    return method, read, classified if method is CLASSIFY else regressed


def examples(document: Document) -> Input:
    """
    Return the examples of a request, with the context that they share, if there is one.

    Raises:
        Refused: INVALID_ARGUMENT, in TensorFlow Serving's words, less the values.
    """
    given = Input()
    target: Any = given.example_list
    if "context" in document:
        target = given.example_list_with_context
        target.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise invalid_argument("JSON Value: ... When method is classify, key 'examples' is expected and was not found")
    if not isinstance(document["examples"], list):
        raise invalid_argument("JSON Value: ... Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise invalid_argument("JSON Value: ... 'examples' value is an empty array")
    target.examples.extend(_example(value) for value in document["examples"])
    return given


def _example(value: Any) -> Example:
    """
    Turn an object into an example, a feature per key.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, content in value.items():
        _fill(example.features.feature[name], name, content if isinstance(content, list) else [content])
    return example


def _fill(feature: Feature, name: str, values: list[Any]) -> None:
    """
    Write *values*, all of one kind, into a feature.

    Raises:
        Refused: INVALID_ARGUMENT; a value that no feature holds, or of another kind than the first.
    """
    kinds = [_kind(name, value) for value in values]
    for other in set(kinds) - set(kinds[:1]):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {kinds[0] or other}")
    if not values:
        return
    if kinds[0] == "bytes":
        feature.bytes_list.value.extend(bytes_of(value) for value in values)
    elif kinds[0] == "float":
        if any(abs(value) > np.finfo(FLOAT).max and np.isfinite(value) for value in values):
            raise invalid_argument("Cannot convert JSON value: ... to float without loss of precision.")
        feature.float_list.value.extend(values)
    else:
        if not INT64_MIN <= min(values) <= max(values) <= INT64_MAX:
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        feature.int64_list.value.extend(int(value) for value in values)


def _kind(name: str, value: Any) -> str:
    """
    Return which list of a feature holds *value*.

    Raises:
        Refused: INVALID_ARGUMENT; none.
    """
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, int):
        # Truth values among them: they become 0 and 1.
        return "int64"
    if isinstance(value, float):
        return "float"
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def classified(count: int, outputs: Mapping[str, Array]) -> Document:
    """
    Return the answer to classify: for each example its classes, each a label and a score.

    Raises:
        Refused: INVALID_ARGUMENT; the model gave no classes.
    """
    result = classification(count, outputs)
    return {
        "results": [
            [[each.label, decimal(each.score, FLOAT)] for each in row.classes] for row in result.classifications
        ]
    }


def regressed(count: int, outputs: Mapping[str, Array]) -> Document:
    """
    Return the answer to regress: a number for each example.

    Raises:
        Refused: INVALID_ARGUMENT; the model gave no numbers.
    """
    return {"results": [decimal(each.value, FLOAT) for each in regression(count, outputs).regressions]}
