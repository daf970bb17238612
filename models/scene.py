"""What the drawing of one organ hands to the camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scene:
    """
    Light before any device, with its truth.

    `light` float32[n, s, s, 3] in 0..1; `target`, `truth`, `mask` and `groups` as in `phantoms.Phantoms`.
    """

    light: NDArray[np.float32]
    target: NDArray[np.float32]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    groups: dict[str, NDArray[np.str_]]
