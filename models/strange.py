"""Make images that no model here was made for, to measure what the out-of-distribution limit refuses."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.catalog import PURPOSES, SIDE_PX
from models.phantoms import dataset, resize

Pictures = NDArray[np.uint8]

PIXELS_MAX = 40_000_000
"""Pictures with more pixels are passed over: a file of a few kilobytes may hold many times that."""

CROPS = 48
"""Crops that are taken of each picture of a folder, besides the whole of it."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".bmp"}
_BLURS_PX = (3.0, 6.0)
_SIDE_MIN_PX = 96


def images(model: str, own: Pictures, *, seed: int, count: int = 96) -> dict[str, Pictures]:
    """
    Return up to *count* images of each kind, uint8[n, 224, 224, 3], that *model* should not judge.

    *own* are phantoms of the model itself, to spoil. Photographs are not among them, since none may be shipped here:
    `pictures` reads those that the reader has.
    """
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    others = [
        dataset(other, count, seed=seed + number, side_px=SIDE_PX).images
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
        **spoiled(model, own[:count], rng),
    }


def spoiled(model: str, own: Pictures, rng: np.random.Generator) -> dict[str, Pictures]:
    """Return the model's own phantoms made unfit to be judged, by what was done to them."""
    blurred = {
        f"own phantoms blurred by {blur_px:.0f} pixels": np.stack(
            [cv2.GaussianBlur(image, (0, 0), blur_px) for image in own]
        )
        for blur_px in _BLURS_PX
    }
    turned = {"own phantoms turned by 90 degrees": np.rot90(own, axes=(1, 2))}
    # A mammogram upside down is that of the other breast; an eyelid upside down is none.
    if 1 not in PURPOSES[model].mirrors:
        turned["own phantoms upside down"] = np.rot90(own, 2, axes=(1, 2))
    return {
        **blurred,
        **turned,
        "own phantoms inverted": 255 - own,
        "own phantoms cut in tiles and shuffled": _shuffled(rng, own),
    }


def pictures(folder: Path, *, seed: int) -> dict[str, Pictures]:
    """
    Return crops of every picture below *folder* that Pillow can read, by the name of the subfolder it lies in.

    Each gives the whole of it and CROPS squares of random place and size, every second one turned grey. Folders of
    installed packages will do: many ship photographs, drawings and medical images for their examples.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and (picture := _read(path)) is not None:
            kind = path.relative_to(folder).parts[0] if path.parent != folder else folder.name
            found.setdefault(kind, []).extend(_crops(rng, picture))
    return {kind: np.stack(crops) for kind, crops in found.items()}


def _read(path: Path) -> NDArray[np.uint8] | None:
    """Return a picture as RGB, or None where it is too small, too large or no picture."""
    try:
        with Image.open(path) as file:
            if min(file.size) < _SIDE_MIN_PX or file.width * file.height > PIXELS_MAX:
                return None
            return np.asarray(file.convert("RGB"))
    except (OSError, ValueError):
        return None


def _crops(rng: np.random.Generator, picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    shortest = min(picture.shape[:2])
    crops = [resize(picture, SIDE_PX)]
    for _ in range(CROPS):
        side = int(rng.integers(min(_SIDE_MIN_PX, shortest), shortest + 1))
        y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
        crops.append(resize(np.ascontiguousarray(picture[y : y + side, x : x + side]), SIDE_PX))
    grey = [np.repeat(crop.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1) for crop in crops[1::2]]
    crops[1::2] = grey
    return crops


def _checkerboard(size_px: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] // size_px
    return np.asarray(np.repeat(((y + x) % 2 * 255)[..., None], 3, axis=-1), np.uint8)


def _shuffled(rng: np.random.Generator, own: Pictures, tiles: int = 8) -> Pictures:
    """Shuffle the tiles of each image: the colours stay, the anatomy goes."""
    side = SIDE_PX // tiles
    cut = own.reshape(-1, tiles, side, tiles, side, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, tiles**2, side, side, 3)
    mixed = rng.permuted(np.broadcast_to(np.arange(tiles**2), cut.shape[:2]), axis=1)
    moved = cut[np.arange(len(cut))[:, None], mixed].reshape(-1, tiles, tiles, side, side, 3)
    return np.asarray(moved.transpose(0, 1, 3, 2, 4, 5).reshape(own.shape), np.uint8)
