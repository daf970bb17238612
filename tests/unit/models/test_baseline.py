"""The simple models that phantoms must defeat: they are real classifiers, and the phantoms do defeat them."""

import numpy as np
import pytest

from models import baseline, phantoms
from models.catalog import PURPOSES
from models.phantoms import Phantoms

COUNT = 160


def of_brightness(seed: int) -> Phantoms:
    """Return images whose class is their brightness."""
    rng = np.random.default_rng(seed)
    target = (np.arange(60) % 2).astype(np.float32)
    images = (rng.integers(0, 100, (60, 32, 32, 3)) + 60 * target[:, None, None, None]).astype(np.uint8)
    return Phantoms(images, target, target, np.zeros((60, 32, 32), np.bool_), {})


def test_baselines_find_what_is_easy() -> None:
    """On images whose class is their brightness each of them is perfect."""
    assert min(baseline.areas(of_brightness(1), of_brightness(2), (0.5,)).values()) > 0.99


@pytest.mark.parametrize("model", sorted(PURPOSES))
def test_phantoms_are_too_hard_for_thumbnails_and_histograms(model: str) -> None:
    """Even by the threshold and the penalty that suit it best, no baseline is good: shape and contrast must be seen."""
    training, test = (phantoms.dataset(model, COUNT, seed=seed, side_px=96) for seed in (41, 42))
    for name, area in baseline.areas(training, test, PURPOSES[model].thresholds).items():
        assert area <= 0.80, name
