"""Measures that need images: the pointing game and the thumbnail baseline."""

import numpy as np

from models import evaluation
from models.phantoms import Phantoms


def test_pointing_game_is_won_where_the_brightest_cell_touches_the_mask() -> None:
    """One pixel of evidence in the brightest cell is enough, one in the cell beside it is not."""
    heatmaps = np.zeros((2, 2, 2), np.float32)
    heatmaps[:, 0, 1] = 1
    mask = np.zeros((2, 8, 8), np.bool_)
    mask[0, 3, 4] = mask[1, 4, 4] = True
    assert evaluation.points_at_evidence(heatmaps, mask).tolist() == [True, False]


def of_brightness(seed: int) -> Phantoms:
    """Return images whose class is their brightness."""
    rng = np.random.default_rng(seed)
    target = (np.arange(60) % 2).astype(np.float32)
    images = (rng.integers(0, 100, (60, 32, 32, 3)) + 60 * target[:, None, None, None]).astype(np.uint8)
    return Phantoms(images, target, target, np.zeros((60, 32, 32), np.bool_), {})


def test_thumbnail_baseline_finds_what_is_easy() -> None:
    """The baseline is a real classifier: on images whose class is their brightness it is perfect."""
    assert evaluation.thumbnail_auc(of_brightness(1), of_brightness(2)) > 0.99
