"""What is fitted after training: temperature, confidence table, familiarity."""

import numpy as np
import pytest

from models import calibration


def test_temperature_is_found_again() -> None:
    """Logits that were made too sure by a factor are divided by that factor."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 40_000)
    target = (rng.random(40_000) < calibration.sigmoid(logit)).astype(float)
    assert calibration.temperature(2.5 * logit, target) == pytest.approx(2.5, rel=0.05)


def test_confidence_is_the_share_of_right_cases_in_a_bin() -> None:
    """Values are counted within bins that never cross a threshold."""
    score = np.array([0.05] * 8 + [0.95] * 8)
    truth = np.array([0] * 8 + [2] * 4 + [1] * 4)
    edges, values = calibration.confidence_table(score, truth, (0.3, 0.7), bins_per_class=1)
    assert edges == [0.0, 0.3, 0.7, 1.0]
    assert values == [0.9, 0.5, 0.5]  # (8 + 1) / (8 + 2), an empty bin, (4 + 1) / (8 + 2)


def test_familiarity_of_its_own_features_is_about_one() -> None:
    """The root of the mean whitened square is about 1 for what was fitted, and far more for what differs."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(6, 6))
    fitted = calibration.familiarity(rng.normal(size=(4000, 6)) @ mixing + 3)
    own = (rng.normal(size=(500, 6)) @ mixing + 3 - fitted.centre) @ fitted.whitening
    assert np.sqrt((own**2).mean()) == pytest.approx(1, abs=0.1)
    strange = (3 + 8 * mixing[0] - 8 * mixing[3] - fitted.centre) @ fitted.whitening
    assert np.sqrt((strange**2).mean()) > 3


def test_familiarity_bears_a_feature_that_never_changes() -> None:
    """A channel that never fires gives no division by zero."""
    features = np.zeros((50, 2))
    features[:, 0] = np.arange(50)
    fitted = calibration.familiarity(features)
    assert np.isfinite(fitted.whitening).all()
