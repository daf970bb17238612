"""What the API answers, as the client hands it out: no behaviour, and nothing to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a log-in gives."""

    access_token: str = field(repr=False)
    expires_in: int
    """Life of the access token; seconds."""
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A stored prediction; what a record that a client posted does not have is none."""

    id: str
    number: int
    created_at: str
    """RFC 3339, UTC."""
    outcome: str
    task: str
    source: str
    review_state: str
    model: str | None = None
    version: int | None = None
    weights_digest: str | None = None
    score: float | None = None
    confidence: float | None = None
    ood_score: float | None = None
    recommendation: str | None = None
    image_hmac: str | None = None
    image_size_bytes: int | None = None
    filename: str | None = None
    patient: str | None = None
    """The pseudonym."""
    timings: Mapping[str, float] | None = None
    """read_ms, decode_ms, inference_ms."""
    site: str | None = None
    """Whose patient numbers these are."""
    corrected_at: str | None = None
    """When a client overwrote the outcome; RFC 3339, UTC."""


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many records of one model have one outcome."""

    source: str
    outcome: str
    count: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The history in numbers."""

    total: int
    counts: tuple[OutcomeCount, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served."""

    name: str
    available: bool
    stable: int
    contract: Mapping[str, Any] | None = None
