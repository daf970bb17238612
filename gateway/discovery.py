"""Which models this gateway serves, and where their servers are: from a static file (`kubernetes` has the watch)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.traffic import Canary, Shadow, Traffic

log = structlog.get_logger()

MODELS_FILE_BYTES_MAX = 1024 * 1024
FILE_INTERVAL_S = 1.0

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Address = Annotated[str, Field(pattern=r"^(unix:/.{1,100}|[^\s/]{1,255}:[0-9]{1,5})$")]
Addresses = Annotated[list[Address], Field(min_length=1, max_length=256)]
Number = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class Endpoint:
    """A server of one version."""

    address: str
    """`host:port` or `unix:/path`."""
    server_name: str = ""
    """What its certificate names; empty: the host of the address."""
    leaving: bool = False
    """It still answers and is about to end: what is in flight there may finish, and nothing new is sent."""

    @property
    def verified_name(self) -> str:
        """The name that a certificate must have."""
        return self.server_name or self.address.rpartition(":")[0].strip("[]")


@dataclass(frozen=True)
class DeclaredModel:
    """A model that is to be served: how its requests are split, and the servers of each version."""

    name: str
    traffic: Traffic
    endpoints: Mapping[int, tuple[Endpoint, ...]]


Found = Callable[[Sequence[DeclaredModel]], None]
"""Takes all models that are to be served now."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CanaryEntry(_Part):
    """A version that answers a part of the requests; with `sticky`, always to the same callers."""

    version: Number
    percent: Percent
    sticky: bool = False


class ShadowEntry(_Part):
    """A version that is asked beside a part of the requests."""

    version: Number
    percent: Percent


class ModelEntry(_Part):
    """A model of the file: its versions' servers are `endpoints`, but for those that `versions` names its own for."""

    name: Name
    stable: Number
    canary: CanaryEntry | None = None
    shadow: ShadowEntry | None = None
    endpoints: Addresses | None = None
    versions: dict[Number, Addresses] = Field(default={}, max_length=16)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.endpoints is None and self.traffic.versions - self.versions.keys():
            raise ValueError("a version that is to be asked has no endpoints")
        return self

    @property
    def traffic(self) -> Traffic:
        """How its requests are split."""
        canary = Canary(**self.canary.model_dump()) if self.canary else None
        shadow = Shadow(**self.shadow.model_dump()) if self.shadow else None
        return Traffic(self.stable, canary, shadow)

    def declared(self) -> DeclaredModel:
        """Return it as the gateway knows it."""
        endpoints = {
            version: tuple(Endpoint(address) for address in self.versions.get(version) or self.endpoints or ())
            for version in self.traffic.versions
        }
        return DeclaredModel(self.name, self.traffic, endpoints)


class DeclaredModels(_Part):
    """The discovery file: `{"models": [{"name": "cancer", "stable": 1, "endpoints": ["127.0.0.1:8500"]}]}`."""

    models: list[ModelEntry] = Field(max_length=256)

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
    return [entry.declared() for entry in DeclaredModels.model_validate_json(path.read_bytes()).models]


async def watch_models_file(path: Path, found: Found, *, interval_s: float = FILE_INTERVAL_S) -> None:
    """
    Tell *found* of the file's models whenever it has changed, for ever; a broken file leaves all as it is.

    It is read at intervals and not watched: a ConfigMap's file changes by a link that moves, which file watches miss.
    """
    seen = _stamp(path)
    while True:
        await asyncio.sleep(interval_s)
        stamp = _stamp(path)
        if stamp == seen:
            continue
        seen = stamp
        try:
            found(read_models_file(path))
        except (OSError, ValueError) as exc:
            log.error("models_file_refused", exception=type(exc).__qualname__)  # noqa: TRY400 - its text may be long


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with the file; None where it is away."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
