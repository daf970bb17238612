"""Which models this gateway serves, and where their servers are: a static file (in a cluster, a watch)."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MODELS_FILE_BYTES_MAX = 1024 * 1024

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Endpoint = Annotated[str, Field(pattern=r"^(unix:/.{1,100}|[^\s/]{1,255}:[0-9]{1,5})$")]


class DeclaredModel(BaseModel):
    """A model that is to be served: the version that answers, and the servers that have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    stable: int = Field(ge=1)
    endpoints: list[Endpoint] = Field(min_length=1, max_length=256)


class DeclaredModels(BaseModel):
    """The discovery file: `{"models": [{"name": "cancer", "stable": 1, "endpoints": ["127.0.0.1:8500"]}]}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[DeclaredModel] = Field(max_length=256)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [model.name for model in self.models]
        if len(names) != len(set(names)):
            raise ValueError("a model is declared twice")
        return self


def read_models_file(path: Path) -> list[DeclaredModel]:
    """
    Read the discovery file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long or not of the form; pydantic's error names the place.
    """
    if path.stat().st_size > MODELS_FILE_BYTES_MAX:
        raise ValueError("the models file is too large")
    return DeclaredModels.model_validate_json(path.read_bytes()).models
