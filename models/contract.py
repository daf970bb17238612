"""Write the contract document that travels inside a model version."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.catalog import SIDE_PX, Purpose
from models.weights import Weights

SCHEMA = "healthguard.io/contract/v1"


@dataclass(frozen=True)
class Measured:
    """
    What of a contract was measured on held-out phantoms.

    `confidence` is edges and values for risk, None where the score itself says it; `grid` is height and width of a
    heat map.
    """

    confidence: Sequence[list[float]] | None
    ood_limit: float
    grid: Sequence[int]


def document(
    purpose: Purpose, weights: Weights, measured: Measured, card: str, *, limitations: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the contract of a model version; the schema is `contract.schema.json`."""
    confidence: dict[str, Any] = {"method": "max"}
    if measured.confidence is not None:
        edges, values = measured.confidence
        confidence = {"method": "table", "edges": edges, "values": values}
    return {
        "schema": SCHEMA,
        "model": purpose.model,
        "version": purpose.version,
        "task": purpose.task,
        "labels": list(purpose.labels),
        "thresholds": list(purpose.thresholds),
        "input": {"height": SIDE_PX, "width": SIDE_PX, "channels": "RGB", "resize": "area", "fit": "stretch"},
        "calibration": {"method": "temperature", "temperature": round(weights.temperature, 6)},
        "confidence": confidence,
        "out_of_distribution": {"method": "mahalanobis", "limit": round(measured.ood_limit, 6)},
        "explain": {"method": "grad-cam", "grid": list(measured.grid)},
        "recommendations": dict(purpose.recommendations),
        "intended_use": purpose.intended_use,
        "demonstration": True,
        **({"limitations": list(limitations)} if limitations else {}),
        "weights_digest": weights.digest(),
        "card_digest": f"sha256:{hashlib.sha256(card.encode()).hexdigest()}",
    }


def text(contract: dict[str, Any]) -> str:
    """Return the contract as the JSON text that is both a file and a constant of the graph."""
    return json.dumps(contract, indent=1, ensure_ascii=False) + "\n"
