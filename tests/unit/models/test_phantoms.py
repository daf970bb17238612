"""Phantoms: the same seed gives the same images, classes are balanced, and the truth is where the image says."""

import numpy as np
import pytest

from models import pallor, phantoms
from models.catalog import PURPOSES
from models.measures import chosen

MODELS = sorted(PURPOSES)


@pytest.mark.parametrize("model", MODELS)
def test_phantoms_of_one_seed_are_the_same(model: str) -> None:
    """Every byte and every truth follows from the seed."""
    one, other = (phantoms.draw(model, 6, seed=3, size_px=96) for _ in range(2))
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.truth, other.truth)
    assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize("model", MODELS)
def test_phantoms_of_other_seeds_differ(model: str) -> None:
    """No image of one seed is among those of another, so that tests are not training."""
    one, other = (phantoms.draw(model, 4, seed=seed, size_px=96).images for seed in (3, 4))
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a in one for b in other)


@pytest.mark.parametrize("model", MODELS)
def test_phantom_classes_are_balanced(model: str) -> None:
    """Every class has the same number of cases."""
    purpose = PURPOSES[model]
    labels = chosen(phantoms.draw(model, 12, seed=5, size_px=96).target, purpose.thresholds)
    assert np.bincount(labels, minlength=len(purpose.labels)).tolist() == [12 // len(purpose.labels)] * len(
        purpose.labels
    )


@pytest.mark.parametrize("model", MODELS)
def test_dataset_resizes_all_canvases_to_the_input(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of several canvas sizes come out as one array of the model's input size."""
    monkeypatch.setattr(phantoms, "BATCH_MAX", 3)
    drawn = phantoms.dataset(model, 8, seed=1, side_px=32)
    assert drawn.images.shape == (8, 32, 32, 3)
    assert drawn.mask.shape == (8, 32, 32)
    assert {len(names) for names in drawn.groups.values()} == {8}
    assert drawn.images.dtype == np.uint8


def test_mask_of_malignant_phantoms_only() -> None:
    """Only a malignant phantom has evidence of malignancy, and each has some."""
    drawn = phantoms.draw("cancer", 16, seed=9, size_px=96)
    assert np.array_equal(drawn.mask.any(axis=(1, 2)), drawn.truth == 1)


def test_mammograms_are_grey() -> None:
    """The three channels of a mammogram are one."""
    images = phantoms.draw("cancer", 8, seed=9, size_px=96).images.astype(int)
    assert np.abs(images[..., 0] - images[..., 2]).max() <= 1  # a JPEG rounds its colours by one


@pytest.mark.parametrize("site", pallor.SITES)
def test_pallor_follows_hemoglobin(site: str) -> None:
    """Where blood shows, a picture of little hemoglobin is less red against green than one of much."""
    ratios, truths = [], []
    for seed in (2, 3, 4):
        drawn = phantoms.draw("anemia", phantoms.BATCH_MAX, seed=seed, size_px=64)
        for i in np.flatnonzero(drawn.groups["site"] == site):
            red, green, _ = drawn.images[i][drawn.mask[i]].mean(axis=0)
            ratios.append(np.log(red / green))
            truths.append(drawn.truth[i])
    assert np.corrcoef(ratios, truths)[0, 1] > 0.8


def test_risk_passes_the_thresholds_at_the_limits_of_anemia() -> None:
    """The score is 0.3 at 12 g/dL and 0.7 at 8 g/dL, and can be turned back."""
    values = np.array([12.0, 8.0, 14.5], np.float32)
    assert pallor.risk(values)[:2] == pytest.approx([0.3, 0.7])
    assert pallor.hemoglobin(pallor.risk(values)) == pytest.approx(values)


@pytest.mark.parametrize("count", [0, phantoms.BATCH_MAX + 1])
def test_batch_size_is_bounded(count: int) -> None:
    """A batch too large for memory is refused."""
    with pytest.raises(ValueError, match="count"):
        phantoms.draw("cancer", count, seed=1, size_px=96)
