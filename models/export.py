"""Write a version folder: the same model as SavedModel and as LiteRT file, with contract, golden cases and warm-up."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # type: ignore[import-not-found]

from models import contract, graph, int8, warmup
from models.catalog import SIDE_PX
from models.golden import Run
from models.weights import Weights

EQUAL_WITHIN = 1e-4
"""How far SavedModel and LiteRT file may differ on golden cases, where nobody asked for 8 bits."""

Input = tuple[str, Any, list[int | None]]
"""Name, element type and shape of a signature's one input."""

Signatures = Mapping[str, tuple[Input, Callable[[Any], dict[str, Any]]]]
"""Each signature's input, and the function that writes its outputs into a graph."""

COUNT: Input = ("n", tf.int32, [None])


class ExportError(Exception):
    """What was written is not what was meant."""


def signatures_of(weights: Weights, document: str) -> Signatures:
    """Return the signatures of one of our own models."""
    image: Input = ("image", tf.uint8, [None, SIDE_PX, SIDE_PX, 3])
    run = graph.running(weights)
    return {
        "serving_default": (image, lambda pixels: graph.predict(weights, pixels, run)),
        "explain": (image, lambda pixels: graph.explain(weights, pixels, run)),
        "contract": (COUNT, lambda n: graph.contract(document, n)),
    }


def write_saved_model(folder: Path, signatures: Signatures) -> None:
    """
    Write `saved_model.pb` and nothing else: one graph without variables, and its signatures.

    This uses TensorFlow 1's builder. That of TensorFlow 2 writes each signature as a function of its own, with its
    own copy of all weights, and a checkpoint of no variables beside it.
    """
    builder = tf.compat.v1.saved_model.Builder(str(folder))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definitions, sources = {}, {}
        for name, ((alias, dtype, shape), function) in signatures.items():
            # One placeholder for all signatures that take the same, so that they can share what they compute from it.
            if alias not in sources:
                sources[alias] = tf.compat.v1.placeholder(dtype, shape, name=alias)
            written = function(sources[alias])
            outputs = {key: tf.identity(value, name=f"{name}/output/{key}") for key, value in written.items()}
            definitions[name] = tf.compat.v1.saved_model.predict_signature_def({alias: sources[alias]}, outputs)
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=definitions)
        builder.save()
    path = folder / "saved_model.pb"
    message = SavedModel()
    message.ParseFromString(path.read_bytes())
    # Maps of a protobuf message have no order of their own: without this the digest would change from run to run.
    path.write_bytes(message.SerializeToString(deterministic=True))
    shutil.rmtree(folder / "variables", ignore_errors=True)


def write_litert(path: Path, signatures: Signatures, *, in_int8: bool = False) -> None:
    """
    Convert the same constant graph to a LiteRT file with the same signatures, *in_int8* with convolutions in 8 bits.

    A Keras 3 model that still has variables converts without complaint into a file that answers NaN, so nothing with
    a variable is ever handed to the converter, and `check` looks at the answers.

    Raises:
        ExportError: a signature reads a variable.
    """
    module = tf.Module()
    functions = {}
    for name, ((alias, dtype, shape), function) in signatures.items():
        functions[name] = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype, alias)])
        setattr(module, name, functions[name])
    with tempfile.TemporaryDirectory() as scratch:
        concrete = {name: function.get_concrete_function() for name, function in functions.items()}
        if unfrozen := [name for name, function in concrete.items() if function.variables]:
            raise ExportError(
                f"{', '.join(unfrozen)} reads a variable, which would be converted to NaN: freeze it first"
            )
        tf.saved_model.save(module, scratch, signatures=concrete)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=list(concrete))
        converted = converter.convert()
    path.write_bytes(int8.with_int8_convolutions(converted) if in_int8 else converted)


def load_saved_model(folder: Path) -> Run:
    """Load a version with the loader that TensorFlow Serving uses."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))

    def run(signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        definition = loaded.signature_def[signature]
        feed = {definition.inputs[alias].name: value for alias, value in inputs.items()}
        fetch = {alias: output.name for alias, output in definition.outputs.items()}
        return dict(session.run(fetch, feed))

    return run


def load_litert(path: Path) -> Run:
    """Load a LiteRT file; any number of rows."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)

    def run(signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(interpreter.get_signature_runner(signature)(**inputs))

    return run


def check(
    folder: Path,
    document: str,
    images: NDArray[np.uint8],
    *,
    signatures: tuple[str, ...] = ("serving_default", "explain"),
    within: Mapping[str, float] = MappingProxyType({}),
) -> float:
    """
    Hold the two files of a version to each other on *images* uint8[n, h, w, 3], in all *signatures* that take images.

    *within* loosens the bound of the outputs that it names; that of all others is EQUAL_WITHIN.

    Returns:
        The largest difference of any output.

    Raises:
        ExportError: an output is not finite, or differs by more than its bound, or the contract is not *document*.
    """
    one, other = load_saved_model(folder), load_litert(folder / "model.tflite")
    largest = 0.0
    for signature in signatures:
        expected, actual = one(signature, {"image": images}), other(signature, {"image": images})
        for alias, value in expected.items():
            if not (np.isfinite(value).all() and np.isfinite(actual[alias]).all()):
                raise ExportError(f"{signature}/{alias} is not finite")
            difference = float(np.abs(value - actual[alias]).max())
            if difference > within.get(alias, EQUAL_WITHIN):
                raise ExportError(f"SavedModel and LiteRT file differ by {difference} in {signature}/{alias}")
            largest = max(largest, difference)
    for run in (one, other):
        texts = run("contract", {"n": np.zeros(3, np.int32)})["json"].tolist()
        if texts != [document.encode()] * 3:
            raise ExportError("the contract in the graph is not the contract")
    return largest


def write(folder: Path, weights: Weights, document: dict[str, Any], card: str, *, in_int8: bool = False) -> None:
    """Write a new version folder, all but its golden cases; *in_int8* concerns the LiteRT file alone."""
    text = contract.text(document)
    signatures = signatures_of(weights, text)
    write_saved_model(folder, signatures)
    write_litert(folder / "model.tflite", signatures, in_int8=in_int8)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(text, encoding="utf-8")
    (extra / "card.md").write_text(card, encoding="utf-8")
    warmup.write(extra / "tf_serving_warmup_requests", document["model"])


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """
    Give a place to make a version in, and move what was made to *folder* if nothing was raised.

    Nobody sees half a version, and a version that failed its checks is seen by nobody.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        made = Path(scratch, "made")
        yield made
        if folder.exists():
            folder.rename(Path(scratch, "replaced"))
        made.rename(folder)
