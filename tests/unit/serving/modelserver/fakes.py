"""A model that answers from Python, for tests of what stands around models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from serving.modelserver.backend import Servable
from serving.modelserver.config import Batching
from serving.tfs.signatures import Signature, TensorSpec
from serving.tfs.tensors import Array

SPEC = TensorSpec("x:0", np.dtype("f4"), (-1,))


@dataclass(eq=False)
class FakeModel:
    """Doubles `x`; *before* is called with the inputs first, so that a test can hold or fail a run."""

    before: Callable[[Array], None] = lambda _: None
    runs: list[list[float]] = field(default_factory=list)
    platform: str = "fake"
    exact_shapes: bool = True
    closed: bool = False
    rows_out: int | None = None
    """Answer no more rows than these, whatever was asked."""

    signatures: Mapping[str, Signature] = field(
        default_factory=lambda: {"serving_default": Signature({"x": SPEC}, {"y": SPEC})}
    )

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Double the input."""
        self.before(inputs["x"])
        self.runs.append(inputs["x"].tolist())
        return {"y": (inputs["x"] * 2)[: self.rows_out] if self.rows_out else inputs["x"] * 2}

    def close(self) -> None:
        """Note that the model was let go."""
        self.closed = True


@dataclass(eq=False)
class FakeVersion:
    """A version that requests run on."""

    model: FakeModel
    batching: Batching = field(default_factory=Batching)
    model_name: str = "m"
    number: int = 1
    in_flight: int = 0

    def hold(self) -> None:
        """Count who holds it."""
        self.in_flight += 1

    def release(self) -> None:
        """Count who holds it."""
        self.in_flight -= 1

    @property
    def servable(self) -> Servable:
        """The model, and how requests to it are run together."""
        return Servable(self.model, self.batching)
