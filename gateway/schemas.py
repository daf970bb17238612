"""What goes in and out over HTTP at the gateway's own paths, and what it reads of records' answers."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.contracts import Contract


class Timings(BaseModel):
    """Where the time of a prediction went; milliseconds."""

    read_ms: float
    decode_ms: float
    inference_ms: float


class Prediction(BaseModel):
    """A stored prediction: preliminary until a doctor has judged it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019b2f7a-6c1e-7d3a-9b1c-2f4a5d6e7f80",
                    "number": 42,
                    "created_at": "2026-01-28T10:30:00.123456Z",
                    "model": "cancer",
                    "version": 1,
                    "weights_digest": "sha256:" + "0a" * 32,
                    "task": "binary",
                    "outcome": "Negative",
                    "score": 0.08,
                    "confidence": 0.92,
                    "ood_score": 3.4,
                    "recommendation": "No sign was found. This does not replace a doctor's judgement.",
                    "image_hmac": "5e" * 32,
                    "image_size_bytes": 48213,
                    "filename": "left.png",
                    "timings": {"read_ms": 0.4, "decode_ms": 1.9, "inference_ms": 9.7},
                    "source": "model",
                    "site": None,
                    "review_state": "preliminary",
                    "corrected_at": None,
                    "patient": None,
                }
            ]
        }
    )

    id: UUID
    number: int
    """The id of the same record on the unversioned paths."""
    created_at: AwareDatetime
    model: str | None
    version: int | None
    weights_digest: str | None
    task: str
    outcome: str
    """One of the model's labels, or `Indeterminate`: the image is unlike what the model was made for."""
    score: float | None
    """The calibrated probability, 0..1."""
    confidence: float | None
    """How sure the outcome is, 0..1; null where it is `Indeterminate`."""
    ood_score: float | None
    """How far the image is from what the model knows."""
    recommendation: str | None
    image_hmac: str | None
    """Keyed hash of the pixels as the model saw them; the image itself is not kept."""
    image_size_bytes: int | None
    filename: str | None
    timings: Timings | None
    source: Literal["model", "client"]
    site: str | None = None
    review_state: str
    corrected_at: AwareDatetime | None = None
    patient: str | None = None
    """The patient's pseudonym."""


class Explanation(BaseModel):
    """Which part of the picture the score came from."""

    method: Literal["grad-cam", "occlusion", "none"]
    rows: int
    columns: int
    heat: Annotated[list[list[Annotated[int, Field(ge=0, le=255)]]], Field(examples=[[[0, 12], [255, 40]]])]
    """From the top left; 0 cold, 255 hot. A square covers the same part of the picture in height and width."""

    @classmethod
    def of(cls, contract: Contract, heat: list[list[int]]) -> Self:
        """Return a heat map as clients get it."""
        return cls(method=contract.explain.method, rows=len(heat), columns=len(heat[0]), heat=heat)


class NewPrediction(Prediction):
    """A prediction that was made just now, and stored."""

    cached: bool = False
    """Whether the same version was asked about the same pixels before, and the scores are those of then."""
    explanation: Explanation | None = None
    """Only where it was asked for; it is not stored."""


class VersionState(BaseModel):
    """The state of one version on the model servers."""

    version: int
    state: str
    """START, LOADING, AVAILABLE, UNLOADING or END, as TensorFlow Serving names them."""
    replicas: int
    """How many servers say so."""


class Share(BaseModel):
    """A version, and its part of the requests."""

    version: int
    percent: float


class Model(BaseModel):
    """A model that is served here."""

    name: str
    available: bool
    """Whether predictions can be made at the moment."""
    stable: int
    """The version that answers."""
    canary: Share | None
    """A version on trial, which answers a part of the requests."""
    shadow: Share | None
    """A version that is asked beside a part of the requests; its answers are only compared."""
    versions: list[VersionState]
    contract: Contract | None
    """What the stable version says of itself; null while it is not available."""


class Models(BaseModel):
    """All models that are served here."""

    models: list[Model]


# What follows are the two replaced applications' own fields; names and rules are theirs (docs/existing-api.md).


class OldPrediction(BaseModel):
    """A finding as the breast-cancer application gave it."""

    prediction: Annotated[str, Field(examples=["Negative"])]
    """`Positive` or `Negative`."""
    confidence: Annotated[float, Field(examples=[0.92])]
    filename: Annotated[str | None, Field(examples=["left.png"])]


class OldRecord(BaseModel):
    """A record as the breast-cancer application kept it; `source` and `uuid` are ours."""

    id: Annotated[int, Field(examples=[42])]
    prediction: Annotated[str, Field(examples=["Negative"])]
    confidence: Annotated[float | None, Field(examples=[0.92])]
    filename: Annotated[str | None, Field(examples=["left.png"])]
    created_at: AwareDatetime
    source: Literal["model", "client"]
    uuid: UUID

    @classmethod
    def of(cls, stored: Prediction) -> Self:
        """Return *stored* as the old clients know it."""
        return cls(
            id=stored.number,
            prediction=stored.outcome,
            confidence=stored.confidence,
            filename=stored.filename,
            created_at=stored.created_at,
            source=stored.source,
            uuid=stored.id,
        )


class OldPredictionAndRecord(BaseModel):
    """A finding, and the record that was kept of it."""

    prediction: OldPrediction
    record: OldRecord


class OldRisk(BaseModel):
    """A result as the anemia application gave it."""

    condition: Annotated[str, Field(examples=["anemia"])]
    risk_level: Annotated[str, Field(examples=["medium"])]
    """`low`, `medium` or `high`."""
    confidence: Annotated[float, Field(examples=[0.78])]
    recommendation: Annotated[str | None, Field(examples=["Consult with a healthcare provider"])]
    analysis_date: Annotated[str, Field(examples=["2026-01-28T10:30:00Z"])]
    message_id: Annotated[str, Field(examples=["pred_019b2f7a6c1e7d3a9b1c2f4a5d6e7f80"])]
