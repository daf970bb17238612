"""Figures of merit, against values worked out by hand or by counting."""

import numpy as np
import pytest

from models import measures


def test_auc_counts_pairs_in_order() -> None:
    """The area is the share of pairs in the right order, with ties counted half."""
    rng = np.random.default_rng(1)
    score, positive = rng.integers(0, 6, 40) / 6, rng.random(40) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in score[positive] for n in score[~positive]]
    assert measures.auc(score, positive) == pytest.approx(np.mean(pairs))


def test_auc_needs_both_classes() -> None:
    """Without negatives there is no pair."""
    with pytest.raises(ValueError, match="both classes"):
        measures.auc(np.array([0.1, 0.2]), np.array([True, True]))


def test_sensitivity_is_taken_above_the_negatives_quantile() -> None:
    """At 90 % specificity a tenth of the negatives lies above the threshold."""
    negatives, positives = np.arange(11) / 10, np.array([0.85, 0.95])
    score = np.concatenate([negatives, positives])
    assert measures.sensitivity_at(0.9, score, np.arange(13) > 10) == 0.5


def test_calibration_error_of_honest_scores_is_zero() -> None:
    """Scores that come true as often as they say have no error; those that are off by 0.2 have 0.2."""
    target = np.array([1, 0, 0, 0, 0] * 20)
    assert measures.calibration_error(np.full(100, 0.2), target) == pytest.approx(0)
    assert measures.calibration_error(np.full(100, 0.4), target) == pytest.approx(0.2)


def test_class_changes_at_the_threshold_itself() -> None:
    """A score equal to a threshold is in the upper class."""
    score = np.array([0.0, 0.29, 0.3, 0.69, 0.7, 1.0])
    assert measures.chosen(score, (0.3, 0.7)).tolist() == [0, 0, 1, 1, 2, 2]


def test_interval_holds_the_value_and_shrinks_with_cases() -> None:
    """The bootstrap interval lies around the mean and is narrower where there are more cases."""
    values = np.random.default_rng(3).random(4000)
    few = measures.interval(lambda i: float(values[i].mean()), np.arange(100), seed=1)
    many = measures.interval(lambda i: float(values[i].mean()), np.arange(4000), seed=1)
    assert many[0] < values.mean() < many[1]
    assert many[1] - many[0] < few[1] - few[0]
