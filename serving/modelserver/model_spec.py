"""Which model and version a request names."""

from dataclasses import dataclass
from typing import Protocol

from serving.modelserver.refusals import invalid_argument
from serving.tfs.protos import ModelSpec


@dataclass(frozen=True)
class Asked:
    """A model, and a version by its number or its label; without either, the newest that is available."""

    name: str
    version: int | None = None
    label: str | None = None


class HasModelSpec(Protocol):
    """A request with a model_spec."""

    @property
    def model_spec(self) -> ModelSpec:
        """The model that is asked for."""

    def HasField(self, field_name: str) -> bool:  # noqa: N802 - protobuf's name
        """Say whether a field was set."""


def asked_by(request: HasModelSpec) -> Asked:
    """
    Return what *request* asks for.

    Raises:
        Refused: INVALID_ARGUMENT; it names no model.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return asked_for(request.model_spec)


def asked_for(spec: ModelSpec) -> Asked:
    """
    Return what *spec* asks for.

    Raises:
        Refused: INVALID_ARGUMENT; it names no model.
    """
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    return Asked(
        spec.name,
        spec.version.value if spec.HasField("version") else None,
        spec.version_label if spec.HasField("version_label") else None,
    )
