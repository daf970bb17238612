"""What goes in and out over HTTP. Everything that comes in is bounded here, before anything is done with it."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, Self, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from healthguard.tokens import TOKEN_BYTES_MAX
from records.cursors import CURSOR_LENGTH_MAX

PAGE_MAX = 200
SAVES_MAX = 64
INDETERMINATE = "Indeterminate"
_BIGINT_MAX = 2**63 - 1


def _printable(value: str) -> str:
    """Refuse blanks, and what could break a terminal or a CSV: control characters and the line separators."""
    if not value.strip() or any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in value):
        raise ValueError("must be printable and not blank")
    return value


def _normalised(value: str) -> str:
    """Return what identifies somebody as it is compared: a number typed twice is one patient, however it was typed."""
    return unicodedata.normalize("NFC", value.strip())


_PRINTABLE = AfterValidator(_printable)
_NORMALISED = AfterValidator(_normalised)


def _whole_seconds(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


Filename = Annotated[str, StringConstraints(min_length=1, max_length=255), _PRINTABLE]
# A contract may give its recommendation in several lines; it is shown, never part of a name or a log.
Recommendation = Annotated[
    str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
]
# Both make the pseudonym, so both are normalised, where they are stored and where they are searched for.
PatientNumber = Annotated[str, StringConstraints(min_length=1, max_length=64), _PRINTABLE, _NORMALISED]
Site = Annotated[str, StringConstraints(min_length=1, max_length=64), _PRINTABLE, _NORMALISED]
# A DNS label, as a ServedModel's name is one.
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
# Labels are the contract's, so any model may bring its own.
Outcome = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,62}$")]
CorrectedOutcome = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z -]{0,63}$")]
"""A label, never free text; which labels a row takes, `LABELS` says."""
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
ImageHmac = Annotated[str, StringConstraints(pattern=r"^([a-z0-9-]{1,16}:)?[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, le=3_600_000)]
Cursor = Annotated[str, StringConstraints(min_length=1, max_length=CURSOR_LENGTH_MAX)]
Number = Annotated[int, Field(ge=1, le=_BIGINT_MAX)]
"""The integer id of the old paths."""


class Body(BaseModel):
    """A request's body: strict, without fields that we don't know, without infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Timings(Body):
    """Where the time of a prediction went."""

    read_ms: Milliseconds
    decode_ms: Milliseconds
    inference_ms: Milliseconds


class NewPrediction(Body):
    """What a model answered, as the gateway sends it to be stored."""

    model: ModelName
    version: Annotated[int, Field(ge=1, le=_BIGINT_MAX)]
    weights_digest: Digest
    task: Literal["binary", "risk"]
    outcome: Outcome
    score: Share
    confidence: Share | None = None
    ood_score: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    recommendation: Recommendation | None = None
    image_hmac: ImageHmac
    image_size_bytes: Annotated[int, Field(ge=0, le=2**40)]
    filename: Filename | None = None
    patient: PatientNumber | None = None
    """The hospital's number; it is replaced by a pseudonym before it touches a finding."""
    site: Site | None = None
    timings: Timings

    @model_validator(mode="after")
    def _findings_have_a_confidence(self) -> Self:
        if self.confidence is None and self.outcome != INDETERMINATE:
            raise ValueError("a finding needs its confidence")
        return self


class Save(Body):
    """A model's answer, and for whom it was made."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_BYTES_MAX)] | None
    """The caller's own access token; null: the gateway vouches for a caller without one."""
    record: NewPrediction


class Saves(Body):
    """Model answers to be stored together: all of them, or none."""

    saves: Annotated[list[Save], Field(min_length=1, max_length=SAVES_MAX)]


class Correction(Body):
    """What an owner may correct; what is left out, or null, stays."""

    outcome: CorrectedOutcome | None = None
    confidence: Share | None = None
    filename: Filename | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(value is None for value in (self.outcome, self.confidence, self.filename)):
            raise ValueError("name at least one field")
        return self


class PredictionOut(BaseModel):
    """A stored prediction."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    number: int
    created_at: AwareDatetime
    model: str | None
    version: int | None
    weights_digest: str | None
    task: str
    outcome: str
    score: float | None
    confidence: float | None
    ood_score: float | None
    recommendation: str | None
    image_hmac: str | None
    image_size_bytes: int | None
    filename: str | None
    timings: Timings | None
    source: Literal["model", "client"]
    site: str | None
    review_state: Literal["preliminary"]
    corrected_at: AwareDatetime | None
    patient: str | None
    """The pseudonym, never the number."""


class Saved(BaseModel):
    """What was stored together, in the order in which it was sent."""

    saved: list[PredictionOut]


class Page(BaseModel):
    """One page of the history, newest first."""

    items: list[PredictionOut]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null on the last."""


class Filters(BaseModel):
    """Which rows of the history are asked for; all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName | None = None
    outcome: Outcome | None = None
    created_from: AwareDatetime | None = None
    """Inclusive."""
    created_to: AwareDatetime | None = None
    """Exclusive."""


class PageQuery(Filters):
    """The query of a page."""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Cursor | None = None


class Search(Body):
    """A page of one patient's history. It is a body: what identifies a patient never stands in a URL."""

    patient: PatientNumber
    site: Site | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Cursor | None = None


class OutcomeCount(BaseModel):
    """How many rows of one model, or posted by clients (model null), have one outcome."""

    source: Literal["model", "client"]
    model: str | None
    outcome: str
    count: int


class Summary(BaseModel):
    """The history in numbers."""

    total: int
    counts: list[OutcomeCount]


# What follows are the two replaced applications' own fields; names and rules are theirs (docs/existing-api.md).
BinaryOutcome = Literal["Positive", "Negative"]
RiskOutcome = Literal["LOW", "MEDIUM", "HIGH"]

LABELS: Final[Mapping[str, frozenset[str]]] = {
    "binary": frozenset({*get_args(BinaryOutcome), INDETERMINATE}),
    "risk": frozenset({*get_args(RiskOutcome), INDETERMINATE}),
}
"""The outcomes by task, of our own models and of whoever keeps to their labels."""


class OldRecordIn(BaseModel):
    """A record that a client made itself. Fields that we don't know are passed over, as they always were."""

    model_config = ConfigDict(allow_inf_nan=False)

    prediction: BinaryOutcome
    confidence: Share
    filename: Filename


class OldCorrection(Correction):
    """Any of the three fields, under the old name."""

    model_config = ConfigDict(extra="ignore", strict=False)

    outcome: BinaryOutcome | None = Field(default=None, alias="prediction")


class OldRecord(BaseModel):
    """A record of the breast-cancer application; `source` and `uuid` are ours."""

    id: int
    prediction: BinaryOutcome
    confidence: float
    filename: str | None
    created_at: AwareDatetime
    source: Literal["model", "client"]
    uuid: UUID


class OldSummary(BaseModel):
    """Statistics of the breast-cancer application."""

    total: int
    positive: int
    negative: int
    positive_percentage: float
    """Of the total, 0..100, two digits after the point; 0 where there are no records."""


class OldResult(BaseModel):
    """A result of the anemia application; `source` is ours."""

    condition: str | None
    risk_level: Literal["low", "medium", "high"]
    confidence: float
    recommendation: str | None
    analysis_date: Annotated[datetime, PlainSerializer(_whole_seconds, return_type=str)]
    message_id: str
    source: Literal["model", "client"]
