"""Make images that no model here was made for, to measure what the out-of-distribution limit refuses."""

import numpy as np
from numpy.typing import NDArray

from models.catalog import PURPOSES, SIDE_PX
from models.phantoms import dataset

COUNT = 96
"""Images of each kind, or fewer where a kind has fewer."""


def images(model: str, own: NDArray[np.uint8], *, seed: int) -> dict[str, NDArray[np.uint8]]:
    """
    Return images by kind, uint8[n, 224, 224, 3] each, that *model* should not judge.

    *own* are phantoms of the model itself, to spoil. Photographs are not among them, since none may be shipped here.
    """
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (COUNT, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    others = [
        dataset(other, COUNT, seed=seed + number, side_px=SIDE_PX).images
        for number, other in enumerate(PURPOSES)
        if other != model
    ]
    return {
        "coloured noise": noise,
        "grey noise": np.repeat(noise[..., :1], 3, axis=-1),
        "one colour": np.broadcast_to(noise[:, :1, :1], noise.shape),
        "one grey": np.broadcast_to(noise[:, :1, :1, :1], noise.shape),
        "checkerboards": np.stack([_checkerboard(size) for size in range(1, 57)]),
        "the other model's phantoms": np.concatenate(others),
        "own phantoms inverted": 255 - own[:COUNT],
        "own phantoms cut in tiles and shuffled": _shuffled(rng, own[:COUNT]),
    }


def _checkerboard(size_px: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] // size_px
    return np.asarray(np.repeat(((y + x) % 2 * 255)[..., None], 3, axis=-1), np.uint8)


def _shuffled(rng: np.random.Generator, own: NDArray[np.uint8], tiles: int = 8) -> NDArray[np.uint8]:
    """Shuffle the tiles of each image: the colours stay, the anatomy goes."""
    side = SIDE_PX // tiles
    cut = own.reshape(-1, tiles, side, tiles, side, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, tiles**2, side, side, 3)
    mixed = rng.permuted(np.broadcast_to(np.arange(tiles**2), cut.shape[:2]), axis=1)
    moved = cut[np.arange(len(cut))[:, None], mixed].reshape(-1, tiles, tiles, side, side, 3)
    return np.asarray(moved.transpose(0, 1, 3, 2, 4, 5).reshape(own.shape), np.uint8)
