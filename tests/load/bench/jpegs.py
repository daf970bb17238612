"""JPEGs without end, no two alike, at next to no cost: what the gateway is sent, and what the bare loop decodes."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.contracts import InputSpec
from gateway.images import check, decode
from models import phantoms
from models.litert import LiteRtVersion

DIFFERENT = 64
VARIANTS = 16
"""Values that each of two entries of a JPEG's quantization table takes."""
GRAIN = 3.0
"""Standard deviation of the noise on enlarged pictures: without it they would compress as no photograph does."""
QUALITY = 92
PIXELS_MAX = 1 << 24
FAMILIAR = 0.9
"""Pictures nearer to the out-of-distribution limit than this share are left out: a change could take them beyond."""
SPEC = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")

_TABLE = b"\xff\xdb"
_LAST_ENTRIES = 2 + 2 + 1 + 62
"""Where a table's last two entries are, from its marker: length, number, 64 entries. Source: ITU-T T.81 §B.2.4.1."""


def write(folder: Path, model: str, version: Path, side_px: int) -> None:
    """Write JPEGs of *side_px* squared into *folder*, which the *version* of *model* has findings about."""
    folder.mkdir(parents=True)
    for number, content in enumerate(itertools.islice(_familiar(model, version, side_px), DIFFERENT)):
        (folder / f"{number:03}.jpg").write_bytes(content)


def _familiar(model: str, version: Path, side_px: int) -> Iterator[bytes]:
    judge = LiteRtVersion(version)
    limit = FAMILIAR * float(judge.contract["out_of_distribution"]["limit"])
    for seed in itertools.count():
        for picture in phantoms.draw(model, phantoms.BATCH_MAX, seed=seed, size_px=SPEC.height).images:
            content = _jpeg(picture, side_px, seed)
            if judge.score(decoded(content))[1] <= limit:
                yield content


def _jpeg(picture: NDArray[np.uint8], side_px: int, seed: int) -> bytes:
    if side_px != picture.shape[0]:
        enlarged = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        grain = np.random.default_rng(seed).normal(0, GRAIN, (side_px, side_px, 1))
        picture = np.clip(enlarged + grain, 0, 255).astype(np.uint8)
    return encoded(picture)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture, RGB, as a JPEG."""
    _, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return content.tobytes()


def decoded(content: bytes) -> NDArray[np.uint8]:
    """Return a picture as the gateway decodes it."""
    return decode(check(content, pixels_max=PIXELS_MAX), SPEC)


@dataclass
class Jpegs:
    """
    JPEGs that differ in two entries of their quantization table, and so in their pixels.

    Each comes in three pieces, of which the one in the middle changes: nobody has to copy a whole one.
    """

    pieces: list[tuple[bytes, bytes, bytes]]
    _count: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def read(cls, folder: Path) -> "Jpegs":
        """Read what `write` wrote."""
        return cls([_cut(path.read_bytes()) for path in sorted(folder.iterdir())])

    def next(self) -> tuple[int, bytes, bytes, bytes]:
        """Return the place of a JPEG in `pieces`, and the three pieces of one that was not there before."""
        number = next(self._count)
        place, variant = number % len(self.pieces), number // len(self.pieces)
        head, entries, tail = self.pieces[place]
        first, second = divmod(variant % VARIANTS**2, VARIANTS)
        changed = bytes((min(255, entries[0] + first), min(255, entries[1] + second)))
        return place, head, changed, tail


def _cut(content: bytes) -> tuple[bytes, bytes, bytes]:
    at = content.index(_TABLE) + _LAST_ENTRIES
    return content[:at], content[at : at + 2], content[at + 2 :]


@dataclass
class DecodedJpegs:
    """Decoded JPEGs for a loop that runs a model itself, as rows of one."""

    jpegs: Jpegs

    def next(self) -> NDArray[np.uint8]:
        """Decode one that was not there before."""
        _, *pieces = self.jpegs.next()
        return decoded(b"".join(pieces))[None]
