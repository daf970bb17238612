"""What all parts of a ServedModel's spec have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

VERSION_MAX = 999_999


class Part(BaseModel):
    """A part of the object: frozen, camelCase outside, and closed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )
