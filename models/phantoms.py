"""
Draw phantoms: synthetic images whose truth is known because it was chosen first.

No patient data may be in this repository, so the models learn from these. Every image follows from a seed, and a whole
batch is drawn at once with numpy. What is particular to an organ is in `mammograms.py` and `pallor.py`; here is what
they share: the batch, random fields, and the way from a scene to the picture that a device would deliver.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models import mammograms, pallor
from models.scene import Scene

SIZES_PX = (224, 256, 288)
"""Square canvases that phantoms are drawn on, so that networks see resized pictures as well as native ones."""

VERSION = 2
"""Which phantoms: raised whenever a seed draws other images than before."""

BATCH_MAX = 32
"""Phantoms drawn at once; bounds memory at about 200 MB for the largest canvas and thread."""

THREADS = 2
"""Batches drawn at the same time: most of the work is in numpy and OpenCV, which let other threads run."""

_DRAW: dict[str, Callable[[Generator, NDArray[np.int64], int], Scene]] = {
    "cancer": mammograms.draw,
    "anemia": pallor.draw,
}


@dataclass(frozen=True)
class Phantoms:
    """
    Images with their truth.

    `images` uint8[n, s, s, 3], RGB; `target` float32[n], the score that a perfect model gives; `truth` float32[n],
    the physical value behind it (cancer: 1 malignant, 0 not; anemia: hemoglobin in g/dL); `mask` bool[n, s, s], where
    the evidence is; `groups`, names of subgroups by kind, each of length n.
    """

    images: NDArray[np.uint8]
    target: NDArray[np.float32]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    groups: dict[str, NDArray[np.str_]]


def draw(model: str, count: int, *, seed: int, size_px: int) -> Phantoms:
    """
    Draw *count* phantoms for *model* on a canvas of *size_px* squared.

    Classes are balanced: case i has class i modulo the number of classes.

    Raises:
        KeyError: there are no phantoms for this model.
        ValueError: *count* is not in 1..BATCH_MAX.
    """
    if not 1 <= count <= BATCH_MAX:
        raise ValueError(f"count must be in 1..{BATCH_MAX}")
    rng = np.random.default_rng(seed)
    scene = _DRAW[model](rng, np.arange(count), size_px)
    return Phantoms(_develop(rng, scene.light), scene.target, scene.truth, scene.mask, scene.groups)


def dataset(
    model: str, count: int, *, seed: int, side_px: int, progress: Callable[[int], None] = lambda _: None
) -> Phantoms:
    """
    Draw *count* phantoms and resize them to the model's input of *side_px*, as the gateway would.

    Batches cycle through all canvas sizes. Their seeds are spawned from *seed*, so that sets of different seeds never
    share an image, and each batch has its own generator, so that threads change nothing.
    """
    seeds = np.random.SeedSequence(seed).generate_state(-(-count // BATCH_MAX), np.uint64)

    def drawn(index: int) -> Phantoms:
        rows, size_px = min(BATCH_MAX, count - index * BATCH_MAX), SIZES_PX[index % len(SIZES_PX)]
        return _resized(draw(model, rows, seed=int(seeds[index]), size_px=size_px), side_px)

    parts: list[Phantoms] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(drawn, range(len(seeds))):
            parts.append(part)
            progress(len(part.target))
    return Phantoms(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.mask for part in parts]),
        {kind: np.concatenate([part.groups[kind] for part in parts]) for kind in parts[0].groups},
    )


def resize(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """
    Resize as the contracts say (filter `area`, fit `stretch`): uint8[h, w, 3] to uint8[side_px, side_px, 3].

    The gateway has its own, faster way for files; the golden cases hold the two together.
    """
    shrinks = image.shape[0] >= side_px and image.shape[1] >= side_px
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=filter_), np.uint8)


def _resized(part: Phantoms, side_px: int) -> Phantoms:
    images = np.stack([resize(image, side_px) for image in part.images])
    masks = np.stack([resize(np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255, side_px) for mask in part.mask])
    return Phantoms(images, part.target, part.truth, masks[..., 0] > 127, part.groups)


def _develop(rng: Generator, light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn light float32[n, s, s, 3] in 0..1 into what a device delivers: blurred, noisy, 8 bits, at times JPEG."""
    count = len(light)
    blur_px, noise = rng.uniform(0.3, 0.8, count), rng.uniform(0.004, 0.012, count)
    quality = np.where(rng.random(count) < 0.5, 0, rng.integers(75, 96, count))
    grey = np.ptp(light[:, ::16, ::16].reshape(count, -1, 3), axis=-1).max(axis=-1) < 1e-6
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    images = np.empty(light.shape, np.uint8)
    for i in range(count):
        blurred = cv2.GaussianBlur(light[i], (0, 0), float(blur_px[i]))
        # Photon noise grows with the root of the light; a floor of it is the electronics'.
        sigma = noise[i] * np.sqrt(0.15 + blurred.clip(0, 1))
        own = grain[i, ..., :1] if grey[i] else grain[i]
        pixels = ((blurred + sigma * own).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        images[i] = _jpeg(pixels, int(quality[i])) if quality[i] else pixels
    return images


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compress and decompress uint8[s, s, 3]."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
