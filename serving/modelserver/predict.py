"""What a PredictRequest asks for, checked against the model's signature before anything runs; pure."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import grpc

from serving.modelserver.backend import LoadedModel
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.protos import PredictRequest, PredictResponse, TensorProto
from serving.tfs.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.tfs.tensors import RANK_MAX, Array, BadTensor, from_array, to_array

VALUES_AT_ONCE = 4096
"""Elements of typed lists that may be turned into an array, or back, on the event loop (well under a millisecond)."""


RANK_HELD = 3
"""Declared dimensions from which on the rank is held in any case."""

UNEQUAL_ROWS = "Batching session Run() input tensors must have equal 0th-dimension size"
NO_ROWS = "Batching session Run() input tensors must have at least one dimension"


@dataclass(frozen=True)
class Question:
    """A request that the model can run: which signature on what, and which of its outputs to answer."""

    signature: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    rows: int
    batched: bool
    """Whether its rows may run together with those of others."""


def read_question(request: PredictRequest, model: LoadedModel) -> Question:
    """
    Check *request* in TensorFlow Serving's order and return what it asks.

    Raises:
        Refused: with TensorFlow Serving's code and text.
    """
    name, signature = signature_of(model, request.model_spec.signature_name)
    check_names(set(request.inputs), signature)
    inputs = {alias: _array(alias, request.inputs[alias]) for alias in signature.inputs}
    return question(model, name, inputs, request.output_filter)


def signature_of(model: LoadedModel, name: str) -> tuple[str, Signature]:
    """
    Return the signature that is asked for, and its name; an empty name is the default's.

    Raises:
        Refused: FAILED_PRECONDITION; the model has none of that name.
    """
    name = name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return name, signature


def question(
    model: LoadedModel, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
) -> Question:
    """
    Check arrays against a signature and return the question that they make; every door comes through here.

    Raises:
        Refused: with TensorFlow Serving's code and text.
    """
    name, signature = signature_of(model, signature_name)
    check_names(set(inputs), signature)
    outputs = _outputs(output_filter, signature)
    _check_arrays(inputs, signature, exact=model.exact_shapes)
    rows = _rows(inputs) if signature.batched else None
    if rows is None and signature.batched and model.exact_shapes:
        raise invalid_argument(UNEQUAL_ROWS)
    return Question(name, inputs, outputs, 1 if rows is None else rows, batched=rows is not None)


def answer(
    request: PredictRequest, version: int, question: Question, outputs: Mapping[str, Array], *, typed: bool
) -> PredictResponse:
    """Return the response: the model, the version and the signature that really answered, and the outputs asked for."""
    response = PredictResponse(outputs={alias: from_array(outputs[alias], typed=typed) for alias in question.outputs})
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.model_spec.signature_name = question.signature
    return response


def is_heavy(request: PredictRequest) -> bool:
    """Whether reading the tensors takes long enough to be done off the event loop."""
    return any(not tensor.tensor_content and _elements(tensor) > VALUES_AT_ONCE for tensor in request.inputs.values())


def _elements(tensor: TensorProto) -> int:
    """Return the number of elements; 0 for what is refused unread, since a product of a million sizes takes hours."""
    dims = tensor.tensor_shape.dim
    return math.prod(max(0, dim.size) for dim in dims) if len(dims) <= RANK_MAX else 0


def check_names(sent: Set[str], signature: Signature) -> None:
    """
    Compare the inputs' names with the signature's.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    wanted = set(signature.inputs)
    if len(sent) != len(wanted):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_set(sent)}) != len({_set(wanted)}). "
            f"Sent extra: {_set(sent - wanted)}. Missing but required: {_set(wanted - sent)}."
        )
    for alias in sorted(wanted - sent):
        raise invalid_argument(
            f"Signature input alias: {alias} not found in request. Inputs expected to be in the set {_set(wanted)}."
        )


def _set(names: Set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _array(alias: str, tensor: TensorProto) -> Array:
    """
    Read one input.

    Raises:
        Refused: INVALID_ARGUMENT; its type, shape and content do not fit each other.
    """
    try:
        return to_array(tensor)
    except BadTensor as exc:
        raise invalid_argument(f"tensor parsing error: {alias}") from exc


def _outputs(output_filter: Sequence[str], signature: Signature) -> tuple[str, ...]:
    """
    Return the outputs to answer: those of the filter, or all.

    Raises:
        Refused: INVALID_ARGUMENT; an unknown or doubled name.
    """
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(set(signature.outputs))}."
            )
        if alias in chosen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return tuple(chosen or signature.outputs)


def _check_arrays(inputs: Mapping[str, Array], signature: Signature, *, exact: bool) -> None:
    """
    Hold every input to its element type and shape, so that no kernel ever sees a tensor that it could choke on.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    for alias, array in inputs.items():
        spec = signature.inputs[alias]
        wrong = spec.wrong_type(array) or (spec.wrong_shape(array) if exact else _wrong_rank(array, spec))
        if wrong:
            raise invalid_argument(wrong)
        if exact and array.size == 0:
            raise invalid_argument(f"input {alias} has no elements")


def _wrong_rank(array: Array, spec: TensorSpec) -> str | None:
    """
    Say what is wrong with the rank of *array*, or None.

    A convolution of TensorFlow's ends the process when it gets a tensor of rank 3 (tensorflow#111453). Below three
    declared dimensions there is no such kernel, and clients are served whose shapes differ from the declared ones.
    """
    if spec.shape is None or len(spec.shape) < RANK_HELD or array.ndim == len(spec.shape):
        return None
    return f"Shape mismatch: actual {list(array.shape)} vs. expect {list(spec.shape)}"


def _rows(inputs: Mapping[str, Array]) -> int | None:
    """Return the size of the batch that all inputs share; None where they differ, or one has no dimensions."""
    sizes = {array.shape[0] if array.ndim else None for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None
