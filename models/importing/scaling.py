"""Known ways to bring pixels, 0..255, to what a network was trained on."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.importing.request import CannotImport

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Scaling:
    """Each channel times `factor` plus `offset`; with `bgr`, blue comes first."""

    factor: Colour
    offset: Colour
    bgr: bool = False


def _same(factor: float, offset: float) -> Scaling:
    return Scaling((factor, factor, factor), (offset, offset, offset))


SCALINGS: MappingProxyType[str, Scaling] = MappingProxyType(
    {
        "none": _same(1.0, 0.0),
        "unit": _same(1 / 255, 0.0),
        "symmetric": _same(1 / 127.5, -1.0),
        # Source: the means and deviations of ImageNet as keras.applications.imagenet_utils has them.
        "torch": Scaling(
            (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
        ),
        "caffe": Scaling((1.0, 1.0, 1.0), (-103.939, -116.779, -123.68), bgr=True),
    }
)
"""By the name that `--scaling` takes."""


def apply(scaling: Scaling, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale uint8[n, h, w, 3] as the source's caller did, float32 throughout."""
    values = images.astype(np.float32)
    if scaling.bgr:
        values = values[..., ::-1]
    return values * np.array(scaling.factor, np.float32) + np.array(scaling.offset, np.float32)


MEANINGS = "none: 0 to 255 as they are; unit: 0 to 1; symmetric: -1 to 1; torch and caffe: ImageNet's means"

_RANGES = MappingProxyType({"none": (0.0, 255.0), "unit": (0.0, 1.0), "symmetric": (-1.0, 1.0)})


def choose(asked: str | None, *, inside: bool, quantised_range: tuple[float, float] | None = None) -> str:
    """
    Return the name of the scaling that goes before the network.

    Args:
        asked: what the person said, which always counts.
        inside: whether the network itself begins by scaling pixels.
        quantised_range: the least and the greatest number that a quantised input can hold.

    Raises:
        CannotImport: it cannot be known, and nobody said it.
    """
    if asked is not None:
        return asked
    if inside:
        return "none"
    found = None if quantised_range is None else of_range(*quantised_range)
    if found is None:
        raise CannotImport(
            "The file does not say how pixels are scaled before the network sees them. Say what the training code "
            f"did with --scaling ({MEANINGS})."
        )
    return found


def of_range(low: float, high: float) -> str | None:
    """Return the scaling whose range is that of a quantised input, within 2 %; None where there is none."""
    for name, (least, greatest) in _RANGES.items():
        slack = 0.02 * (greatest - least)
        if abs(low - least) <= slack and abs(high - greatest) <= slack:
            return name
    return None
