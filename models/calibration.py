"""Fit what follows training, on phantoms held out from it: temperature, confidence table, familiarity of images."""

import itertools

import numpy as np
from numpy.typing import NDArray

from models.measures import chosen
from models.weights import Familiarity

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


def familiarity(features: Array, *, shrinkage: float = 0.02) -> Familiarity:
    """
    Fit the distance from *features* float[n, f] after Mahalanobis, with the covariance shrunk towards its diagonal.

    The whitened distance is scaled to a mean square of about 1, whatever f is. Without shrinkage the directions in
    which phantoms hardly differ would decide alone, and there rounding is as large as the signal.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples" (2018).
    """
    centre = features.mean(axis=0, dtype=np.float64)
    # A floor keeps a channel that never fires on phantoms (its deviation is 0) from dividing by nothing.
    deviation = np.maximum(features.std(axis=0, dtype=np.float64), 1e-3)
    standard = (features - centre) / deviation
    covariance = np.cov(standard, rowvar=False)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.eye(len(centre))
    values, vectors = np.linalg.eigh(shrunk)
    whitening = (vectors / np.sqrt(values)) / deviation[:, None]
    return Familiarity(centre.astype(np.float32), whitening.astype(np.float32))
