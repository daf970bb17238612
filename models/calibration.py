"""Fit what follows training, on phantoms held out from it: temperature, isotonic map, confidence table."""

import itertools

import numpy as np
from numpy.typing import NDArray

from models.measures import calibration_error, chosen

Array = NDArray[np.floating]


def sigmoid(logit: Array) -> NDArray[np.float64]:
    """Map logits to scores in 0..1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(logit, np.float64), -60, 60))))


def cross_entropy(score: Array, target: Array) -> float:
    """Return the mean cross-entropy in nats; *target* may lie between 0 and 1."""
    bounded = np.clip(score, 1e-7, 1 - 1e-7)
    return float(-(target * np.log(bounded) + (1 - target) * np.log(1 - bounded)).mean())


def temperature(logit: Array, target: Array) -> float:
    """
    Return the divisor of the logit, 0.2..5, that makes the scores fit the targets best.

    Source: Guo et al., "On calibration of modern neural networks" (2017). The loss is convex in the divisor's
    inverse, so narrowing the range by thirds finds its one minimum.
    """
    low, high = 1 / 5, 1 / 0.2
    for _ in range(80):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if cross_entropy(sigmoid(logit * left), target) < cross_entropy(sigmoid(logit * right), target):
            high = right
        else:
            low = left
    return 2 / (low + high)


def platt(logit: Array, target: Array) -> tuple[float, float]:
    """
    Return the shift that is added to the logit, and the divisor after it, that make the scores fit the targets best.

    A temperature with a shift: guidance by masks leaves the logit with a bias of its own, which no divisor takes away.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    inputs = np.stack([np.asarray(logit, np.float64), np.ones(len(logit))], axis=1)
    found = np.array([1.0, 0.0])
    for _ in range(50):  # Newton's method: the loss is convex, but a whole step may go too far
        score = sigmoid(inputs @ found)
        curvature = (inputs.T * (score * (1 - score))) @ inputs
        step = np.linalg.solve(curvature + 1e-6 * np.eye(2), inputs.T @ (score - target))
        loss = cross_entropy(score, target)
        while cross_entropy(sigmoid(inputs @ (found - step)), target) > loss + 1e-12:
            step /= 2
        found -= step
    return float(found[1] / found[0]), float(1 / found[0])


def chosen_by_error(logit: Array, target: Array) -> tuple[float, float]:
    """
    Return the shift and the divisor of the logit that had the least error on cases that they were not fitted to.

    It may be none, 0 and 1. Isotonic regression is compared but never chosen: it would need a table in every graph.
    """
    ways = {
        "none": (0.0, 1.0),
        "temperature": (0.0, temperature(logit, target)),
        "temperature and shift": platt(logit, target),
    }
    errors = compared(logit, target)
    return ways[min(ways, key=lambda way: errors[way])]


def isotonic(score: Array, target: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Return scores in order and the never falling values that fit *target* best by squares: the rival of temperature.

    Source: Ayer et al., "An empirical distribution function for sampling with incomplete information" (1955), pool
    adjacent violators; Zadrozny and Elkan (2002) calibrate by it.
    """
    order = np.argsort(score, kind="stable")
    pools: list[tuple[float, int]] = []
    for value in np.asarray(target, np.float64)[order]:
        total, count = float(value), 1
        while pools and pools[-1][0] * count >= total * pools[-1][1]:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    fitted = np.concatenate([np.full(count, total / count) for total, count in pools])
    return np.asarray(score, np.float64)[order], fitted


def compared(logit: Array, target: Array) -> dict[str, float]:
    """Return the calibration error of one half of the cases: as they are, and calibrated two ways by the other half."""
    # Classes alternate, so that every second case would be one class alone.
    shuffled = np.random.default_rng(0).permutation(len(target))
    fitted, held = shuffled[::2], shuffled[1::2]
    divided = sigmoid(logit[held] / temperature(logit[fitted], target[fitted]))
    shift, divisor = platt(logit[fitted], target[fitted])
    knots, values = isotonic(sigmoid(logit[fitted]), target[fitted])
    mapped = np.interp(sigmoid(logit[held]), knots, values)
    return {
        "none": calibration_error(sigmoid(logit[held]), target[held]),
        "temperature": calibration_error(divided, target[held]),
        "temperature and shift": calibration_error(sigmoid((logit[held] + shift) / divisor), target[held]),
        "isotonic": calibration_error(mapped, target[held]),
    }


def confidence_table(
    score: Array, truth: NDArray[np.int64], thresholds: tuple[float, ...], *, bins_per_class: int = 5
) -> tuple[list[float], list[float]]:
    """
    Return edges and values: the share of cases in each bin of scores whose class was right.

    Bins lie within classes, since the share drops where a threshold is near; each is smoothed by one case right and
    one wrong, so that an empty bin says one half instead of nothing.
    """
    bounds = (0.0, *thresholds, 1.0)
    edges = [0.0]
    for low, high in itertools.pairwise(bounds):
        edges += [float(edge) for edge in np.linspace(low, high, bins_per_class + 1)[1:]]
    edges = [round(edge, 6) for edge in edges]
    index = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    right = chosen(score, thresholds) == truth
    values = [float((right[index == i].sum() + 1) / ((index == i).sum() + 2)) for i in range(len(edges) - 1)]
    return edges, [round(value, 4) for value in values]
