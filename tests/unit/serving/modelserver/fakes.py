"""A model that answers from Python, for tests of what stands around models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from serving.tfs.signatures import Signature, TensorSpec
from serving.tfs.tensors import Array

SPEC = TensorSpec("x:0", np.dtype("f4"), (-1,))


@dataclass(eq=False)
class FakeModel:
    """Doubles `x`; *before* is called with the inputs first, so that a test can hold or fail a run."""

    before: Callable[[Array], None] = lambda _: None
    runs: list[list[float]] = field(default_factory=list)
    signatures: Mapping[str, Signature] = field(
        default_factory=lambda: {"serving_default": Signature({"x": SPEC}, {"y": SPEC})}
    )

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Double the input."""
        self.before(inputs["x"])
        self.runs.append(inputs["x"].tolist())
        return {"y": inputs["x"] * 2}
