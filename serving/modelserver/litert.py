"""LiteRT: `model.tflite` of a version folder, one single-threaded interpreter per worker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from serving.modelserver.backend import RunFailed
from serving.modelserver.refusals import Refused
from serving.tfs.signatures import Signature, TensorSpec
from serving.tfs.tensors import Array

FILE = "model.tflite"
FILE_BYTES_MAX = 1024 * 1024 * 1024
SLICE_BYTES = 256 * 1024
"""
Input bytes that one run takes at most, at least one row.

Measured: on a core of its own a convolutional network is fastest row by row (12.0 ms per image alone, 14.1 in a batch
of 8), and the memory of an interpreter grows with the largest batch that it ever saw (11 MB for one image, 400 MB for
32). Small rows still run together.
"""


class LiteRtModel:
    """A loaded model.tflite; see backend.LoadedModel."""

    platform = "litert"
    exact_shapes = True

    def __init__(self, content: bytes, instances: int, threads: int) -> None:
        """
        Make the interpreters; they share *content*, which is read once and not mapped, so that nobody can change it
        under them.

        Raises:
            ValueError: it is not a LiteRT model.
        """
        interpreters = [Interpreter(model_content=content, num_threads=threads) for _ in range(instances)]
        names = list(interpreters[0].get_signature_list())
        self._runners = [
            {name: interpreter.get_signature_runner(name) for name in names} for interpreter in interpreters
        ]
        self.signatures: Mapping[str, Signature] = {
            name: Signature(_specs(runner.get_input_details()), _specs(runner.get_output_details()))
            for name, runner in self._runners[0].items()
        }

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """
        Run *signature*; batches run in slices.

        Raises:
            RunFailed: the interpreter refused.
        """
        runner = self._runners[worker][signature]
        parts = _slices(inputs) if self.signatures[signature].batched else [inputs]
        try:
            answers = [runner(**part) for part in parts]
        except (RuntimeError, ValueError) as exc:
            raise RunFailed(str(exc)) from exc
        if len(answers) == 1:
            # A scalar comes out as a number, not as an array.
            return {alias: np.asarray(value) for alias, value in answers[0].items()}
        return {alias: np.concatenate([answer[alias] for answer in answers]) for alias in answers[0]}

    def close(self) -> None:
        """Drop the interpreters and the file's bytes."""
        self._runners.clear()


def load(folder: Path, instances: int, *, threads: int = 1) -> LiteRtModel:
    """
    Load the model of a version folder.

    Raises:
        Refused: there is none, or it is not whole.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{FILE} is larger than {FILE_BYTES_MAX} bytes")
        content = path.read_bytes()
    except OSError as exc:
        raise Refused(
            grpc.StatusCode.NOT_FOUND, f"Could not read {FILE} of the version folder: {exc.strerror}"
        ) from exc
    try:
        model = LiteRtModel(content, instances, threads)
    except (RuntimeError, ValueError) as exc:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{FILE} is not a usable LiteRT model: {exc}") from exc
    if not model.signatures:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{FILE} has no signature")
    return model


def _specs(details: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    """Turn LiteRT's description of tensors into ours; it names strings by numpy's bytes type."""
    return {
        alias: TensorSpec(
            name=str(detail["name"]),
            dtype=np.dtype("O") if np.dtype(detail["dtype"]).kind in "SO" else np.dtype(detail["dtype"]),
            shape=tuple(int(size) for size in detail["shape_signature"]),
        )
        for alias, detail in details.items()
    }


def _slices(inputs: Mapping[str, Array]) -> list[Mapping[str, Array]]:
    """Cut a batch into runs of bounded size."""
    rows = len(next(iter(inputs.values())))
    size = max(1, SLICE_BYTES * max(1, rows) // max(1, sum(array.nbytes for array in inputs.values())))
    if rows <= size:
        return [inputs]
    return [{alias: array[first : first + size] for alias, array in inputs.items()} for first in range(0, rows, size)]
