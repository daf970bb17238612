"""What a PredictRequest asks for, checked against the model's signature before anything runs; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.protos import PredictRequest, PredictResponse, TensorProto
from serving.tfs.signatures import DEFAULT_SIGNATURE, Signature
from serving.tfs.tensors import Array, BadTensor, from_array, to_array

VALUES_AT_ONCE = 4096
"""Elements of typed lists that may be turned into an array on the event loop (well under a millisecond)."""


@dataclass(frozen=True)
class Question:
    """A request that the model can run: which signature on what, and which of its outputs to answer."""

    signature: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    rows: int
    batched: bool
    """Whether its rows may run together with those of others."""


def read_question(request: PredictRequest, signatures: Mapping[str, Signature]) -> Question:
    """
    Check *request* in TensorFlow Serving's order and return what it asks.

    Raises:
        Refused: with TensorFlow Serving's code and text.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = signatures.get(name)
    if signature is None:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    _check_names(request, signature)
    inputs = {alias: _array(alias, request.inputs[alias]) for alias in signature.inputs}
    outputs = _outputs(request, signature)
    _check_arrays(inputs, signature)
    rows = _rows(inputs) if signature.batched else 1
    return Question(name, inputs, outputs, rows, signature.batched)


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
    count = 1
    for dim in tensor.tensor_shape.dim:
        count *= max(0, dim.size)
    return count


def _check_names(request: PredictRequest, signature: Signature) -> None:
    """
    Compare the inputs' names with the signature's.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    sent, wanted = set(request.inputs), set(signature.inputs)
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


def _set(names: set[str]) -> str:
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


def _outputs(request: PredictRequest, signature: Signature) -> tuple[str, ...]:
    """
    Return the outputs to answer: those of the filter, or all.

    Raises:
        Refused: INVALID_ARGUMENT; an unknown or doubled name.
    """
    chosen: list[str] = []
    for alias in request.output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(set(signature.outputs))}."
            )
        if alias in chosen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return tuple(chosen or signature.outputs)


def _check_arrays(inputs: Mapping[str, Array], signature: Signature) -> None:
    """
    Hold every input to its element type and shape, so that no kernel ever sees a tensor that it could choke on.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    for alias, array in inputs.items():
        spec = signature.inputs[alias]
        wrong = spec.wrong_type(array) or spec.wrong_shape(array)
        if wrong:
            raise invalid_argument(wrong)
        if array.size == 0:
            raise invalid_argument(f"input {alias} has no elements")


def _rows(inputs: Mapping[str, Array]) -> int:
    """
    Return the size of the batch, which all inputs share.

    Raises:
        Refused: INVALID_ARGUMENT; they differ.
    """
    sizes: set[int] = {array.shape[0] for array in inputs.values()}
    if len(sizes) != 1:
        raise invalid_argument("Batching session Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()
