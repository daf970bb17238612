"""Choose and write golden cases: files with the answer that a right server gives, decode and resize included."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.catalog import SIDE_PX, Purpose
from models.measures import chosen
from models.phantoms import BATCH_MAX, SIZES_PX, draw, resize

CASES_MIN = 20
"""Cases of a version, at the least; every class has as many as each other."""

TOLERANCE = 0.001
MARGIN = 0.1
"""How far a case's score is from every threshold: a case must not change class by rounding."""

_ROUNDS_MAX = 20

Run = Callable[[str, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Run a signature of a loaded model: its name and inputs to its outputs."""


@dataclass(frozen=True)
class Candidate:
    """A phantom as a file would hold it, uint8[s, s, 3], with the class that it truly has."""

    image: NDArray[np.uint8]
    label: int


@dataclass(frozen=True)
class Case(Candidate):
    """A candidate with the model's answer, through the resize."""

    probability: float
    ood_score: float


class GoldenError(Exception):
    """A model answers too few phantoms clearly to be tested by any."""


def candidates(purpose: Purpose, *, seed: int) -> Iterator[list[Candidate]]:
    """Draw phantoms that no training, validation or test has seen, in batches of all canvas sizes."""
    seeds = np.random.SeedSequence(seed).generate_state(_ROUNDS_MAX, np.uint64)
    for number, batch_seed in enumerate(seeds):
        size_px = SIZES_PX[number % len(SIZES_PX)]
        part = draw(purpose.model, BATCH_MAX, seed=int(batch_seed), size_px=size_px)
        truth = chosen(part.target, purpose.thresholds)
        yield [Candidate(image, int(label)) for image, label in zip(part.images, truth, strict=True)]


def is_clear(label: int, probability: float, ood_score: float, purpose: Purpose, ood_limit: float) -> bool:
    """Tell whether an answer is right, familiar and far from every threshold."""
    right = int(chosen(np.array(probability), purpose.thresholds)) == label
    far = min(abs(probability - threshold) for threshold in purpose.thresholds) >= MARGIN
    return right and far and ood_score < 0.95 * ood_limit


def per_class(purpose: Purpose) -> int:
    """Return how many cases each class has."""
    return -(-CASES_MIN // len(purpose.labels))


def choose(purpose: Purpose, run: Run, *, ood_limit: float, seed: int) -> list[Case]:
    """
    Choose clear cases of every class, `per_class` of each.

    They test a server, not the model: that they are right is why they were chosen, and proves nothing about accuracy.

    Raises:
        GoldenError: too few clear cases were found.
    """
    cases: list[Case] = []
    for batch in candidates(purpose, seed=seed):
        for candidate in batch:
            if _has_room(cases, candidate, per_class(purpose)):
                case = _ask(candidate, run)
                if is_clear(case.label, case.probability, case.ood_score, purpose, ood_limit):
                    cases.append(case)
    if len(cases) < per_class(purpose) * len(purpose.labels):
        raise GoldenError(f"only {len(cases)} clear golden cases were found")
    return sorted(cases, key=lambda case: case.label)


def _has_room(cases: list[Case], candidate: Candidate, most: int) -> bool:
    """Tell whether a case is wanted: half a class at most has one canvas size, so that it comes in several sizes."""
    sizes = [len(case.image) for case in cases if case.label == candidate.label]
    return len(sizes) < most and sizes.count(len(candidate.image)) < most // 2


def _ask(candidate: Candidate, run: Run) -> Case:
    answer = run("serving_default", {"image": resize(candidate.image, SIDE_PX)[None]})
    return Case(candidate.image, candidate.label, float(answer["probability"][0]), float(answer["ood_score"][0]))


def write(folder: Path, purpose: Purpose, cases: list[Case], *, tolerance: float = TOLERANCE) -> None:
    """Write *cases* as PNG files with their list, `cases.json`, into a new *folder*."""
    folder.mkdir()
    listed: list[dict[str, Any]] = []
    for case in cases:
        label = purpose.labels[case.label]
        number = 1 + sum(entry["label"] == label for entry in listed)
        name = f"{label.lower()}-{number:02d}.png"
        _save(folder / name, case.image)
        answer = {"probability": round(case.probability, 6), "ood_score": round(case.ood_score, 6)}
        listed.append({"file": name, "label": label, **answer})
    text = json.dumps({"tolerance": tolerance, "cases": listed}, indent=1) + "\n"
    (folder / "cases.json").write_text(text, encoding="utf-8")


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG; a grey picture has one channel, as a detector's would, and tests that servers widen it."""
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    Image.fromarray(image[..., 0] if grey else image).save(path, optimize=True)
