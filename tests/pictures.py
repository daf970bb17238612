"""Pictures for tests: smooth, so that JPEG and resizing keep them near to what they were, and each seed another."""

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(width: int = 320, height: int = 240, seed: int = 0) -> NDArray[np.uint8]:
    """Return uint8[height, width, 3]: a few soft blobs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return *pixels* as a file; options as Pillow's `save` takes them."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, width: int = 320, height: int = 240) -> bytes:
    """Return a JPEG of good quality."""
    return encoded(picture(width, height, seed), "JPEG", quality=95)


def png(seed: int = 0, width: int = 320, height: int = 240) -> bytes:
    """Return a PNG."""
    return encoded(picture(width, height, seed), "PNG")
