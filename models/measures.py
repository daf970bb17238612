"""Measure how good, how well calibrated and how sure a model is. Everything here is a pure function of arrays."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def auc(score: Array, positive: NDArray[np.bool_]) -> float:
    """
    Return the area under the ROC curve: the share of pairs that are in the right order, ties counted half.

    Raises:
        ValueError: one of the two classes is empty.
    """
    if positive.all() or not positive.any():
        raise ValueError("the area needs both classes")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(positive.sum())
    excess = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * (len(score) - positives)))


def sensitivity_at(specificity: float, score: Array, positive: NDArray[np.bool_]) -> float:
    """Return the share of positives above the threshold that lets through 1 - *specificity* of the negatives."""
    return float((score[positive] > np.quantile(score[~positive], specificity)).mean())


def calibration_error(score: Array, target: Array, bins: int = 15) -> float:
    """Return the expected calibration error: the mean gap of score and target over equal bins, weighted by cases."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    gaps = [abs(float((score - target)[index == i].sum())) for i in range(bins)]
    return sum(gaps) / len(score)


def reliability(score: Array, target: Array, bins: int = 15) -> list[dict[str, float]]:
    """Return, for each equal bin that has cases, the mean score, the mean target and the number of cases."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    return [
        {
            "score": round(float(score[index == i].mean()), 5),
            "target": round(float(target[index == i].mean()), 5),
            "cases": int((index == i).sum()),
        }
        for i in range(bins)
        if (index == i).any()
    ]


def chosen(score: Array, thresholds: tuple[float, ...]) -> NDArray[np.int64]:
    """Return the class that each score stands for: the number of thresholds at or below it."""
    return np.searchsorted(np.array(thresholds), score, side="right").astype(np.int64)


def interval(
    measure: Callable[[NDArray[np.int64]], float], cases: NDArray[np.int64], *, seed: int, rounds: int = 300
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a *measure* over resamples of the indices *cases*."""
    rng = np.random.default_rng(seed)
    values = [measure(rng.choice(cases, len(cases))) for _ in range(rounds)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
