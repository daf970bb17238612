"""Write a foreign LiteRT file as a version: scaling before it, reading after it, and the contract beside it."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from models.importing.litert_edit import Writer, pack, parse
from models.importing.litert_source import LiteRtSource
from models.importing.reading import Activation, Reading
from models.importing.scaling import Scaling

_FLOAT = schema.TensorType.FLOAT32
_INT = schema.TensorType.INT32


def write(
    source: LiteRtSource, activation: Activation, reading: Reading, scaling: Scaling, document: str, *, any_rows: bool
) -> bytes:
    """
    Return the file of a version with the signatures `serving_default` and `contract`.

    The operations of the source are kept as they are, byte for byte: what it computed, it computes. With *any_rows* a
    run takes any number of images, else one.
    """
    model = parse(source.content)
    model.signatureDefs = []
    rows = -1 if any_rows else 1
    writer = Writer(model, model.subgraphs[0])
    theirs = list(writer.subgraph.operators)
    image = _before(writer, source, scaling, rows)
    ours = writer.subgraph.operators[len(theirs) :]
    # Operations run in the order in which they stand.
    writer.subgraph.operators = ours + theirs
    score = _after(writer, source, activation, reading, rows)
    zero = writer.operate(
        "MUL",
        [score, writer.constant(np.zeros(1, np.float32))],
        writer.tensor("ood_score", [rows], _FLOAT),
        schema.MulOptionsT(),
    )
    writer.sign("serving_default", {"image": image}, {"probability": score, "ood_score": zero})
    _contract(model, document)
    return pack(model)


def _before(writer: Writer, source: LiteRtSource, scaling: Scaling, rows: int) -> int:
    """Write what makes the source's input of uint8[n, h, w, 3]; return the number of the latter."""
    shape = [rows, *source.size, 3]
    image = writer.tensor("image", shape, schema.TensorType.UINT8)
    # A request of another shape ends here, with an error.
    fixed = writer.constant(np.array([rows, *source.size, 3], np.int32))
    whole = writer.operate("RESHAPE", [image, fixed], writer.tensor("whole", shape, schema.TensorType.UINT8))
    cast = schema.CastOptionsT(inDataType=schema.TensorType.UINT8, outDataType=_FLOAT)
    values = writer.operate("CAST", [whole], writer.tensor("values", shape, _FLOAT), cast)
    if scaling.bgr:
        order = writer.constant(np.array([2, 1, 0], np.int32))
        values = writer.operate(
            "GATHER", [values, order], writer.tensor("bgr", shape, _FLOAT), schema.GatherOptionsT(axis=3)
        )
    factor, offset = (writer.constant(np.array(each, np.float32)) for each in (scaling.factor, scaling.offset))
    values = writer.operate("MUL", [values, factor], writer.tensor("scaled", shape, _FLOAT), schema.MulOptionsT())
    theirs = writer.subgraph.tensors[source.source]
    if theirs.type == _FLOAT:
        writer.operate("ADD", [values, offset], source.source, schema.AddOptionsT())
        return image
    moved = writer.operate("ADD", [values, offset], writer.tensor("moved", shape, _FLOAT), schema.AddOptionsT())
    if _quantised(theirs):
        writer.operate("QUANTIZE", [moved], source.source, schema.QuantizeOptionsT())
    else:
        writer.operate("CAST", [moved], source.source, schema.CastOptionsT(inDataType=_FLOAT, outDataType=theirs.type))
    return image


