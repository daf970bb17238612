"""
What a model version says of itself (its contract), and what its scores therefore mean.

The document comes from the version itself, by its `contract` signature, so weights and meaning cannot part.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.tfs.client import Client

CONTRACT_BYTES_MAX = 64 * 1024
SIDE_PX_MAX = 4096
INDETERMINATE = "Indeterminate"

# records stores the outcome under the same rule.
Label = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,62}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class BadContract(Exception):
    """A version's contract is missing, too long, or not one that we understand; its text is never shown."""


class BadScores(Exception):
    """A model answered scores that are no probabilities."""


class BadHeatMap(BadScores):
    """A model answered a heat map that is none; its scores may be good."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class InputSpec(_Part):
    """The picture that the model takes: uint8[height, width, 3], RGB."""

    height: int = Field(ge=1, le=SIDE_PX_MAX)
    width: int = Field(ge=1, le=SIDE_PX_MAX)
    channels: Literal["RGB"]
    resize: Literal["area"]
    fit: Literal["stretch"]


class Calibration(_Part):
    """How the score was calibrated; the graph has done it already. With `none` nobody measured it."""

    method: Literal["temperature", "none"]
    temperature: float = Field(gt=0)


class MaxConfidence(_Part):
    """Confidence is the probability of the chosen one of two classes."""

    method: Literal["max"]

    def of(self, probability: float) -> float:
        """Return the confidence, 0.5..1."""
        return max(probability, 1.0 - probability)


class TableConfidence(_Part):
    """Confidence is the share of validation cases in the same bin of scores whose class was right."""

    method: Literal["table"]
    edges: list[Share] = Field(min_length=2, max_length=257)
    values: list[Share] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rising = all(low < high for low, high in pairwise(self.edges))
        if not rising or self.edges[0] != 0.0 or self.edges[-1] != 1.0 or len(self.values) != len(self.edges) - 1:
            raise ValueError("edges rise from 0 to 1 and there is a value for each bin")
        return self

    def of(self, probability: float) -> float:
        """Return the value of the bin; a bin includes its lower edge, the last one both."""
        return self.values[min(bisect_right(self.edges, probability), len(self.values)) - 1]


class OutOfDistribution(_Part):
    """Above the limit an image is unlike what the model was made for; with `none` the score is always 0, and below."""

    method: Literal["mahalanobis", "none"]
    limit: float = Field(ge=0)


class Explain(_Part):
    """The grid of the heat map that the `explain` signature gives; with `none` there is none, and `reason` says why."""

    method: Literal["grad-cam", "occlusion", "none"]
    grid: list[Annotated[int, Field(ge=1, le=SIDE_PX_MAX)]] = Field(default=[], max_length=2)
    reason: str | None = Field(default=None, max_length=1000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.grid) != (0 if self.method == "none" else 2):
            raise ValueError("a heat map has a height and a width")
        return self


class Contract(_Part):
    """A model version's contract document, `healthguard.io/contract/v1`."""

    schema_: Literal["healthguard.io/contract/v1"] = Field(alias="schema")
    model: str = Field(min_length=1, max_length=63)
    version: int = Field(ge=1)
    task: Literal["binary", "risk"]
    labels: list[Label] = Field(min_length=2, max_length=16)
    thresholds: list[Share] = Field(min_length=1, max_length=15)
    input: InputSpec
    calibration: Calibration
    confidence: MaxConfidence | TableConfidence = Field(discriminator="method")
    out_of_distribution: OutOfDistribution
    explain: Explain
    recommendations: dict[Label, Annotated[str, Field(min_length=1, max_length=1000)]]
    intended_use: str = Field(max_length=8000)
    demonstration: bool
    limitations: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(default=[], max_length=32)
    """What the version cannot do, a sentence each."""
    weights_digest: Digest
    card_digest: Digest

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.thresholds) != len(self.labels) - 1 or not all(
            low < high for low, high in pairwise(self.thresholds)
        ):
            raise ValueError("thresholds rise, and there is one fewer than labels")
        if set(self.recommendations) != {*self.labels, INDETERMINATE}:
            raise ValueError("there is a recommendation for each label and for Indeterminate, and for nothing else")
        return self


@dataclass(frozen=True)
class Finding:
    """What a score means: the outcome, how sure it is (0..1, none where indeterminate), and what to do."""

    outcome: str
    confidence: float | None
    recommendation: str


def decide(contract: Contract, probability: float, ood_score: float) -> Finding:
    """
    Turn a model's scores into a finding, as its contract says.

    Args:
        probability: calibrated, 0..1.
        ood_score: how far the image is from what the model knows; finite.

    Raises:
        BadScores: the scores are not such numbers, which also catches NaN.
    """
    if not (0.0 <= probability <= 1.0 and math.isfinite(ood_score)):
        raise BadScores
    if ood_score > contract.out_of_distribution.limit:
        return Finding(INDETERMINATE, None, contract.recommendations[INDETERMINATE])
    outcome = contract.labels[bisect_right(contract.thresholds, probability)]
    return Finding(outcome, contract.confidence.of(probability), contract.recommendations[outcome])


def parse_contract(document: bytes, model: str, version: int) -> Contract:
    """
    Read the contract of one version.

    Raises:
        BadContract: it is too long, not of the form, or of another model or version.
    """
    if len(document) > CONTRACT_BYTES_MAX:
        raise BadContract
    try:
        contract = Contract.model_validate_json(document)
    except ValidationError as exc:
        raise BadContract from exc
    if (contract.model, contract.version) != (model, version):
        raise BadContract
    return contract


async def fetch_contract(client: Client, model: str, version: int, *, timeout_s: float) -> Contract:
    """
    Ask a version for its contract, by its `contract` signature.

    Raises:
        BadContract: what it answers is not a contract of this version.
        serving.tfs.client.CallFailed: the call failed.
    """
    # Every signature has a batch dimension; one row asks for one document.
    rows: dict[str, np.ndarray[Any, Any]] = {"n": np.zeros(1, dtype=np.int32)}
    answer = await client.predict(model, version, "contract", rows, timeout_s=timeout_s)
    documents = answer.outputs.get("json")
    if documents is None or documents.shape != (1,) or not isinstance(documents[0], bytes):
        raise BadContract
    return parse_contract(documents[0], model, version)
