"""Write the documents of an imported version: contract, card and golden cases, each from what was measured."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.contract import SCHEMA, text
from models.importing.pictures import Pixels
from models.importing.reading import Reading
from models.importing.request import Explain, Request

TOLERANCE = 0.001
"""How far a server's answer to a golden case may be from the source's."""


@dataclass(frozen=True)
class Calibration:
    """
    What was fitted on labelled pictures, if any were given (`cases` is their number).

    `error` is the expected calibration error before and after, on pictures that the fit has not seen.
    """

    cases: int = 0
    temperature: float | None = None
    ood_limit: float | None = None
    confidence: tuple[list[float], list[float]] | None = None
    error: tuple[float, float] | None = None


@dataclass(frozen=True)
class Facts:
    """
    What an import found out. `grid` is of the heat map, None without one, and `no_heatmap` then says why.

    `formats` are the files that the version has; `parameters` is None where nobody counted; `once` is one row a run.
    """

    format: str
    source_digest: str
    weights_digest: str
    size: tuple[int, int]
    scaling: str
    reading: Reading
    explain: Explain
    grid: tuple[int, int] | None
    no_heatmap: str
    calibration: Calibration
    formats: tuple[str, ...]
    remarks: tuple[str, ...] = field(default=())


def limitations(request: Request, facts: Facts) -> list[str]:
    """Return in sentences what the version cannot do, for contract, card and the person at the terminal."""
    found = []
    if facts.explain == "none":
        found.append(f"No heat map: {facts.no_heatmap}.")
    if facts.calibration.ood_limit is None:
        found.append("No answer is Indeterminate: it was not measured what the model's own images look like.")
    if facts.calibration.temperature is None:
        measured = "nothing was fitted to correct it" if facts.calibration.cases else "its calibration was not measured"
        found.append(f"The score is as the source gives it: {measured}.")
    if request.task == "risk" and facts.calibration.confidence is None:
        found.append("Confidence was not measured: chance level is told for every answer.")
    if "saved_model.pb" not in facts.formats:
        found.append("LiteRT only: TensorFlow Serving and GPUs cannot run it.")
    return [*found, *facts.remarks]


def unproved(labels: Sequence[str], thresholds: Sequence[float], scores: NDArray[np.floating[Any]]) -> tuple[str, ...]:
    """Return in a sentence which labels no golden case has, by the source's scores; nothing: each has one."""
    has = set(np.searchsorted(np.asarray(thresholds), scores, side="right").tolist())
    left = [label for number, label in enumerate(labels) if number not in has]
    return (f"No golden case is answered {' or '.join(left)}: give pictures of each with --golden.",) if left else ()


def contract(request: Request, facts: Facts, card: str) -> dict[str, Any]:
    """Return the contract of an imported version; the schema is `contract.schema.json`."""
    height, width = facts.size
    temperature = facts.calibration.temperature
    limit = facts.calibration.ood_limit
    return {
        "schema": SCHEMA,
        "model": request.name,
        "version": request.version,
        "task": request.task,
        "labels": list(request.labels),
        "thresholds": list(facts.reading.thresholds),
        "input": {"height": height, "width": width, "channels": "RGB", "resize": "area", "fit": "stretch"},
        "calibration": {
            "method": "none" if temperature is None else "temperature",
            "temperature": 1.0 if temperature is None else round(temperature, 6),
        },
        "confidence": _confidence(request, facts),
        # The score of a version without a measure is always 0, so that this limit is never passed.
        "out_of_distribution": {"method": "none", "limit": 1.0}
        if limit is None
        else {"method": "mahalanobis", "limit": round(limit, 6)},
        "explain": {"method": "none", "reason": facts.no_heatmap}
        if facts.grid is None
        else {"method": facts.explain, "grid": list(facts.grid)},
        "recommendations": _recommendations(request),
        "intended_use": request.intended_use,
        "demonstration": request.demonstration,
        "limitations": limitations(request, facts),
        "weights_digest": facts.weights_digest,
        "card_digest": f"sha256:{hashlib.sha256(card.encode()).hexdigest()}",
    }


def _confidence(request: Request, facts: Facts) -> dict[str, Any]:
    if request.task == "binary":
        return {"method": "max"}
    if facts.calibration.confidence is None:
        return {"method": "table", "edges": [0.0, 1.0], "values": [round(1 / len(request.labels), 4)]}
    edges, values = facts.calibration.confidence
    return {"method": "table", "edges": edges, "values": values}


