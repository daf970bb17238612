"""Strange images: what is done to a model's own phantoms, and how pictures of a folder are read."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models import strange
from models.catalog import SIDE_PX


@pytest.fixture
def own() -> NDArray[np.uint8]:
    """Return two noisy images."""
    return np.random.default_rng(1).integers(0, 256, (2, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def test_spoiled_phantoms_are_what_their_names_say(own: NDArray[np.uint8]) -> None:
    """Turning moves the pixels and changes none, blur takes detail, and shuffling keeps each colour."""
    made = strange.spoiled("anemia", own, np.random.default_rng(2))
    assert np.array_equal(made["own phantoms turned by 90 degrees"][0], np.rot90(own[0]))
    assert np.array_equal(made["own phantoms upside down"][1], own[1][::-1, ::-1])
    assert made["own phantoms blurred by 6 pixels"].std() < 0.2 * own.std()
    shuffled = made["own phantoms cut in tiles and shuffled"]
    assert not np.array_equal(shuffled, own)
    assert np.array_equal(np.sort(shuffled, axis=None), np.sort(own, axis=None))


def test_what_a_mirror_allows_is_not_strange(own: NDArray[np.uint8]) -> None:
    """A mammogram upside down is a mirrored one of the other side, and the model was trained to take it."""
    assert "own phantoms upside down" not in strange.spoiled("cancer", own, np.random.default_rng(2))


def test_pictures_of_a_folder_become_crops_by_subfolder(tmp_path: Path, own: NDArray[np.uint8]) -> None:
    """Each picture gives the whole of it and its crops, half of them grey; what is no picture is passed over."""
    (tmp_path / "cats" / "more").mkdir(parents=True)
    Image.fromarray(own[0]).save(tmp_path / "cats" / "one.png")
    Image.fromarray(own[1]).save(tmp_path / "cats" / "more" / "two.jpg")
    (tmp_path / "cats" / "broken.png").write_bytes(b"no picture")
    Image.fromarray(own[0, :8, :8]).save(tmp_path / "cats" / "tiny.png")
    (found,) = strange.pictures(tmp_path, seed=1).items()
    kind, crops = found
    assert kind == "cats"
    assert crops.shape == (2 * (1 + strange.CROPS), SIDE_PX, SIDE_PX, 3)
    grey = (np.ptp(crops, axis=-1) == 0).all(axis=(1, 2))
    assert grey.sum() == strange.CROPS


def test_pictures_of_too_many_pixels_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is read from the header, before anything is decoded."""
    monkeypatch.setattr(strange, "PIXELS_MAX", 200 * 200 - 1)
    Image.new("RGB", (200, 200)).save(tmp_path / "large.png")
    assert strange.pictures(tmp_path, seed=1) == {}
