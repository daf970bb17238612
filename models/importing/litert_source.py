"""Read a foreign LiteRT file: what goes in, what comes out, and what it says of scaling."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from models.importing.litert_edit import code_of, parse
from models.importing.reading import Activation
from models.importing.request import SIDE_PX_MAX, SIDE_PX_MIN, CannotImport, Request, fits

_OPERATOR = schema.BuiltinOperator
_SCALING = frozenset({_OPERATOR.MUL, _OPERATOR.DIV, _OPERATOR.SUB, _OPERATOR.ADD})
_PASSING = frozenset({_OPERATOR.QUANTIZE, _OPERATOR.DEQUANTIZE, _OPERATOR.RESHAPE, _OPERATOR.CAST})
_TYPES = frozenset({schema.TensorType.FLOAT32, schema.TensorType.UINT8, schema.TensorType.INT8})
_CODES_MAX = 10_000


@dataclass(frozen=True)
class LiteRtSource:
    """
    A LiteRT file of one subgraph with one input and one output, by numbers of tensors.

    `quantised_range` is what the first quantised tensor can hold, None where there is none; `answer` runs the file as
    it came, float32[n, h, w, 3] as its caller scaled it to float32[n, k], quantisation at both ends included.
    """

    content: bytes
    source: int
    result: int
    size: tuple[int, int]
    any_rows: bool
    outputs: int
    scales: bool
    quantised_range: tuple[float, float] | None
    activation: Activation
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load(path: Path, request: Request) -> LiteRtSource:
    """
    Read a LiteRT file whose size was bounded.

    Raises:
        CannotImport: it is damaged, or no network from one picture to one row of numbers.
    """
    try:
        return _loaded(path, request)
    # The schema's reader and the interpreter let pass what they meet in a file whose parts do not fit together.
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError, struct.error) as error:
        raise CannotImport("This LiteRT file is damaged: its parts do not fit together.") from error


def _loaded(path: Path, request: Request) -> LiteRtSource:
    content = path.read_bytes()
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
    except (RuntimeError, ValueError) as error:
        raise CannotImport(
            "LiteRT cannot load this file: it is damaged, or needs operations that are no part of it."
        ) from error
    model = parse(content)
    _refuse_unknown(model)
    graph = model.subgraphs[0]
    for what, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(tensors) != 1:
            raise CannotImport(f"The network has {len(tensors)} {what}; only one can be served.")
    source, result = int(graph.inputs[0]), int(graph.outputs[0])
    shape = _shape(graph.tensors[source])
    size = _size(shape, request)
    answer = _answering(interpreter, size)
    answered = answer(np.zeros((1, *size, 3), np.float32))
    return LiteRtSource(
        content=content,
        source=source,
        result=result,
        size=size,
        any_rows=shape[0] == -1,
        outputs=answered.shape[1],
        scales=_scales(model),
        quantised_range=_range(model),
        activation=_ending(model, request),
        answer=answer,
    )


def _refuse_unknown(model: Any) -> None:
    """Refuse code that is not LiteRT's own, several subgraphs (loops are among them), and data outside the file."""
    if len(model.operatorCodes) > _CODES_MAX or len(model.subgraphs) != 1:
        raise CannotImport("The file has several subgraphs; only a network without loops and branches can be served.")
    for code in model.operatorCodes:
        if code.customCode is not None:
            raise CannotImport(f"The file needs the custom operation {code.customCode.decode(errors='replace'):.60}.")
    if any(buffer.offset > 1 for buffer in model.buffers) or model.externalBuffers:
        raise CannotImport("The file keeps its weights outside of itself.")


def _shape(tensor: Any) -> list[int]:
    """Return the sizes of a tensor, -1 for any."""
    declared = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return [int(side) for side in (declared if declared is not None else [])]


def _size(shape: list[int], request: Request) -> tuple[int, int]:
    if len(shape) != 4 or shape[3] != 3 or shape[0] not in (1, -1):
        takes = " x ".join("?" if side == -1 else str(side) for side in shape)
        raise CannotImport(f"The network takes {takes}; only 1 x height x width x 3 can be served, channels last.")
    height, width = shape[1:3]
    if -1 in (height, width):
        if request.input_size is None:
            raise CannotImport("The network takes pictures of any size. Say which it was trained on with --input-size.")
        return request.input_size
    if not fits((height, width)):
        raise CannotImport(
            f"The network takes pictures of {height} x {width}; from {SIDE_PX_MIN} to {SIDE_PX_MAX} pixels a side can "
            "be served."
        )
    if request.input_size not in (None, (height, width)):
        raise CannotImport(f"The network takes pictures of {height} x {width} and no others: leave --input-size.")
    return height, width


