"""Measure a trained model on test phantoms: figures with intervals, subgroups, heat maps, refusals, a baseline."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import measures, pallor
from models.catalog import Purpose
from models.phantoms import Phantoms, resize

THUMBNAIL_PX = 16

Measure = Callable[[NDArray[np.int64]], float]


def figures(
    purpose: Purpose, score: NDArray[np.float32], heatmaps: NDArray[np.float32], test: Phantoms
) -> dict[str, Any]:
    """Return each figure of merit with its 95 % bootstrap interval."""
    found = {}
    for name, (measure, cases) in _measures(purpose, score, heatmaps, test).items():
        low, high = measures.interval(measure, cases, seed=purpose.seed)
        found[name] = {"value": measure(cases), "low": low, "high": high}
    return found


def _measures(
    purpose: Purpose, score: NDArray[np.float32], heatmaps: NDArray[np.float32], test: Phantoms
) -> dict[str, tuple[Measure, NDArray[np.int64]]]:
    """Return each figure's function of case indices, and the cases that it is about."""
    cases = np.arange(len(score))
    positive = test.target >= purpose.thresholds[0]
    right = right_class(purpose, score, test)
    found: dict[str, tuple[Measure, NDArray[np.int64]]] = {"accuracy": (lambda i: float(right[i].mean()), cases)}
    if purpose.task == "binary":
        found["AUC"] = (lambda i: measures.auc(score[i], positive[i]), cases)
        found["sensitivity at 90 % specificity"] = (
            lambda i: measures.sensitivity_at(0.9, score[i], positive[i]),
            cases,
        )
        hit = points_at_evidence(heatmaps, test.mask)
        found["pointing game, on positives"] = (lambda i: float(hit[i].mean()), np.flatnonzero(positive))
    else:
        gap = np.abs(pallor.hemoglobin(score) - test.truth)
        found["mean absolute error in g/dL"] = (lambda i: float(gap[i].mean()), cases)
    return found


def right_class(purpose: Purpose, score: NDArray[np.float32], test: Phantoms) -> NDArray[np.bool_]:
    """Tell for each case whether its score stands for its true class."""
    right = measures.chosen(score, purpose.thresholds) == measures.chosen(test.target, purpose.thresholds)
    return np.asarray(right, np.bool_)


def subgroups(purpose: Purpose, score: NDArray[np.float32], test: Phantoms) -> dict[str, dict[str, float]]:
    """Return the share of right classes in every subgroup of the test phantoms."""
    right = right_class(purpose, score, test)
    return {
        kind: {str(name): float(right[names == name].mean()) for name in np.unique(names)}
        for kind, names in test.groups.items()
    }


def points_at_evidence(heatmaps: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """
    Tell for each case whether the brightest cell of its heat map float32[n, h, w] touches mask bool[n, H, W].

    Source: Zhang et al., "Top-down neural attention by excitation backprop" (2016), who named the pointing game; a
    cell counts as a whole, as it is the finest place that the map can name.
    """
    count, height, width = heatmaps.shape
    cells = mask.reshape(count, height, mask.shape[1] // height, width, mask.shape[2] // width).any(axis=(2, 4))
    return np.asarray(cells.reshape(count, -1)[np.arange(count), heatmaps.reshape(count, -1).argmax(axis=1)])


def thumbnail_auc(training: Phantoms, test: Phantoms, *, rounds: int = 20, ridge: float = 10.0) -> float:
    """
    Return the AUC on *test* of logistic regression on thumbnails: what the phantoms give away without their detail.

    A baseline near the model's own AUC would mean that the phantoms are too easy.
    """
    seen, asked = _thumbnails(training), _thumbnails(test)
    seen, asked = ((part - seen.mean(0)) / (seen.std(0) + 1e-6) for part in (seen, asked))
    weights = np.zeros(seen.shape[1])
    for _ in range(rounds):  # Newton's method; the ridge keeps it convex and the step defined
        score = 1 / (1 + np.exp(-np.clip(seen @ weights, -30, 30)))
        gradient = seen.T @ (score - training.target) + ridge * weights
        curvature = (seen.T * (score * (1 - score))) @ seen + ridge * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return measures.auc(asked @ weights, test.target > 0.5)


def _thumbnails(phantoms: Phantoms) -> NDArray[np.float64]:
    small = np.stack([resize(image, THUMBNAIL_PX) for image in phantoms.images])
    return np.asarray(small.mean(axis=-1).reshape(len(small), -1) / 255, np.float64)
