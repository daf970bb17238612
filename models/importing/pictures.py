"""Read the pictures that a person gives for calibration and golden cases, and draw some where none are given."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.importing.request import CannotImport

Pixels = NDArray[np.uint8]

PICTURES_MAX = 2_000
PER_CLASS_MIN = 10
DRAWN = 60
"""More than golden cases are needed, since only those are taken that the network answers clearly."""
_FILE_BYTES_MAX = 32 * 1024 * 1024
_PIXELS_MAX = 40_000_000
_HELD_BYTES_MAX = 2 * 1024**3
"""All pictures of a folder are held at once, at the size of the network's input."""
_ENDINGS = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Labelled:
    """Pictures uint8[n, h, w, 3] with the number of their label, int64[n]."""

    images: Pixels
    truth: NDArray[np.int64]


def labelled(folder: Path, labels: tuple[str, ...], size: tuple[int, int]) -> Labelled:
    """
    Read a folder that has a folder of pictures for each label.

    Raises:
        CannotImport: one is missing, has too few pictures, or there are too many in all.
    """
    images, truth = [], []
    for number, label in enumerate(labels):
        files = sorted(_pictures(folder / label)) if (folder / label).is_dir() else []
        if len(files) < PER_CLASS_MIN:
            raise CannotImport(
                f"--calibrate needs a folder {label!r} with at least {PER_CLASS_MIN} pictures; it has {len(files)}."
            )
        images += files
        truth += [number] * len(files)
    if len(images) > PICTURES_MAX:
        raise CannotImport(f"--calibrate takes at most {PICTURES_MAX} pictures; there are {len(images)}.")
    if len(images) * size[0] * size[1] * 3 > _HELD_BYTES_MAX:
        raise CannotImport(f"--calibrate takes fewer pictures of {size[0]} x {size[1]} than {len(images)}.")
    return Labelled(np.stack([read(path, size) for path in images]), np.array(truth, np.int64))


def golden(folder: Path | None, size: tuple[int, int]) -> Pixels:
    """
    Return the pictures of the golden cases, uint8[n, h, w, 3]: those in *folder*, or drawn ones.

    Raises:
        CannotImport: there is none in the folder.
    """
    # A list and its stack are held at once, and the score's temporaries beside them.
    count = min(DRAWN, _HELD_BYTES_MAX // 4 // (size[0] * size[1] * 3))
    if folder is None:
        return drawn(size, count)
    files = sorted(_pictures(folder))[:count]
    if not files:
        raise CannotImport("The folder of --golden has no PNG or JPEG picture.")
    return np.stack([read(path, size) for path in files])


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file())


def read(path: Path, size: tuple[int, int]) -> Pixels:
    """
    Read one picture as the contracts say: upright, RGB, resized by area and stretched to *size*, height and width.

    Raises:
        CannotImport: it is too large, or no picture.
    """
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise CannotImport(f"{path.name} is larger than {_FILE_BYTES_MAX} bytes.")
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            if image.width * image.height > _PIXELS_MAX:
                raise CannotImport(f"{path.name} has more than {_PIXELS_MAX} pixels.")
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    # Pillow's parsers let pass what they meet, as the gateway's do.
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CannotImport(f"{path.name} cannot be read as a picture.") from error
    return resized(pixels, size)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize uint8[h, w, 3] by area where it shrinks, linearly where it grows."""
    height, width = size
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=filter_), np.uint8)


def drawn(size: tuple[int, int], count: int) -> Pixels:
    """
    Draw coloured clouds of several grains, the same each time, uint8[count, h, w, 3].

    They mean nothing to any model. They test that a server computes what the source does, from dark to bright and
    from smooth to fine.
    """
    height, width = size
    rng = np.random.default_rng(20_261_122)
    images = []
    for number in range(count):
        cells = 2 ** (1 + number % 5)
        coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        cloud = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        bright = (number + 1) / count
        images.append(np.clip(cloud * bright + rng.normal(0, 6, cloud.shape), 0, 255).astype(np.uint8))
    return np.stack(images)