def _answering(interpreter: Interpreter, size: tuple[int, int]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    (given,) = interpreter.get_input_details()
    if tuple(given["shape"]) != (1, *size, 3):
        interpreter.resize_tensor_input(given["index"], (1, *size, 3))
    interpreter.allocate_tensors()
    (told,) = interpreter.get_output_details()
    if given["dtype"] not in (np.float32, np.uint8, np.int8) or told["dtype"] not in (np.float32, np.uint8, np.int8):
        raise CannotImport("The network takes or answers neither float32 nor 8-bit numbers.")

    def answer(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = []
        for image in pixels:
            interpreter.set_tensor(given["index"], _quantised(image[None], given))
            interpreter.invoke()
            rows.append(_real(interpreter.get_tensor(told["index"]), told).reshape(-1))
        return np.stack(rows)

    return answer


def _quantised(values: NDArray[np.float32], detail: dict[str, Any]) -> NDArray[Any]:
    if detail["dtype"] == np.float32:
        return values
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    if scale == 0:
        return np.asarray(np.clip(np.rint(values), limits.min, limits.max), detail["dtype"])
    whole = np.rint(values / np.float32(scale)) + zero
    return np.asarray(np.clip(whole, limits.min, limits.max), detail["dtype"])


def _real(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = detail["quantization"]
    if detail["dtype"] == np.float32 or scale == 0:
        return values.astype(np.float32)
    return np.asarray((values.astype(np.float32) - zero) * np.float32(scale), np.float32)


def _following(graph: Any, tensor: int) -> list[Any]:
    return [operation for operation in graph.operators if tensor in operation.inputs]


def _scales(model: Any) -> bool:
    """Tell whether the first thing that happens to a picture is a product or sum with a few constants."""
    graph = model.subgraphs[0]
    tensor = int(graph.inputs[0])
    # A damaged file can lead in a circle; no way is longer than all operations.
    for _ in graph.operators:
        following = _following(graph, tensor)
        if len(following) != 1:
            break
        (operation,) = following
        if code_of(model, operation) in _SCALING:
            others = [int(other) for other in operation.inputs if other != tensor]
            return all(np.prod(_shape(graph.tensors[other]) or [1]) <= 3 for other in others)
        if code_of(model, operation) not in _PASSING:
            return False
        tensor = int(operation.outputs[0])
    return False


def _range(model: Any) -> tuple[float, float] | None:
    """Return what the input can hold where it is quantised, or what a first QUANTIZE makes of it."""
    graph = model.subgraphs[0]
    tensor = int(graph.inputs[0])
    following = _following(graph, tensor)
    if len(following) == 1 and code_of(model, following[0]) == _OPERATOR.QUANTIZE:
        tensor = int(following[0].outputs[0])
    found = graph.tensors[tensor]
    quantization = found.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None
    limits = np.iinfo(np.uint8 if found.type == schema.TensorType.UINT8 else np.int8)
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return (int(limits.min) - zero) * scale, (int(limits.max) - zero) * scale


def _ending(model: Any, request: Request) -> Activation:
    graph = model.subgraphs[0]
    tensor = int(graph.outputs[0])
    endings: dict[int, Activation] = {_OPERATOR.LOGISTIC: "sigmoid", _OPERATOR.SOFTMAX: "softmax"}
    for _ in graph.operators:
        made = [operation for operation in graph.operators if tensor in operation.outputs]
        if not made:
            break
        code = code_of(model, made[0])
        if code in endings:
            if request.output == "logit":
                raise CannotImport("The network ends in probabilities: its numbers are no logits.")
            return endings[code]
        if code not in _PASSING:
            break
        tensor = int(made[0].inputs[0])
    if request.output is None:
        raise CannotImport(
            "The network ends in plain numbers. Say with --output whether they are `logit`s or a `probability`."
        )
    return request.output
