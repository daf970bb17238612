"""Measure a model on phantoms that it has not seen: figures with intervals, subgroups, heat maps, refusals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import measures, pallor
from models.catalog import Purpose
from models.phantoms import Phantoms

ROWS = 32
"""Images that are asked about at once."""

Measure = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Answers:
    """A model's outputs for n images: `probability` and `ood_score` float32[n], `heatmap` float32[n, h, w]."""

    probability: NDArray[np.float32]
    ood_score: NDArray[np.float32]
    heatmap: NDArray[np.float32]


Ask = Callable[[NDArray[np.uint8]], Answers]
"""Run a model over uint8[n, 224, 224, 3]."""

Run = Callable[[str, NDArray[np.uint8]], dict[str, NDArray[Any]]]
"""Run a signature of a loaded model over a few images."""


def asking(run: Run) -> Ask:
    """Return a function that asks a loaded model about any number of images."""

    def ask(images: NDArray[np.uint8]) -> Answers:
        scored, explained = [], []
        for start in range(0, len(images), ROWS):
            part = np.ascontiguousarray(images[start : start + ROWS])
            scored.append({name: value.copy() for name, value in run("serving_default", part).items()})
            explained.append(run("explain", part)["heatmap"].copy())
        return Answers(
            np.concatenate([part["probability"] for part in scored]),
            np.concatenate([part["ood_score"] for part in scored]),
            np.concatenate(explained),
        )

    return ask


def report(purpose: Purpose, answers: Answers, test: Phantoms, *, seed: int) -> dict[str, Any]:
    """Return figures of merit and subgroups, each with its 95 % bootstrap interval."""
    cases = np.arange(len(test.target))
    kinds = {
        kind: {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
        for kind, names in test.groups.items()
    }
    right = right_class(purpose, answers.probability, test)

    def accuracy(index: NDArray[np.int64]) -> float:
        return float(right[index].mean())

    return {
        "figures": {
            name: _with_interval(measure, about, seed)
            for name, (measure, about) in _measures(purpose, answers, test, cases).items()
        },
        "subgroups": {
            kind: {name: _with_interval(accuracy, index, seed) for name, index in groups.items()}
            for kind, groups in kinds.items()
        },
    }


def refusals(ask: Ask, kinds: dict[str, NDArray[np.uint8]], limit: float) -> dict[str, dict[str, float]]:
    """Return, for each kind of images, how many there are and the share above the out-of-distribution limit."""
    return {
        kind: {"images": len(images), "share": float((ask(images).ood_score > limit).mean())}
        for kind, images in kinds.items()
    }


def _with_interval(measure: Measure, cases: NDArray[np.int64], seed: int) -> dict[str, float]:
    low, high = measures.interval(measure, cases, seed=seed)
    return {"value": measure(cases), "low": low, "high": high, "cases": len(cases)}


def _measures(
    purpose: Purpose, answers: Answers, test: Phantoms, cases: NDArray[np.int64]
) -> dict[str, tuple[Measure, NDArray[np.int64]]]:
    """Return each figure's function of case indices, and the cases that it is about."""
    score, positive = answers.probability, test.target >= purpose.thresholds[0]
    right = right_class(purpose, score, test)
    found: dict[str, tuple[Measure, NDArray[np.int64]]] = {
        "accuracy": (lambda i: float(right[i].mean()), cases),
        "expected calibration error": (lambda i: measures.calibration_error(score[i], test.target[i]), cases),
    }
    if purpose.task == "binary":
        found["AUC"] = (lambda i: measures.auc(score[i], positive[i]), cases)
        found["sensitivity at 90 % specificity"] = (
            lambda i: measures.sensitivity_at(0.9, score[i], positive[i]),
            cases,
        )
        hit = points_at_evidence(answers.heatmap, test.mask)
        found["pointing game, on positives"] = (lambda i: float(hit[i].mean()), np.flatnonzero(positive))
    else:
        gap = np.abs(pallor.hemoglobin(score) - test.truth)
        found["mean absolute error in g/dL"] = (lambda i: float(gap[i].mean()), cases)
    return found


def right_class(purpose: Purpose, score: NDArray[np.float32], test: Phantoms) -> NDArray[np.bool_]:
    """Tell for each case whether its score stands for its true class."""
    right = measures.chosen(score, purpose.thresholds) == measures.chosen(test.target, purpose.thresholds)
    return np.asarray(right, np.bool_)


def points_at_evidence(heatmaps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """
    Tell for each case whether the brightest cell of its heat map float32[n, h, w] touches mask bool[n, H, W].

    Source: Zhang et al., "Top-down neural attention by excitation backprop" (2016), who named the pointing game; a
    cell counts as a whole, as it is the finest place that the map can name.
    """
    count, height, width = heatmaps.shape
    cells = mask.reshape(count, height, mask.shape[1] // height, width, mask.shape[2] // width).any(axis=(2, 4))
    return np.asarray(cells.reshape(count, -1)[np.arange(count), heatmaps.reshape(count, -1).argmax(axis=1)])
