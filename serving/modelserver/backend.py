"""What a runtime must offer to be served: the one interface behind which LiteRT and TensorFlow stand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from serving.modelserver.config import Batching
from serving.tfs.signatures import Signature
from serving.tfs.tensors import Array


class RunFailed(Exception):
    """The runtime could not run these inputs; its text may name operations and sizes, never values."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(text)
        self.code = code


class LoadedModel(Protocol):
    """A version in memory, with one instance per worker, so that workers never wait for each other."""

    @property
    def platform(self) -> str:
        """Which runtime this is: `litert` or `tensorflow`."""

    @property
    def exact_shapes(self) -> bool:
        """
        Whether an input must have the shape that its signature declares.

        LiteRT's kernels rely on it. TensorFlow Serving does not hold clients to it, and models are served that need it
        so; there only the rank of what is declared with three dimensions or more is held, because a kernel of
        TensorFlow's ends the process when an image comes without its batch dimension.
        """

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What the model can do, by name."""

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """
        Run on the instance of *worker*, which nobody else uses meanwhile; blocks its thread and releases the GIL.

        Raises:
            RunFailed: the runtime refused.
        """

    def close(self) -> None:
        """Let the memory go; nobody runs it any more. Blocks."""


@dataclass(frozen=True)
class Servable:
    """A version ready to be served: the model in memory, and how requests to it are run together."""

    model: LoadedModel
    batching: Batching


Loader = Callable[[Path], Servable]
"""Load a version folder; blocks. Raises Refused without a usable model."""
