"""Phantoms: the same seed gives the same images, classes are balanced, and the truth is where the image says."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models import pallor, phantoms
from models.catalog import PURPOSES
from models.measures import chosen
from models.phantoms import Phantoms

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


def of_site(site: str) -> Phantoms:
    """Return the phantoms of a site among some at full size."""
    parts = [phantoms.draw("anemia", phantoms.BATCH_MAX, seed=seed, size_px=224) for seed in (2, 3)]
    images, truth, mask, names = (
        np.concatenate([getattr(part, name) if name != "site" else part.groups["site"] for part in parts])
        for name in ("images", "truth", "mask", "site")
    )
    here = names == site
    return Phantoms(images[here], truth[here], truth[here], mask[here], {})


def contrast(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Return how much neighbours differ in green optical density where blood shows."""
    density = -np.log((image[..., 1].astype(np.float32) + 4) / 259)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return float((density - cv2.GaussianBlur(density, (0, 0), 6))[inner].std())


@pytest.mark.parametrize("site", pallor.SITES)
def test_contrast_of_vessels_follows_hemoglobin(site: str) -> None:
    """Where blood shows, little hemoglobin makes vessels fade, under every lamp."""
    drawn = of_site(site)
    contrasts = [contrast(image, mask) for image, mask in zip(drawn.images, drawn.mask, strict=True)]
    assert np.corrcoef(contrasts, drawn.truth)[0, 1] > 0.8


@pytest.mark.parametrize("site", pallor.SITES)
def test_colour_alone_says_little_about_hemoglobin(site: str) -> None:
    """Lamp, perfusion and the tissue's own colour hide pallor from whoever looks at the mean colour."""
    drawn = of_site(site)
    means = [image[mask].mean(axis=0) for image, mask in zip(drawn.images, drawn.mask, strict=True)]
    ratios = [np.log(red / green) for red, green, _ in means]
    assert abs(np.corrcoef(ratios, drawn.truth)[0, 1]) < 0.6


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


def test_threads_change_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches drawn at the same time are those drawn one after the other."""
    monkeypatch.setattr(phantoms, "BATCH_MAX", 2)
    together = phantoms.dataset("anemia", 6, seed=1, side_px=32).images
    monkeypatch.setattr(phantoms, "THREADS", 1)
    assert np.array_equal(phantoms.dataset("anemia", 6, seed=1, side_px=32).images, together)
