"""Read a frozen network: whether it scales pixels itself, how it ends, and where its last feature map is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from models.importing.frozen import Frozen
from models.importing.gradients import BACKWARD, COMMUTING
from models.importing.reading import Activation
from models.importing.request import CannotImport, Output

_PASSING = frozenset({"Identity", "Cast", "Pad", "PadV2", "Reshape", "StopGradient"})
_SCALING = frozenset({"Mul", "RealDiv", "Sub", "AddV2", "Add", "BiasAdd"})
_CONVOLVING = frozenset({"Conv2D", "DepthwiseConv2dNative"})
_POOLING = frozenset({"MaxPool", "AvgPool", "Mean", "Max", "Identity", "Reshape"})


@dataclass(frozen=True)
class Tail:
    """
    What follows the last feature map, by names of tensors.

    `feature` float32[n, h, w, c]; `steps` lead from the logits back to it, each an operation with its inputs, first
    the one that depends on the picture; `grid` is height and width of the map.
    """

    feature: str
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Anatomy:
    """
    What was found in a network.

    `scales`: its first operations scale pixels. `logits`: the tensor before the last activation. `tail` is None where
    Grad-CAM cannot be done, and `why_no_tail` then says why. `feature`: the last feature map, if it has one at all.
    """

    scales: bool
    logits: str
    activation: Activation
    outputs: int
    tail: Tail | None
    why_no_tail: str
    feature: str | None


class _NoTail(Exception):
    """There is no last feature map from which a heat map could be computed; the text says why."""


def read(frozen: Frozen, output: Output | None) -> Anatomy:
    """
    Read a network.

    Args:
        output: what its numbers are, where the network does not end in a sigmoid or softmax.

    Raises:
        CannotImport: that is needed and was not said.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph, name="")
    source, result = graph.get_tensor_by_name(frozen.source), graph.get_tensor_by_name(frozen.result)
    logits, activation = _ending(result, output)
    tail, why, feature = None, "", None
    try:
        features, operations = _back(logits)
        feature = features.name
        tail = _tail(features, operations)
    except _NoTail as error:
        why = str(error)
    outputs = 1 if result.shape.rank == 1 else int(result.shape[1])
    return Anatomy(_scales(source), logits.name, activation, outputs, tail, why, feature)


def _scales(source: Any) -> bool:
    """Tell whether the first thing that happens to a picture is a product or sum with a few constants."""
    tensor = source
    while len(tensor.consumers()) == 1:
        (operation,) = tensor.consumers()
        if operation.type in _SCALING:
            others = [other for other in operation.inputs if other is not tensor]
            return all((other.shape.num_elements() or 99) <= 3 for other in others)
        if operation.type not in _PASSING:
            return False
        tensor = operation.outputs[0]
    return False


def _ending(result: Any, output: Output | None) -> tuple[Any, Activation]:
    tensor = result
    while tensor.op.type in ("Identity", "Squeeze", "Reshape"):
        tensor = tensor.op.inputs[0]
    endings: dict[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
    if tensor.op.type in endings:
        if output == "logit":
            raise CannotImport(f"The network ends in a {tensor.op.type.lower()}: its numbers are no logits.")
        return tensor.op.inputs[0], endings[tensor.op.type]
    if output is None:
        raise CannotImport(
            "The network ends in plain numbers. Say with --output whether they are `logit`s or a `probability`."
        )
    return result, output


def _back(logits: Any) -> tuple[Any, list[Any]]:
    """
    Walk back from the logits to the last feature map; return it and the operations on the way.

    Raises:
        _NoTail: the way forks, or there is no convolution at the other end.
    """
    tensor, operations = logits, []
    while tensor.shape.rank != 4 or tensor.op.type in _POOLING:
        depending = [source for source in tensor.op.inputs if _depends(source)]
        if len(depending) > 1:
            raise _NoTail(f"after the last feature map its branches meet again ({tensor.op.type})")
        if not depending:
            raise _NoTail("there is no convolution in it")
        operations.append(tensor.op)
        tensor = depending[0]
    if not any(operation.type in _CONVOLVING for operation in _ancestors(tensor.op)):
        raise _NoTail("there is no convolution in it")
    return tensor, operations


def _tail(feature: Any, operations: list[Any]) -> Tail:
    for operation in operations:
        try:
            inputs = ordered(operation)
            with feature.graph.as_default():
                BACKWARD[operation.type](operation, inputs, operation.outputs[0], tf.zeros_like(operation.outputs[0]))
        except (KeyError, NotImplementedError, ValueError) as error:
            raise _NoTail(
                f"the derivative of {operation.type}, which follows the last convolution, is not known here"
            ) from error
    height, width = feature.shape[1], feature.shape[2]
    if height is None or width is None or height * width < 2:
        raise _NoTail("its last feature map has a single cell")
    steps = tuple((operation.name, tuple(source.name for source in ordered(operation))) for operation in operations)
    return Tail(feature.name, steps, (int(height), int(width)))


def ordered(operation: Any) -> list[Any]:
    """
    Return the inputs of an operation, first the one that depends on the picture.

    Raises:
        NotImplementedError: the operation means something else in that order.
    """
    inputs = list(operation.inputs)
    place = next(i for i, source in enumerate(inputs) if _depends(source))
    if place and operation.type not in COMMUTING:
        raise NotImplementedError(operation.type)
    return [inputs[place], *inputs[:place], *inputs[place + 1 :]]


def _depends(tensor: Any) -> bool:
    """Tell whether the values of a tensor depend on the picture; to depend on its shape does not count."""
    return any(operation.type == "Placeholder" for operation in _ancestors(tensor.op))


def _ancestors(operation: Any) -> Iterator[Any]:
    """Yield an operation and all whose values it depends on."""
    seen: set[str] = set()
    waiting = [operation]
    while waiting:
        found = waiting.pop()
        if found.name not in seen:
            seen.add(found.name)
            yield found
            waiting += [] if found.type == "Shape" else [source.op for source in found.inputs]
