"""The pictures of a training record: small, and drawn where the numbers are."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models import plots


def record(*, losses: list[float]) -> dict[str, Any]:
    """Return what the pictures are drawn from."""
    curve = [{"loss": loss, "validation_loss": loss + 0.1} for loss in losses]
    return {"model": "cancer", "curve": curve, "reliability": [{"score": 0.5, "target": 0.5, "cases": 9}]}


def blue(path: Path) -> np.ndarray[Any, Any]:
    """Return the rows and columns of the first line's colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    return np.argwhere((pixels[..., 2] > 140) & (pixels[..., 0] < 60))


def test_pictures_are_small_files(tmp_path: Path) -> None:
    """Both are written, a few kilobytes each."""
    plots.write(tmp_path, record(losses=[0.7, 0.5, 0.3]))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {plots.CURVES_NAME, plots.RELIABILITY_NAME}
    assert max(sizes.values()) < 20_000


def test_lower_losses_are_drawn_lower(tmp_path: Path) -> None:
    """The end of a falling curve lies below its start."""
    plots.write(tmp_path, record(losses=[0.7, 0.5, 0.1]))
    places = blue(tmp_path / plots.CURVES_NAME)
    places = places[places[:, 0] > 60]
    assert places[places[:, 1].argmax(), 0] > places[places[:, 1].argmin(), 0] + 50


def test_contact_sheet_places_images_by_row() -> None:
    """The second row starts with the image after the last column."""
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 50, 100, 150)])
    sheet = np.asarray(plots.contact_sheet(images, columns=2, side_px=4))
    assert sheet.shape == (8, 8, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((0, 0), (0, 4), (4, 0), (4, 4))] == [0, 50, 100, 150]
