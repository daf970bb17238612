"""The heat map that says which part of a picture a score came from: as numbers, or laid over the picture."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.contracts import BadHeatMap, Contract
from gateway.images import Pixels
from serving.tfs.client import Prediction as Answer

Grid = NDArray[np.uint8]

LEVELS = 255
"""Heat 0..1 as a whole number: finer than the eye, and than what the map means."""

OPACITY = 0.45
"""Of the hottest place in the overlay; cold places show the picture as it is."""


def grid_of(answer: Answer, contract: Contract) -> Grid:
    """
    Return the heat map of a batch of one as uint8[h, w], 0..255, on the grid that the contract names.

    Raises:
        BadHeatMap: it is missing, of another size or type, or not within 0..1.
    """
    heat: np.ndarray[Any, Any] | None = answer.outputs.get("heatmap")
    if heat is None or heat.shape != (1, *contract.explain.grid) or heat.dtype != np.float32:
        raise BadHeatMap
    # NaN fails both comparisons, too. A rounding error of the graph is not worth a refusal.
    if not (heat.min() >= -1e-3 and heat.max() <= 1 + 1e-3):
        raise BadHeatMap
    levels: Grid = np.rint(heat[0].clip(0, 1) * LEVELS).astype(np.uint8)
    return levels


def overlay(pixels: Pixels, grid: Grid) -> bytes:
    """
    Return the picture that the model saw with the heat map over it, as a PNG.

    Args:
        pixels: uint8[height, width, 3], RGB.
        grid: uint8[h, w]; it is enlarged smoothly, since its squares mean no borders in the picture.
    """
    height, width = pixels.shape[:2]
    heat = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    # Inferno: as bright as it is hot, also in grey and to eyes that tell no red from green.
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO).astype(np.float32)
    share = (heat.astype(np.float32) * (OPACITY / LEVELS))[..., None]
    mixed = pixels[..., ::-1] * (1 - share) + colours * share
    done, encoded = cv2.imencode(".png", np.rint(mixed).astype(np.uint8))
    if not done:
        raise ValueError("the overlay cannot be encoded")
    return encoded.tobytes()
