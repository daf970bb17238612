"""
The Open Inference Protocol, version 2, whatever carries it: tensors in, tensors out, and nothing is stored.

A model takes one tensor, `image`, as its contract says, and gives `probability` and `ood_score`. What a client sends is
checked here against that contract: a model server may abort on a tensor of another rank, and take other requests with
it.

Source: kserve/open-inference-protocol, specification/protocol (REST and gRPC).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from gateway.calls import PROBLEMS_BY_CODE, Calls
from gateway.contracts import BadScores, Contract, InputSpec
from gateway.images import Pixels
from gateway.predictor import Predictor
from gateway.problems import BadTensor, ModelUnavailable, UnknownVersion
from gateway.served import ServedModel, ServedVersion
from healthguard.health import Health
from healthguard.problems import InvalidRequest, Problem
from healthguard.tokens import Caller

NAME = "healthguard"
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "tensorflow_savedmodel"

INPUT = "image"
OUTPUTS = ("probability", "ood_score")
BATCH_MAX = 32
"""Pictures in one request."""

# Here the tensor is the client's, and so is the mistake.
PROBLEMS: Mapping[grpc.StatusCode, type[Problem]] = dict(PROBLEMS_BY_CODE) | {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest
}

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class SentTensor:
    """An input as it came: its values as raw little-endian bytes, or as numbers, flat or nested."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes | memoryview | Sequence[Any]


@dataclass(frozen=True)
class Question:
    """What a client asks of a model."""

    inputs: Sequence[SentTensor]
    outputs: Sequence[str] = ()
    """The outputs that it wants; none named: all."""
    version: int | None = None
    """None: whichever version answers at the moment."""


@dataclass(frozen=True)
class TensorKind:
    """What a model's metadata say of one tensor; -1 is any number of pictures."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inferred:
    """What a version answered: float32[pictures] for each output that was asked for."""

    model: str
    version: int
    outputs: Mapping[str, Scores]


def inputs_of(contract: Contract) -> list[TensorKind]:
    """Return what a version takes."""
    return [TensorKind(INPUT, "UINT8", (-1, contract.input.height, contract.input.width, 3))]


def outputs_of(_contract: Contract) -> list[TensorKind]:
    """Return what a version gives."""
    return [TensorKind(name, "FP32", (-1,)) for name in OUTPUTS]


def version_named(version: str) -> int | None:
    """
    Return the version that a request names; None where it names none.

    Raises:
        UnknownVersion: it is no number, as versions are.
    """
    if not version:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise UnknownVersion
    return int(version)


def pictures_of(inputs: Sequence[SentTensor], spec: InputSpec) -> Pixels:
    """
    Return the pictures that a request carries.

    Returns:
        uint8[pictures, height, width, 3], 1..`BATCH_MAX` pictures.

    Raises:
        BadTensor: there is another tensor, or one of another type, rank, shape or length than the model takes.
    """
    if [tensor.name for tensor in inputs] != [INPUT]:
        raise BadTensor(f"The model takes one input, named {INPUT}.")
    sent, row = inputs[0], (spec.height, spec.width, 3)
    if sent.datatype != "UINT8" or len(sent.shape) != 4 or sent.shape[1:] != row:
        raise BadTensor(f"The input is UINT8 of shape [-1, {row[0]}, {row[1]}, 3].")
    if not 1 <= sent.shape[0] <= BATCH_MAX:
        raise BadTensor(f"A request holds 1 to {BATCH_MAX} pictures.")
    if isinstance(sent.content, bytes | memoryview):
        if len(sent.content) != math.prod(sent.shape):
            raise BadTensor("The input's bytes are not as many as its shape says.")
        return np.frombuffer(sent.content, dtype=np.uint8).reshape(sent.shape)
    return _from_numbers(sent.content, sent.shape)


def _from_numbers(values: Sequence[Any], shape: tuple[int, ...]) -> Pixels:
    """
    Return numbers as an array of *shape*.

    Raises:
        BadTensor: they are not as many, not nested so, no whole numbers, or not between 0 and 255.
    """
    try:
        array = np.asarray(values) if isinstance(values, list) else np.fromiter(values, np.int64, len(values))
    # Of ragged lists; of numbers too long for any type.
    except (ValueError, OverflowError, TypeError) as exc:
        raise BadTensor("The input's values form no tensor.") from exc
    if array.dtype.kind not in "iu" or array.size != math.prod(shape) or (array.ndim != 1 and array.shape != shape):
        raise BadTensor("The input's values are not whole numbers, or not as many as its shape says.")
    if array.min() < 0 or array.max() > 255:
        raise BadTensor("The input's values lie between 0 and 255.")
    return array.astype(np.uint8).reshape(shape)


class OpenInference:
    """Answers the protocol's questions about the served models."""

    def __init__(self, health: Health, models: Mapping[str, ServedModel], calls: Calls, predictor: Predictor) -> None:
        self.models = models
        self._health = health
        self._calls = calls
        self._predictor = predictor

    async def ready(self) -> bool:
        """Tell whether requests should come here and every model can be asked."""
        return self._health.takes_requests() and all(_available(model) for model in self.models.values())

    def contract(self, model: ServedModel, version: int | None) -> Contract:
        """
        Return what a version says of itself; None: the stable one.

        Raises:
            UnknownVersion: it is not declared here.
            ModelUnavailable: it is loading or away.
        """
        return self._version(model, model.stable if version is None else version)[1]

    async def infer(
        self, model: ServedModel, question: Question, *, caller: Caller | None, deadline: float
    ) -> Inferred:
        """
        Ask a version.

        Args:
            deadline: by the event loop's clock.

        Raises:
            BadTensor: the inputs are not what the model takes, or an output is asked for that it does not give.
            UnknownVersion: the version is not declared here.
            InvalidRequest: the model server refused the tensor.
            Overloaded, ModelUnavailable, PredictionTimeout, InternalError: as `Predictor.predict`.
        """
        async with self._calls.admitted(model, deadline, PROBLEMS) as attempt:
            if question.version is None:
                version, contract = model.answering(self._predictor.draw(model, caller))
            else:
                version, contract = self._version(model, question.version)
            attempt.version = version.number
            if unknown := set(question.outputs) - set(OUTPUTS):
                raise BadTensor(f"{len(unknown)} of the outputs asked for the model does not give.")
            rows = pictures_of(question.inputs, contract.input)
            answer = await self._calls.call(attempt, version, contract, "serving_default", {INPUT: rows})
            outputs = {name: _scores(answer.outputs, name, len(rows)) for name in question.outputs or OUTPUTS}
        return Inferred(model.name, version.number, outputs)

    def _version(self, model: ServedModel, number: int) -> tuple[ServedVersion, Contract]:
        if number not in model.versions:
            raise UnknownVersion
        return model.version(number)


def _available(model: ServedModel) -> bool:
    try:
        model.contract()
    except ModelUnavailable:
        return False
    return True


def _scores(outputs: Mapping[str, NDArray[Any]], name: str, count: int) -> Scores:
    """
    Return one output of *count* pictures.

    Raises:
        BadScores: it is missing, or not a number for each.
    """
    found = outputs.get(name)
    if found is None or found.shape != (count,) or found.dtype != np.float32:
        raise BadScores
    return found
