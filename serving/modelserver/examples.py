"""
Classify, Regress and MultiInference: predictions on `tf.Example`s, whose answers are labelled; pure.

A signature serves by the names of its tensors: `inputs` takes the serialized examples, `scores` and `classes` or
`outputs` give the answer. Its method name is compared only where --enable_signature_method_name_check asks for it,
since signatures of TensorFlow 2 all say "predict".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from serving.modelserver.backend import LoadedModel
from serving.modelserver.predict import Question, question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.protos import (
    ClassificationResult,
    Classifications,
    Input,
    MultiInferenceRequest,
    RegressionResult,
)
from serving.tfs.signatures import DEFAULT_SIGNATURE, Signature
from serving.tfs.tensors import BYTES_MAX, Array, type_name, type_of

INPUTS, SCORES, CLASSES, OUTPUTS = "inputs", "scores", "classes", "outputs"


@dataclass(frozen=True)
class Method:
    """One way to ask: its names, and how TensorFlow Serving speaks of it."""

    api: str
    name: str
    noun: str


CLASSIFY = Method("Classify", "tensorflow/serving/classify", "classification")
REGRESS = Method("Regress", "tensorflow/serving/regress", "regression")


def serialized(given: Input) -> Array:
    """
    Return the examples as the strings that a graph parses; a context is the beginning of each.

    Returns:
        Bytes, object[number of examples].

    Raises:
        Refused: INVALID_ARGUMENT; there is none.
    """
    # Joining two serialized messages merges them: the way that TensorFlow Serving takes, too.
    context = b""
    if given.HasField("example_list_with_context"):
        context = given.example_list_with_context.context.SerializeToString()
        examples = given.example_list_with_context.examples
    else:
        examples = given.example_list.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    if len(context) * len(examples) > BYTES_MAX:
        # A megabyte of context before each of a hundred thousand empty examples would be a hundred gigabytes.
        raise invalid_argument(f"the context, once for each example, is larger than {BYTES_MAX} bytes")
    array = np.empty(len(examples), dtype=np.object_)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def read_examples(
    model: LoadedModel, method: Method, signature_name: str, given: Input, *, check_method: bool
) -> Question:
    """
    Check a request on examples in TensorFlow Serving's order and return what it asks.

    Raises:
        Refused: UNIMPLEMENTED where the version runs on LiteRT; otherwise TensorFlow Serving's code and text.
    """
    if model.platform != "tensorflow":
        raise Refused(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{method.api} needs the TensorFlow backend: this version runs on {model.platform}, which parses no "
            "tf.Example",
        )
    name = signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    if check_method and signature.method != method.name:
        raise invalid_argument(
            f"Expected {method.noun} signature method_name to be {method.name}. Was: {signature.method}"
        )
    outputs = _outputs(method, signature)
    return question(model, name, {INPUTS: serialized(given)}, outputs)


def _outputs(method: Method, signature: Signature) -> tuple[str, ...]:
    """
    Return the outputs that answer, once the signature has what *method* needs.

    Raises:
        Refused: INVALID_ARGUMENT or FAILED_PRECONDITION.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if method is CLASSIFY and len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if method is REGRESS and len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise _precondition(f"No {method.noun} inputs found in SignatureDef")
    known = (CLASSES, SCORES) if method is CLASSIFY else (OUTPUTS,)
    found = tuple(alias for alias in known if alias in signature.outputs)
    if not found and method is CLASSIFY:
        raise _precondition(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}"'
        )
    if not found:
        raise _precondition("No regression outputs found in SignatureDef")
    return found


def _precondition(text: str) -> Refused:
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, text)


def classification(count: int, outputs: Mapping[str, Array]) -> ClassificationResult:
    """
    Return the answer to Classify.

    Args:
        count: the number of examples.
        outputs: `scores` float32[count, classes], `classes` string[count, classes], or one of them.

    Raises:
        Refused: INVALID_ARGUMENT; the model gave something else.
    """
    classes, scores = outputs.get(CLASSES), outputs.get(SCORES)
    for alias, array, kind in ((CLASSES, classes, np.dtype("O")), (SCORES, scores, np.dtype("f4"))):
        if array is not None:
            _check_matrix(alias, array, kind, count)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = ClassificationResult()
    for row in range(count):
        result.classifications.append(
            _classified(None if classes is None else classes[row], None if scores is None else scores[row])
        )
    return result


def _classified(labels: Array | None, scores: Array | None) -> Classifications:
    """Return the classes of one example; what the model does not give stays empty, or zero."""
    row = Classifications()
    size = len(labels) if labels is not None else len(scores) if scores is not None else 0
    for at in range(size):
        each = row.classes.add()
        if labels is not None:
            # The message carries text, a tensor any bytes.
            each.label = bytes(labels[at]).decode("utf-8", "replace")
        if scores is not None:
            each.score = float(scores[at])
    return row


def _check_matrix(alias: str, array: Array, kind: np.dtype[np.generic], count: int) -> None:
    """
    Hold an output to its form.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if array.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
    if array.dtype != kind:
        raise invalid_argument(f"Expected {alias} Tensor of {_type(kind)}. Got: {_type(array.dtype)}")
    if array.shape[0] != count:
        raise invalid_argument(f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}")


def _type(dtype: np.dtype[np.generic]) -> str:
    return f"DT_{type_name(type_of(dtype)).upper()}"


def regression(count: int, outputs: Mapping[str, Array]) -> RegressionResult:
    """
    Return the answer to Regress.

    Args:
        count: the number of examples.
        outputs: `outputs` float32[count] or [count, 1].

    Raises:
        Refused: INVALID_ARGUMENT; the model gave something else.
    """
    array = outputs[OUTPUTS]
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(array.shape)}"
        )
    if array.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}")
    if array.dtype != np.dtype("f4"):
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_type(array.dtype)}")
    result = RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add().value = value
    return result


def methods(request: MultiInferenceRequest) -> Sequence[Method]:
    """
    Return what each task of a MultiInference asks for.

    Raises:
        Refused: INVALID_ARGUMENT for two models, or one signature twice; UNIMPLEMENTED for another method.
    """
    if not request.tasks:
        raise invalid_argument("MultiInferenceRequest has no tasks")
    known = {method.name: method for method in (CLASSIFY, REGRESS)}
    chosen: list[Method] = []
    signatures: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in signatures:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        signatures.add(name)
        if task.method_name not in known:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        chosen.append(known[task.method_name])
    return chosen
