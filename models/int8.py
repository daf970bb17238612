"""Store the convolutions of a LiteRT file in 8 bits, and leave every other number of it as it is."""

from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from models.importing.litert_edit import code_of, pack, parse

TOLERANCE = 0.05
"""How far scores may be from those of the golden cases, which lie twice as far from every threshold."""

WITHIN: MappingProxyType[str, float] = MappingProxyType(
    {"probability": TOLERANCE, "ood_score": TOLERANCE, "heatmap": 0.25}
)
"""
How far each output may be from the float model's on golden cases.

A heat map is divided by its largest value: where there is hardly any evidence, rounding is a large part of it.
"""

LIMITATION = (
    "model.tflite holds its convolutions in 8 bits: its scores differ from those of saved_model.pb, on golden cases by "
    f"at most {TOLERANCE}, on single other images by more."
)
"""What the contract of such a version says."""

VALUES_MIN = 1024
"""Kernels of fewer values stay float: the first one sees the pixels, and is too small for its size to matter."""

_LEVELS = 127
"""Levels on each side of zero; -128 is left out, so that zero is exact. Source: LiteRT 8-bit quantization spec."""


def with_int8_convolutions(content: bytes) -> bytes:
    """
    Return a float LiteRT file with the kernels of its convolutions as int8, a scale for each output channel.

    LiteRT quantises what goes into such a convolution to int8 while it runs, each image by its own range, and adds up
    in integers; inputs and outputs of the convolution, and of the signatures, keep their types.

    The converter's own `Optimize.DEFAULT` is not used: it also stores the distances of familiarity in 8 bits, whose
    precision decides what is refused, and a cancer model made so refused seven of ten of its own phantoms.
    """
    model = parse(content)
    made: dict[int, Any] = {}
    for subgraph in model.subgraphs:
        for operation in subgraph.operators:
            if code_of(model, operation) == schema.BuiltinOperator.CONV_2D:
                _store(model, subgraph.tensors[operation.inputs[1]], made)
    return pack(model)


def _store(model: Any, kernel: Any, made: dict[int, Any]) -> None:
    """Make *kernel* int8; signatures share buffers, so *made* remembers the scales of those that are done."""
    if kernel.type != schema.TensorType.FLOAT32 or np.prod(kernel.shape) < VALUES_MIN:
        return
    if kernel.buffer not in made:
        buffer = model.buffers[kernel.buffer]
        values, scale = quantised(np.frombuffer(bytes(buffer.data), "<f4").reshape(kernel.shape))
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        made[kernel.buffer] = scale
    scale = made[kernel.buffer]
    kernel.type = schema.TensorType.INT8
    kernel.quantization = schema.QuantizationParametersT(
        scale=scale, zeroPoint=np.zeros(len(scale), np.int64), quantizedDimension=0
    )


def quantised(kernel: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """
    Round a kernel float32[out, h, w, in] to int8[out, h, w, in], in steps of float32[out] for each output channel.

    No value moves by more than half a step; a channel of zeros stays one.
    """
    largest = np.abs(kernel).reshape(len(kernel), -1).max(axis=1)
    step = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    return np.rint(kernel / step[:, None, None, None]).clip(-_LEVELS, _LEVELS).astype(np.int8), step
