"""Ask simple models the same question: were one of them good, the phantoms would be too easy to test anything."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models import measures
from models.phantoms import Phantoms, resize

THUMBNAIL_PX = 16
HISTOGRAM_BINS = 16
RIDGES = (10.0, 100.0, 1000.0)
"""Penalties that are tried; the best on the asked phantoms counts, which flatters the baseline."""

Features = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the colours of each image at 16 by 16 pixels, float64[n, 768] in 0..1."""
    small = np.stack([resize(image, THUMBNAIL_PX) for image in images])
    return np.asarray(small.reshape(len(small), -1) / 255, np.float64)


def histograms(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the roots of the shares of each colour's 16 levels, float64[n, 48]."""
    counts = [
        np.bincount((image[..., channel] >> 4).ravel(), minlength=HISTOGRAM_BINS)
        for image in images
        for channel in range(3)
    ]
    return np.sqrt(np.asarray(counts, np.float64).reshape(len(images), -1) / images[0, ..., 0].size)


FEATURES: dict[str, Features] = {"16 by 16 thumbnails": thumbnails, "colour histograms": histograms}


def areas(training: Phantoms, test: Phantoms, thresholds: tuple[float, ...]) -> dict[str, float]:
    """
    Return, for each kind of features, the AUC on *test* of a logistic regression fitted to *training*.

    Where there are several thresholds, each asks whether the target reaches it, and the largest AUC counts.
    """
    found = {}
    for name, features in FEATURES.items():
        seen, asked = features(training.images), features(test.images)
        mean, deviation = seen.mean(axis=0), seen.std(axis=0) + 1e-6
        seen, asked = ((part - mean) / deviation for part in (seen, asked))
        found[name] = max(
            measures.auc(asked @ logistic(seen, training.target >= threshold, ridge), test.target >= threshold)
            for threshold in thresholds
            for ridge in RIDGES
        )
    return found


def logistic(
    features: NDArray[np.float64], positive: NDArray[np.bool_], ridge: float, *, rounds: int = 12
) -> NDArray[np.float64]:
    """Return the weights float64[f] of a logistic regression with a *ridge* penalty, by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(rounds):  # the ridge keeps the loss convex and the step defined
        score = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (score - positive) + ridge * weights
        curvature = (features.T * (score * (1 - score))) @ features + ridge * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return weights
