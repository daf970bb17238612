"""Draw the pictures of a training record: the curves of its losses and the reliability of its scores."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CURVES_NAME = "curves.png"
RELIABILITY_NAME = "reliability.png"

_WIDTH, _HEIGHT, _MARGIN = 480, 320, 40
_INK, _GRID = (40, 40, 40), (224, 224, 224)
_FIRST, _SECOND = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion. Source: Okabe and Ito, "Color universal design" (2008): told apart by every kind of eye."""

Points = list[tuple[float, float]]


class Chart:
    """Axes from 0 to a maximum, on which lines and points are drawn."""

    def __init__(self, title: str, across_max: float, up_max: float, labels: tuple[str, str]) -> None:
        """Draw empty axes that name what they measure."""
        self._image = Image.new("RGB", (_WIDTH, _HEIGHT), (255, 255, 255))
        self._draw = ImageDraw.Draw(self._image)
        self._maximum = (across_max, up_max)
        for step in range(6):
            across, up = across_max * step / 5, up_max * step / 5
            self._draw.line([self._at(across, 0), self._at(across, up_max)], _GRID)
            self._draw.line([self._at(0, up), self._at(across_max, up)], _GRID)
            self._draw.text(self._at(across, 0), f"{across:.3g}", _INK, anchor="mt")
            self._draw.text(self._at(0, up), f"{up:.2g} ", _INK, anchor="rm")
        self._draw.text((_WIDTH / 2, 8), title, _INK, anchor="mt")
        self._draw.text((_WIDTH / 2, _HEIGHT - 14), f"{labels[0]} (across), {labels[1]} (up)", _INK, anchor="mt")

    def line(self, points: Points, colour: tuple[int, int, int], name: str, row: int) -> None:
        """Join *points* and write their *name* in its *row*."""
        places = [self._at(*point) for point in points]
        self._draw.line(places, colour, 2)
        for x, y in places:
            self._draw.ellipse([x - 2, y - 2, x + 2, y + 2], colour)
        self._draw.text((_WIDTH - _MARGIN, 26 + 14 * row), name, colour, anchor="rt")

    def save(self, path: Path) -> None:
        """Write a PNG of few colours."""
        self._image.quantize(16).save(path, optimize=True)

    def _at(self, across: float, up: float) -> tuple[float, float]:
        wide, high = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
        share = min(up / self._maximum[1], 1)
        return _MARGIN + wide * across / self._maximum[0], _HEIGHT - _MARGIN - high * share


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write both pictures of a training *record* into *folder*."""
    curve = record["curve"]
    top = 1.2 * max(epoch["loss"] for epoch in curve)
    chart = Chart(f"{record['model']}: losses by epoch", len(curve), top, ("epoch", "cross-entropy in nats"))
    for row, (name, colour) in enumerate((("loss", _FIRST), ("validation_loss", _SECOND))):
        points: Points = [(number + 1, epoch[name]) for number, epoch in enumerate(curve)]
        chart.line(points, colour, name.replace("_", " "), row)
    chart.save(folder / CURVES_NAME)
    chart = Chart(f"{record['model']}: reliability on test phantoms", 1, 1, ("mean score", "mean target"))
    chart.line([(0, 0), (1, 1)], _INK, "perfect", 0)
    chart.line([(bin_["score"], bin_["target"]) for bin_ in record["reliability"]], _FIRST, "measured", 1)
    chart.save(folder / RELIABILITY_NAME)


def contact_sheet(images: NDArray[np.uint8], *, columns: int, side_px: int) -> Image.Image:
    """Return images uint8[n, s, s, 3] beside and below each other, each *side_px* squared."""
    small = [cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA) for image in images]
    rows = [np.concatenate(small[i : i + columns], 1) for i in range(0, len(small), columns)]
    return Image.fromarray(np.concatenate(rows, 0))
