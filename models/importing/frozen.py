"""One form for every network that TensorFlow can load: a graph without variables, one input and one output."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import (  # type: ignore[import-not-found]
    convert_variables_to_constants_v2,
)

from models.importing import keras_files, saved_models
from models.importing.formats import Format
from models.importing.request import SIDE_PX_MAX, SIDE_PX_MIN, CannotImport, Request, fits

BATCH = 16


@dataclass(frozen=True)
class Frozen:
    """
    A network as a graph of constants, and the source itself to compare with.

    `source` and `result` are names of tensors; `answer` runs the network as it came, float32[n, h, w, 3] to
    float[n, k], scaling not included.
    """

    graph: Any
    source: str
    result: str
    size: tuple[int, int]
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load(request: Request, format_: Format, scratch: Path) -> Frozen:
    """
    Load the source of a request, after it was found safe to load.

    Raises:
        CannotImport: it is not, or is no network from one picture to one row of numbers.
    """
    if format_ == "saved_model":
        folder = Path(request.source)
        saved_models.check(folder)
        return _of_saved_model(folder, request)
    return _of_keras(keras_files.load(Path(request.source), format_, scratch), request)


def _of_keras(model: Any, request: Request) -> Frozen:
    if len(model.inputs) != 1:
        raise CannotImport(f"The network takes {len(model.inputs)} inputs; only one, the picture, can be served.")
    if len(model.outputs) != 1:
        raise CannotImport(f"The network has {len(model.outputs)} outputs; only one, with the scores, can be served.")
    size = _size(list(model.inputs[0].shape), request)
    function = tf.function(lambda pixels: model(pixels, training=False))
    return _frozen(function.get_concrete_function(tf.TensorSpec([None, *size, 3], tf.float32)), size)


def _of_saved_model(folder: Path, request: Request) -> Frozen:
    try:
        loaded = tf.saved_model.load(str(folder))
    # TensorFlow lets pass what its parsers meet: ValueError, KeyError, AttributeError, its own errors.
    except Exception as error:
        raise CannotImport("TensorFlow cannot load this SavedModel.") from error
    function = _signature(dict(loaded.signatures), request.signature)
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise CannotImport(f"The signature takes {len(inputs)} inputs; only one, the picture, can be served.")
    if len(function.structured_outputs) != 1:
        names = ", ".join(sorted(function.structured_outputs))
        raise CannotImport(f"The signature has several outputs ({names}); only one, with the scores, can be served.")
    ((name, spec),) = inputs.items()
    if spec.dtype not in (tf.float32, tf.uint8):
        raise CannotImport(f"The network takes {spec.dtype.name}; only float32 and uint8 can be served.")
    size = _size(None if spec.shape.rank is None else spec.shape.as_list(), request)
    (output,) = function.structured_outputs
    # Pixels come as float32 here whatever the network takes: a cast is exact for both.
    wrapped = tf.function(lambda pixels: function(**{name: tf.cast(pixels, spec.dtype)})[output])
    frozen = _frozen(wrapped.get_concrete_function(tf.TensorSpec([None, *size, 3], tf.float32)), size)
    saved_models.check_operations(node.op for node in frozen.graph.node)
    return frozen


def _signature(signatures: dict[str, Any], asked: str | None) -> Any:
    if asked is not None and asked not in signatures:
        raise CannotImport(f"The SavedModel has no signature of that name, only {', '.join(sorted(signatures))}.")
    if asked is None and "serving_default" in signatures:
        return signatures["serving_default"]
    if asked is None and len(signatures) != 1:
        raise CannotImport(
            f"The SavedModel has {len(signatures)} signatures ({', '.join(sorted(signatures))}); say which it is with "
            "--signature."
        )
    return signatures[asked or next(iter(signatures))]


def _size(shape: list[int | None] | None, request: Request) -> tuple[int, int]:
    """Return the height and width that the network takes."""
    if shape is not None and (len(shape) != 4 or shape[3] not in (3, None)):
        takes = " x ".join("?" if side is None else str(side) for side in shape[1:])
        raise CannotImport(
            f"The network takes {takes}; only pictures as height x width x 3 can be served, channels last."
        )
    height, width = (None, None) if shape is None else shape[1:3]
    if height is not None and width is not None:
        if request.input_size not in (None, (height, width)):
            raise CannotImport(f"The network takes pictures of {height} x {width} and no others: leave --input-size.")
        if not fits((height, width)):
            raise CannotImport(
                f"The network takes pictures of {height} x {width}; from {SIDE_PX_MIN} to {SIDE_PX_MAX} pixels a side "
                "can be served."
            )
        return height, width
    if request.input_size is None:
        raise CannotImport("The network takes pictures of any size. Say which it was trained on with --input-size.")
    return request.input_size


def _frozen(function: Any, size: tuple[int, int]) -> Frozen:
    constant = convert_variables_to_constants_v2(function)
    result = constant.outputs[0]
    if result.shape.rank not in (1, 2) or (result.shape.rank == 2 and result.shape[1] is None):
        raise CannotImport(f"The network answers {result.shape} and not one row of numbers for each picture.")

    def answer(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [function(tf.constant(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
        rows = [np.asarray(part[0] if isinstance(part, list | tuple) else part) for part in parts]
        return np.concatenate(rows).reshape(len(pixels), -1)

    source = constant.inputs[0]
    return Frozen(constant.graph.as_graph_def(), source.name, result.name, size, answer)
