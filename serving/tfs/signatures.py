"""What a model's signature takes and gives: names, element types and shapes, checked before a tensor is sent or run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.tfs.protos import DataType, SignatureDef, TensorInfo, TensorShapeProto
from serving.tfs.tensors import Array, dtype_of, type_name, type_of

PREDICT_METHOD = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name in the graph, element type and shape, where -1 is any size; None is any rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None

    def wrong_type(self, array: Array) -> str | None:
        """Say what is wrong with the type of *array*, as TensorFlow words it, or None."""
        if array.dtype == self.dtype or (self.dtype.kind == "O" and array.dtype.kind == "S"):
            return None
        return f"Type mismatch: actual {_word(array.dtype)} vs. expect {_word(self.dtype)}"

    def wrong_shape(self, array: Array) -> str | None:
        """Say what is wrong with the shape of *array*, or None."""
        if self.shape is None or (
            array.ndim == len(self.shape)
            and all(wanted in (-1, size) for wanted, size in zip(self.shape, array.shape, strict=True))
        ):
            return None
        return f"Shape mismatch: actual {list(array.shape)} vs. expect {list(self.shape)}"

    @property
    def batched(self) -> bool:
        """Whether the first dimension is a batch: of any size."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] == -1


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one signature, by alias."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = PREDICT_METHOD
    """What the model says it is for: predict, classify or regress."""

    @property
    def batched(self) -> bool:
        """Whether every input and output has a batch dimension, so that rows may be run together or apart."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(spec.batched for spec in specs)


def to_proto(signature: Signature) -> SignatureDef:
    """Return *signature* as GetModelMetadata answers it."""
    return SignatureDef(
        inputs={alias: _info(spec) for alias, spec in signature.inputs.items()},
        outputs={alias: _info(spec) for alias, spec in signature.outputs.items()},
        method_name=signature.method,
    )


def from_proto(proto: SignatureDef) -> Signature:
    """
    Return a signature from GetModelMetadata's form.

    Raises:
        BadTensor: an element type that we do not carry.
    """
    return Signature(
        inputs={alias: _spec(info) for alias, info in proto.inputs.items()},
        outputs={alias: _spec(info) for alias, info in proto.outputs.items()},
        method=proto.method_name or PREDICT_METHOD,
    )


def _info(spec: TensorSpec) -> TensorInfo:
    dims = [TensorShapeProto.Dim(size=size) for size in spec.shape or ()]
    shape = TensorShapeProto(dim=dims, unknown_rank=spec.shape is None)
    return TensorInfo(name=spec.name, dtype=DataType.Name(type_of(spec.dtype)), tensor_shape=shape)


def _spec(info: TensorInfo) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name=info.name, dtype=dtype_of(info.dtype), shape=shape)


def _word(dtype: np.dtype[Any]) -> str:
    return type_name(type_of(dtype))
