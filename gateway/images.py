"""
From the bytes of a JPEG or PNG to the picture that a model takes: uint8[height, width, 3], RGB.

Checked before anything is decoded: what it is (by content, never by name), and how many pixels it says it has.

What becomes of unusual pictures:

- EXIF orientation is honoured: the picture is turned as a viewer would show it.
- Greyscale and palettes become RGB. CMYK is converted as libjpeg-turbo does it, without a colour profile.
- 16 bits a channel become 8 by scaling.
- Transparency is laid on white, which is how a page or a viewer shows it.
- A JPEG that carries further pictures (MPO: depth and gain maps, previews of phone cameras) gives its primary one,
  which every viewer shows. An animated PNG has no such one and is refused.
- Colour profiles and gamma chunks are not applied: the models were trained on samples as they are stored.
"""

import asyncio
import hmac
import io
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from gateway.contracts import InputSpec
from gateway.exif import jpeg_orientation, png_orientation
from gateway.problems import BrokenImage, SeveralPictures, TooManyPixels, UnsupportedImage

Pixels = NDArray[np.uint8]

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"

SCANS_AT_PIXELS_MAX = 10
"""
Scans that the largest picture may have; ten is what encoders write for a progressive JPEG. Each scan is a pass over all
pixels, so a smaller picture may have more.
"""

# Threads are ours to give: OpenCV's own would fight with them for the same cores.
cv2.setNumThreads(0)
# Our own limit is checked before Pillow sees a byte; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG whose header was checked, and its size in pixels as stored."""

    content: bytes
    kind: Literal["jpeg", "png"]
    width: int
    height: int


def check(content: bytes, *, pixels_max: int) -> EncodedImage:
    """
    Tell what the content is, and that its header asks for no more than can be decoded.

    Raises:
        UnsupportedImage: neither JPEG nor PNG.
        BrokenImage: the header cannot be read.
        TooManyPixels: width times height, or that times the number of scans, is too much work.
        SeveralPictures: an animated PNG.
    """
    if content.startswith(JPEG_START):
        image = _checked_jpeg(content, pixels_max)
    elif content.startswith(PNG_START):
        image = _checked_png(content)
    else:
        raise UnsupportedImage
    if image.width * image.height > pixels_max:
        raise TooManyPixels(limit_pixels=pixels_max)
    return image


def _checked_jpeg(content: bytes, pixels_max: int) -> EncodedImage:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as exc:
        raise BrokenImage from exc
    # Entropy-coded data never holds FF DA (a data byte FF is followed by 00), so this counts scans, those of embedded
    # previews included.
    if width * height * content.count(b"\xff\xda") > pixels_max * SCANS_AT_PIXELS_MAX:
        raise TooManyPixels(limit_pixels=pixels_max)
    return EncodedImage(content, "jpeg", width, height)


def _checked_png(content: bytes) -> EncodedImage:
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise BrokenImage
    width, height = struct.unpack_from(">II", content, 16)
    if not width or not height:
        raise BrokenImage
    if b"acTL" in content[: max(content.find(b"IDAT"), 0)]:
        raise SeveralPictures
    return EncodedImage(content, "png", width, height)


def decode(image: EncodedImage, spec: InputSpec) -> Pixels:
    """
    Decode *image* and bring it to the model's input.

    Returns:
        uint8[spec.height, spec.width, 3], RGB, 0..255; normalisation is in the graph.

    Raises:
        BrokenImage: it cannot be decoded to its end.
    """
    pixels = _decode_jpeg(image, spec) if image.kind == "jpeg" else _decode_png(image)
    return fit(pixels, spec)


def _decode_jpeg(image: EncodedImage, spec: InputSpec) -> Pixels:
    """
    Decode at the smallest scale that is at least twice the target.

    That is 1.8 to 2.4 times faster for large pictures, and nearer to the true resize than a full decode with a bilinear
    one.

    Raises:
        BrokenImage: it cannot be decoded to its end; libjpeg's warnings count: it fills what is missing with grey.
    """
    orientation = jpeg_orientation(image.content)
    width, height = (spec.width, spec.height) if orientation < 5 else (spec.height, spec.width)
    try:
        pixels = simplejpeg.decode_jpeg(image.content, "RGB", min_width=2 * width, min_height=2 * height)
    except ValueError as exc:
        raise BrokenImage from exc
    return _upright(pixels, orientation)


def _decode_png(image: EncodedImage) -> Pixels:
    """
    Decode with Pillow: as fast as OpenCV here, and it refuses damaged files without printing about them.

    Raises:
        BrokenImage: it cannot be decoded to its end.
    """
    try:
        # The class itself: Image.open would import and try the parsers of other formats, too.
        with PngImageFile(io.BytesIO(image.content)) as opened:
            pixels = _to_rgb(opened)
    # Pillow's parsers let pass what they meet: OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError.
    except Exception as exc:
        raise BrokenImage from exc
    return _upright(pixels, png_orientation(image.content))


def _to_rgb(image: Image.Image) -> Pixels:
    """Bring any mode that a PNG can have to 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32)
        return np.repeat(((wide + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return np.asarray(image.convert("RGB"))


# What undoes each EXIF orientation; the names say where the stored picture's first row and column lie.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],  # top, right
    3: lambda pixels: pixels[::-1, ::-1],  # bottom, right
    4: lambda pixels: pixels[::-1],  # bottom, left
    5: lambda pixels: pixels.transpose(1, 0, 2),  # left, top
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],  # right, top
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],  # left, bottom
}


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def fit(pixels: Pixels, spec: InputSpec) -> Pixels:
    """
    Resize a picture exactly as the model's contract says it was trained: filter `area`, fit `stretch`.

    Args:
        pixels: RGB, uint8[height, width, 3], 0..255.

    Returns:
        uint8[spec.height, spec.width, 3].

    Source: the cards of the models, "Preprocessing": OpenCV INTER_AREA when shrinking, INTER_LINEAR when a side grows.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (spec.height, spec.width):
        return pixels
    shrinks = height >= spec.height and width >= spec.width
    fitted = cv2.resize(
        pixels, (spec.width, spec.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(fitted, dtype=np.uint8)


def pixels_hmac(key: bytes, pixels: Pixels) -> str:
    """
    Return the keyed hash under which a picture is known: HMAC-SHA-256 over shape and bytes, in hex.

    A plain hash of a known picture could be linked to a person; with a key of the installation it cannot.
    """
    shape = struct.pack(">III", *pixels.shape)
    return hmac.digest(key, shape + pixels.tobytes(), "sha256").hex()


@dataclass(frozen=True)
class Decoded:
    """A picture as the model takes it, its keyed hash, and how long it waited for a thread and was decoded."""

    pixels: Pixels
    hmac: str
    queue_s: float
    decode_s: float


class Decoder:
    """Decodes off the event loop, in a few threads; what waits for one is bounded by who calls."""

    def __init__(self, threads: int, hmac_key: bytes) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._key = hmac_key

    async def decode(self, image: EncodedImage, spec: InputSpec) -> Decoded:
        """
        Decode *image* for *spec*.

        Raises:
            BrokenImage: it cannot be decoded to its end.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._decode, image, spec, time.perf_counter()
        )

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, image: EncodedImage, spec: InputSpec, asked_at: float) -> Decoded:
        started = time.perf_counter()
        pixels = decode(image, spec)
        digest = pixels_hmac(self._key, pixels)
        return Decoded(pixels, digest, started - asked_at, time.perf_counter() - started)
