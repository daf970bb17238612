"""Add operations and signatures to a LiteRT file, which is a flat buffer that its own schema can read and write."""

import struct
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_IDENTIFIER = b"TFL3"
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int8): schema.TensorType.INT8,
}


def parse(content: bytes) -> Any:
    """Return the parts of a file that the interpreter has accepted: only it verifies offsets before it follows them."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def pack(model: Any) -> bytes:
    """Return the file of a model."""
    builder = flatbuffers.Builder(1024 * 1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def code_of(model: Any, operation: Any) -> int:
    """Return which built-in operation one is; old files have the number in another place."""
    code = model.operatorCodes[operation.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


class Writer:
    """Appends tensors and operations to one subgraph of a model."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        self._model = model
        self.subgraph = subgraph

    @classmethod
    def new(cls, model: Any, name: str) -> "Writer":
        """Append an empty subgraph to *model*."""
        subgraph = schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=name)
        model.subgraphs.append(subgraph)
        return cls(model, subgraph)

    def tensor(
        self, name: str, shape: Sequence[int], type_: int, *, quantization: Any = None, buffer: int | None = None
    ) -> int:
        """Append a tensor and return its number; -1 is a size that is only known when it runs."""
        if buffer is None:
            self._model.buffers.append(schema.BufferT())
            buffer = len(self._model.buffers) - 1
        made = schema.TensorT(
            shape=[max(side, 1) for side in shape], type=type_, buffer=buffer, name=name, quantization=quantization
        )
        made.hasRank = True
        if -1 in shape:
            made.shapeSignature = list(shape)
        self.subgraph.tensors.append(made)
        return len(self.subgraph.tensors) - 1

    def constant(self, array: NDArray[Any]) -> int:
        """Append a constant and return its number."""
        values = np.asarray(array, order="C")
        return self._filled(values.tobytes(), values.shape, _TYPES[values.dtype])

    def text(self, content: bytes) -> int:
        """Append a constant string: the number of strings, where each begins and the last ends, and their bytes."""
        header = struct.pack("<iii", 1, 12, 12 + len(content))
        return self._filled(header + content, (), schema.TensorType.STRING)

    def _filled(self, content: bytes, shape: Sequence[int], type_: int) -> int:
        self._model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
        return self.tensor("constant", shape, type_, buffer=len(self._model.buffers) - 1)

    def operate(self, operation: str, inputs: Sequence[int], output: int, options: Any = None) -> int:
        """Append an operation, called as in the schema; return its output."""
        kind = 0
        if options is not None:
            kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.subgraph.operators.append(
            schema.OperatorT(
                opcodeIndex=self._code(getattr(schema.BuiltinOperator, operation)),
                inputs=list(inputs),
                outputs=[output],
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        return output

    def _code(self, builtin: int) -> int:
        self._model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(builtin, 127), builtinCode=builtin, version=1)
        )
        return len(self._model.operatorCodes) - 1

    def sign(self, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Make this subgraph a signature."""
        self.subgraph.inputs, self.subgraph.outputs = list(inputs.values()), list(outputs.values())
        self._model.signatureDefs.append(
            schema.SignatureDefT(
                inputs=[schema.TensorMapT(name, tensor) for name, tensor in inputs.items()],
                outputs=[schema.TensorMapT(name, tensor) for name, tensor in outputs.items()],
                signatureKey=key,
                subgraphIndex=next(i for i, each in enumerate(self._model.subgraphs) if each is self.subgraph),
            )
        )
