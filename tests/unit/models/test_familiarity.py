"""Familiarity: the distance after Mahalanobis from the nearest mode."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models import familiarity

RNG = np.random.default_rng(2)
MIXING = RNG.normal(size=(6, 6))


def cloud(count: int, centre: float) -> NDArray[np.float64]:
    """Return points of one mode."""
    return RNG.normal(size=(count, 6)) @ MIXING + centre


def one_mode(features: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the same mode for each case."""
    return np.full(len(features), "only")


def test_distance_is_that_of_mahalanobis(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few features and no shrinkage it is the textbook's, divided by the root of their number."""
    monkeypatch.setattr(familiarity, "SHRINKAGE", 0.0)
    features, asked = cloud(4000, 3), cloud(20, 8)
    away = asked - features.mean(0)
    expected = np.sqrt(np.einsum("nf,fg,ng->n", away, np.linalg.inv(np.cov(features, rowvar=False)), away) / 6)
    fitted = familiarity.fit(features, one_mode(features))
    assert familiarity.distance(fitted, asked) == pytest.approx(expected, rel=2e-3)


def test_what_lies_between_two_modes_is_strange() -> None:
    """Each mode has a centre of its own; one centre for both would find the empty middle the most familiar."""
    features = np.concatenate([cloud(2000, 0), cloud(2000, 60)])
    modes = np.repeat(["near", "far"], 2000)
    middle, own = np.full((1, 6), 30.0), cloud(200, 60)
    fitted = familiarity.fit(features, modes)
    assert familiarity.distance(fitted, own).mean() == pytest.approx(1, abs=0.1)
    assert familiarity.distance(fitted, middle)[0] > 2
    assert familiarity.distance(familiarity.fit(features, one_mode(features)), middle)[0] < 1


def test_directions_left_over_count_by_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knowing few directions one by one, the distance of what was fitted is still about 1, and that of others large."""
    monkeypatch.setattr(familiarity, "DIRECTIONS_MAX", 2)
    features = cloud(4000, 3)
    fitted = familiarity.fit(features, one_mode(features))
    assert fitted.directions.shape == (1, 6, 2)
    assert np.sqrt((familiarity.distance(fitted, cloud(500, 3)) ** 2).mean()) == pytest.approx(1, abs=0.1)
    assert familiarity.distance(fitted, cloud(50, 60)).min() > 3


def test_limit_is_the_unit_of_distance() -> None:
    """Twice the limit is half the distance."""
    features = cloud(500, 0)
    fitted = familiarity.fit(features, one_mode(features))
    assert familiarity.distance(replace(fitted, limit=2.0), features) == pytest.approx(
        familiarity.distance(fitted, features) / 2
    )


def test_feature_that_never_changes_is_borne() -> None:
    """A channel that never fires gives no division by zero, and is strange as soon as it fires."""
    features = np.zeros((50, 2))
    features[:, 0] = np.arange(50)
    fitted = familiarity.fit(features, one_mode(features))
    assert familiarity.distance(fitted, features).max() < 3
    assert familiarity.distance(fitted, np.array([[25.0, 0.5]]))[0] > 30
