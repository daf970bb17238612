"""
What the chart asks for, and which secrets are missing from it: no I/O.

The chart says by a JSON document which Secrets there must be, and how each value comes to be:

- `make:password`: 32 random bytes, as text that needs no quoting in a URI;
- `make:key`: 32 random bytes in base64;
- any other text is taken as it is, with `${secret/key}` replaced by another value.

What exists is never changed: a key that was made anew would lock out what the old one locked.
"""

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KEY_BYTES = 32
_REFERENCE = re.compile(r"\$\{([a-z0-9.-]+)/([A-Za-z0-9._-]+)\}")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Data = dict[str, str]
"""The values of a Secret, decoded."""


class BadPlan(Exception):
    """The chart asks for what cannot be."""


class KeysLost(Exception):
    """There is data, and the secrets that open it are gone."""


class WantedSecret(BaseModel):
    """A Secret, and how each of its values comes to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = "Opaque"
    data: dict[str, str] = Field(min_length=1, max_length=32)


class WantedCertificate(BaseModel):
    """A Secret with a certificate of our own authority, for these names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: list[str] = Field(min_length=1, max_length=16)
    client: bool = False
    """Whether its holder calls others with it, too."""


class Plan(BaseModel):
    """All that the hook is to make."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Name
    labels: dict[str, str] = {}
    secrets: dict[Name, WantedSecret] = Field(default={}, max_length=32)
    claims: dict[Name, list[Name]] = Field(default={}, max_length=16)
    """Volume claims with data, and the Secrets without which it cannot be read."""
    made_before: list[Name] = Field(default=[], max_length=16)
    """Secrets that an earlier revision of the release made, and that data in a place we cannot look at depends on."""
    authority: Name | None = None
    """The Secret of our own certificate authority; none: no certificates are made."""
    certificates: dict[Name, WantedCertificate] = Field(default={}, max_length=16)


def missing(wanted: Mapping[str, WantedSecret], existing: Mapping[str, Data]) -> dict[str, Data]:
    """
    Return the values that have to be added, by Secret.

    Args:
        existing: what the cluster has of the wanted Secrets.

    Raises:
        BadPlan: a value refers to one that is neither there nor wanted.
    """
    known = {name: dict(data) for name, data in existing.items()}
    made: dict[str, Data] = {}
    for name, key, recipe in _in_order(wanted):
        if key not in known.get(name, {}):
            value = _value(recipe, known)
            known.setdefault(name, {})[key] = value
            made.setdefault(name, {})[key] = value
    return made


def check_keys_are_not_lost(plan: Plan, existing: Mapping[str, Data], claims: Sequence[str]) -> None:
    """
    Return if making secrets locks nobody out.

    Args:
        claims: those of the plan's claims that exist.

    Raises:
        KeysLost: a volume is there, or the release was, and a Secret that opens its data is not.
    """
    for claim in claims:
        if gone := [name for name in plan.claims[claim] if name not in existing]:
            raise KeysLost(
                f"The volume claim {claim} is there, and the Secret {', '.join(gone)} of its data is not: "
                "restore the Secret, or delete the claim with its data."
            )
    if gone := [name for name in plan.made_before if name not in existing]:
        raise KeysLost(
            f"This release is there already, and the Secret {', '.join(gone)} of its data is not: restore the Secret, "
            "or, where nothing was ever stored with it, uninstall the release and install it again."
        )


def _in_order(wanted: Mapping[str, WantedSecret]) -> list[tuple[str, str, str]]:
    """Return all values, those that refer to others last."""
    flat = [(name, key, recipe) for name, secret in wanted.items() for key, recipe in secret.data.items()]
    return sorted(flat, key=lambda entry: bool(_REFERENCE.search(entry[2])))


def _value(recipe: str, known: Mapping[str, Data]) -> str:
    if recipe == "make:password":
        return secrets.token_urlsafe(KEY_BYTES)
    if recipe == "make:key":
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()

    def referred(found: re.Match[str]) -> str:
        value = known.get(found[1], {}).get(found[2])
        if value is None:
            raise BadPlan(f"nothing is known of {found[0]}")
        return value

    return _REFERENCE.sub(referred, recipe)
