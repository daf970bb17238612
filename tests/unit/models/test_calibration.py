"""What is fitted after training: temperature, its rival, the confidence table."""

import numpy as np
import pytest

from models import calibration


def test_temperature_is_found_again() -> None:
    """Logits that were made too sure by a factor are divided by that factor."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 40_000)
    target = (rng.random(40_000) < calibration.sigmoid(logit)).astype(float)
    assert calibration.temperature(2.5 * logit, target) == pytest.approx(2.5, rel=0.05)


def test_shift_and_temperature_are_found_again() -> None:
    """Logits that were moved and made too sure are moved back and divided."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 40_000)
    target = (rng.random(40_000) < calibration.sigmoid(logit)).astype(float)
    assert calibration.platt(2.5 * logit - 1, target) == pytest.approx((1, 2.5), rel=0.06)


def test_calibration_that_does_not_help_is_not_chosen() -> None:
    """Honest logits stay as they are or nearly so, and moved ones are moved back."""
    rng = np.random.default_rng(7)
    logit = rng.normal(0, 2, 40_000)
    target = (rng.random(40_000) < calibration.sigmoid(logit)).astype(float)
    assert calibration.chosen_by_error(logit, target) == pytest.approx((0, 1), abs=0.05)
    assert calibration.chosen_by_error(2 * logit - 2, target) == pytest.approx((2, 2), rel=0.06)


def test_confidence_is_the_share_of_right_cases_in_a_bin() -> None:
    """Values are counted within bins that never cross a threshold."""
    score = np.array([0.05] * 8 + [0.95] * 8)
    truth = np.array([0] * 8 + [2] * 4 + [1] * 4)
    edges, values = calibration.confidence_table(score, truth, (0.3, 0.7), bins_per_class=1)
    assert edges == [0.0, 0.3, 0.7, 1.0]
    assert values == [0.9, 0.5, 0.5]  # (8 + 1) / (8 + 2), an empty bin, (4 + 1) / (8 + 2)


def test_isotonic_fit_never_falls_and_keeps_the_mean() -> None:
    """Neighbours that are in the wrong order are pooled; worked out by hand."""
    score, fitted = calibration.isotonic(np.array([0.4, 0.1, 0.3, 0.2]), np.array([1.0, 0.0, 0.0, 1.0]))
    assert score.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert fitted.tolist() == [0.0, 0.5, 0.5, 1.0]


def test_calibrations_are_compared_on_the_half_they_have_not_seen() -> None:
    """Scores made too sure are mended by both ways, and none is worst."""
    rng = np.random.default_rng(4)
    logit = rng.normal(0, 2, 20_000)
    target = (rng.random(20_000) < calibration.sigmoid(logit)).astype(float)
    found = calibration.compared(3 * logit, target)
    assert found["none"] > 0.1
    assert max(found["temperature"], found["isotonic"]) < 0.02


def test_calibrations_are_compared_where_classes_alternate() -> None:
    """Sets whose every second case is positive, as the phantoms' are, have both classes in both halves."""
    rng = np.random.default_rng(4)
    target = (np.arange(4000) % 2).astype(float)
    logit = rng.normal(4 * target - 2, 2)
    assert max(calibration.compared(logit, target).values()) < 0.06