def _recommendations(request: Request) -> dict[str, str]:
    standing = "The image is unlike those that the model was made for: no result. Check the image and take it again."
    told = {label: f"The model's answer is {label}. A clinician decides what follows." for label in request.labels}
    return told | {"Indeterminate": standing} | request.recommendations


def card(request: Request, facts: Facts) -> str:
    """
    Return the card of an imported version as Markdown.

    Source of the sections: Mitchell et al., "Model cards for model reporting" (2019).
    """
    height, width = facts.size
    first = "Imported for demonstration, not for clinical use." if request.demonstration else "Imported."
    limits = "\n".join(f"- {sentence}" for sentence in limitations(request, facts)) or "None is known."
    return f"""\
{first}

# {request.title} (`{request.name}`), version {request.version}

## Model details

Imported from a {facts.format} file that somebody else trained. Source: `{facts.source_digest}`.
Weights: `{facts.weights_digest}`. Task: {request.task}; labels {", ".join(request.labels)}.

{_meaning(request, facts)}

## Intended use

{request.intended_use}

## Metrics

{_metrics(facts)}

## Preprocessing

Decode to 8-bit RGB. Resize to {height} by {width} (height by width) without keeping the aspect ratio, by OpenCV's
INTER_AREA where the image shrinks and INTER_LINEAR where it grows. Scaling, in the graph: {facts.scaling}.

## Explanation

{_explanation(facts)}

## What this version cannot do

{limits}

## Training data, evaluation data, ethical considerations

Not known to the import. Whoever approves this version has to ask those who trained the model.
"""


def _meaning(request: Request, facts: Facts) -> str:
    steps = ", ".join(
        f"{label} from {edge:g}" for label, edge in zip(request.labels[1:], facts.reading.thresholds, strict=True)
    )
    kinds = {
        "score": "The score is the network's one number.",
        "pair": "The score is the network's probability of the second label.",
        "classes": "The score names the likeliest class by its band, and within it leans to likely neighbours.",
    }
    return f"{kinds[facts.reading.kind]} {request.labels[0]} from 0, {steps}."


def _metrics(facts: Facts) -> str:
    found = facts.calibration
    if found.confidence is not None:
        return f"Confidence: how often each score was right on {found.cases} labelled pictures."
    if found.error is None:
        return "None were measured by the import."
    before, after = found.error
    if found.temperature is None:
        return f"Expected calibration error on {found.cases} labelled pictures: {before:.3f}."
    return (
        f"Calibrated on {found.cases} labelled pictures. Expected calibration error on half of them, fitted on the "
        f"other half: {before:.3f} before, {after:.3f} after."
    )


def _explanation(facts: Facts) -> str:
    if facts.grid is None:
        return f"None: {facts.no_heatmap}."
    height, width = facts.grid
    how = {
        "grad-cam": "Grad-CAM at the last feature map: evidence for the last label",
        "occlusion": "Occlusion: how much the evidence for the last label falls when a cell is made grey",
    }[facts.explain]
    return f"{how}, on a grid of {height} by {width}."


def write_extra(made: Path, document: dict[str, Any], card_text: str) -> Path:
    """Write contract and card into the version folder *made*, and return where they lie."""
    extra = made / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(text(document), encoding="utf-8")
    (extra / "card.md").write_text(card_text, encoding="utf-8")
    return extra


def write_golden(
    made: Path, document: dict[str, Any], images: Pixels, score: NDArray[np.floating], ood: NDArray[np.floating]
) -> None:
    """Write golden cases into the version folder *made*: pictures of the input's size with the right answers."""
    folder = made / "assets.extra" / "golden"
    folder.mkdir()
    listed: list[dict[str, Any]] = []
    for image, probability, distance in zip(images, score, ood, strict=True):
        label = outcome(document, float(probability), float(distance))
        # Counted over all: two labels can look alike as a name of a file.
        name = f"{_slug(label)}-{len(listed) + 1:02d}.png"
        Image.fromarray(image).save(folder / name, optimize=True)
        answer = {"probability": round(float(probability), 6), "ood_score": round(float(distance), 6)}
        listed.append({"file": name, "label": label, **answer})
    cases = json.dumps({"tolerance": TOLERANCE, "cases": listed}, indent=1) + "\n"
    (folder / "cases.json").write_text(cases, encoding="utf-8")


def _slug(label: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label.lower())


def outcome(document: dict[str, Any], probability: float, ood_score: float) -> str:
    """Return what the gateway would answer by a contract."""
    if ood_score > document["out_of_distribution"]["limit"]:
        return "Indeterminate"
    thresholds: Sequence[float] = document["thresholds"]
    return str(document["labels"][sum(threshold <= probability for threshold in thresholds)])
