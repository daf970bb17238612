"""Learn what familiar images look like, so that strange ones can be told: a distance after Mahalanobis, by mode."""

import numpy as np
from numpy.typing import NDArray

from models.weights import Familiarity

DIRECTIONS_MAX = 96
"""Directions of most variance that a mode knows one by one; bounds the size of a model version."""

SHRINKAGE = 0.005
"""
How far covariances are drawn towards their diagonal.

Without it the directions in which phantoms hardly differ would decide alone, and there rounding is as large as the
signal.
"""


def fit(features: NDArray[np.floating], modes: NDArray[np.str_]) -> Familiarity:
    """
    Fit the distance from features float[n, f]; each of *modes* (a name for each case) has a centre of its own.

    Up to DIRECTIONS_MAX features the distance is Mahalanobis's; above, the variance of the directions left over is
    replaced by their mean, as in probabilistic principal components. Its limit is 1 until it is measured.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples" (2018), with a centre
    for each class; Tipping and Bishop, "Probabilistic principal component analysis" (1999).
    """
    parts = [_mode(np.asarray(features[modes == mode], np.float64)) for mode in np.unique(modes)]
    centre, scale, directions, precision, rest = (np.stack(a).astype(np.float32) for a in zip(*parts, strict=True))
    return Familiarity(centre, scale, directions, precision, rest, limit=1.0)


def _mode(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return centre[f], scale[f], directions[f, k], precision[k] and rest[] of one mode."""
    centre = features.mean(axis=0)
    # A floor keeps a channel that never fires on phantoms (its deviation is 0) from dividing by nothing.
    scale = 1 / np.maximum(features.std(axis=0), 1e-3)
    standard = (features - centre) * scale
    covariance = np.atleast_2d(np.cov(standard, rowvar=False))
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(len(centre)))
    left = max(len(values) - DIRECTIONS_MAX, 1)
    return centre, scale, vectors[:, left:], 1 / values[left:], np.array(1 / values[:left].mean())


def distance(part: Familiarity, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how far features float[n, f] are from the nearest mode of *part*, as `graph.distance` does."""
    standard = (features[:, None] - part.centre) * part.scale
    along = np.einsum("nmf,mfk->nmk", standard, part.directions, optimize=True)
    left = standard - np.einsum("nmk,mfk->nmf", along, part.directions, optimize=True)
    squares = (along**2 * part.precision).sum(axis=-1) + (left**2).sum(axis=-1) * part.rest
    return np.asarray(np.sqrt(squares.min(axis=1) / features.shape[1]) / part.limit, np.float64)
