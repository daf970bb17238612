"""What a runtime must offer to be served: the one interface behind which LiteRT stands, and others can."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from serving.tfs.signatures import Signature
from serving.tfs.tensors import Array


class RunFailed(Exception):
    """The runtime could not run these inputs; its text may name operations and sizes, never values."""


class LoadedModel(Protocol):
    """A version in memory, with one instance per worker, so that workers never wait for each other."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What the model can do, by name."""

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """
        Run on the instance of *worker*, which nobody else uses meanwhile; blocks its thread and releases the GIL.

        Raises:
            RunFailed: the runtime refused.
        """


Loader = Callable[[Path, int], LoadedModel]
"""Load a version folder, with as many instances as the number says; blocks. Raises Refused without a usable model."""