def _quantised(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def _after(writer: Writer, source: LiteRtSource, activation: Activation, reading: Reading, rows: int) -> int:
    """Write what makes one score of the source's output; return its number."""
    numbers = source.result
    theirs = writer.subgraph.tensors[numbers]
    outputs = reading.outputs
    wide = [rows, outputs]
    if theirs.type != _FLOAT:
        step, options = (
            ("DEQUANTIZE", schema.DequantizeOptionsT()) if _quantised(theirs) else ("CAST", schema.CastOptionsT())
        )
        numbers = writer.operate(step, [numbers], writer.tensor("real", [rows, *theirs.shape[1:]], _FLOAT), options)
    flat = writer.constant(np.array(wide, np.int32))
    numbers = writer.operate("RESHAPE", [numbers, flat], writer.tensor("numbers", wide, _FLOAT))
    if activation == "logit":
        step = "LOGISTIC" if outputs == 1 else "SOFTMAX"
        options = None if outputs == 1 else schema.SoftmaxOptionsT(beta=1.0)
        numbers = writer.operate(step, [numbers], writer.tensor("likely", wide, _FLOAT), options)
    if reading.kind == "classes":
        return _banded(writer, numbers, outputs, rows)
    chosen = _pick(writer, numbers, outputs - 1, rows)
    low, high = (writer.constant(np.array(bound, np.float32)) for bound in (0.0, 1.0))
    options = schema.MaximumMinimumOptionsT()
    least = writer.operate("MAXIMUM", [chosen, low], writer.tensor("least", [rows], _FLOAT), options)
    return writer.operate("MINIMUM", [least, high], writer.tensor("probability", [rows], _FLOAT), options)


def _pick(writer: Writer, numbers: int, column: int, rows: int) -> int:
    """Return one column of float32[n, k], as float32[n]."""
    index = writer.constant(np.array(column, np.int32))
    picked = writer.tensor("picked", [rows], _FLOAT)
    return writer.operate("GATHER", [numbers, index], picked, schema.GatherOptionsT(axis=1))


def _banded(writer: Writer, likely: int, classes: int, rows: int) -> int:
    """Write what `reading` says of three classes or more: (best + 1/2 + (mean - best) / (2 (k - 1))) / k."""
    axis = writer.constant(np.array(1, np.int32))
    best = writer.operate(
        "ARG_MAX", [likely, axis], writer.tensor("best", [rows], _INT), schema.ArgMaxOptionsT(outputType=_INT)
    )
    best = writer.operate(
        "CAST", [best], writer.tensor("best", [rows], _FLOAT), schema.CastOptionsT(inDataType=_INT, outDataType=_FLOAT)
    )
    numbers = writer.constant(np.arange(classes, dtype=np.float32))
    weighed = writer.operate(
        "MUL", [likely, numbers], writer.tensor("weighed", [rows, classes], _FLOAT), schema.MulOptionsT()
    )
    axes = writer.constant(np.array([1], np.int32))
    mean = writer.operate("SUM", [weighed, axes], writer.tensor("mean", [rows], _FLOAT), schema.ReducerOptionsT())
    lean = 0.5 / (classes - 1)
    best = _times(writer, best, (1 - lean) / classes, rows)
    mean = _times(writer, mean, lean / classes, rows)
    both = writer.operate("ADD", [best, mean], writer.tensor("both", [rows], _FLOAT), schema.AddOptionsT())
    half = writer.constant(np.array([0.5 / classes], np.float32))
    return writer.operate("ADD", [both, half], writer.tensor("probability", [rows], _FLOAT), schema.AddOptionsT())


def _times(writer: Writer, values: int, factor: float, rows: int) -> int:
    constant = writer.constant(np.array([factor], np.float32))
    return writer.operate("MUL", [values, constant], writer.tensor("part", [rows], _FLOAT), schema.MulOptionsT())


def _contract(model: Any, document: str) -> None:
    writer = Writer.new(model, "contract")
    n = writer.tensor("n", [-1], _INT)
    shape = writer.operate("SHAPE", [n], writer.tensor("shape", [1], _INT), schema.ShapeOptionsT(outType=_INT))
    text = writer.text(document.encode())
    filled = writer.operate(
        "FILL", [shape, text], writer.tensor("json", [-1], schema.TensorType.STRING), schema.FillOptionsT()
    )
    writer.sign("contract", {"n": n}, {"json": filled})
