"""
From the bytes of a JPEG or PNG to the picture that a model takes: uint8[height, width, 3], RGB. WebP and TIFF are
options of an installation; DICOM will be the next kind: its header is checked in `check`, its pixels made in `decode`.

Checked before anything is decoded: what it is (by content, never by name), how many pixels it says it has, and how
much memory decoding would take.

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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gateway.contracts import InputSpec
from gateway.exif import (
    SOS,
    jpeg_orientation,
    jpeg_segments,
    png_orientation,
    tiff_orientation,
    webp_orientation,
)
from gateway.optional_images import is_tiff, is_webp, tiff_size, webp_size
from gateway.problems import BrokenImage, SeveralPictures, TooManyPixels, UnsupportedImage

Pixels = NDArray[np.uint8]

JPEG_START = b"\xff\xd8\xff"
SCAN = b"\xff\xda"
PNG_START = b"\x89PNG\r\n\x1a\n"

BYTES_MAX = 160 * 1024 * 1024
"""What the decoder of one picture may hold at once, by the picture's header; bytes. A PNG in colour of 40 Mpx fits."""

SIDE_PX_MAX = 65_535
"""The longest side of a PNG; a JPEG's cannot be longer. A strip of a picture is at least a row."""

WHOLE_PIXELS_MAX = 2_000_000
STRIP_PIXELS = 250_000
"""Larger PNGs are converted and reduced strip by strip: each conversion of a whole one would be another copy of it."""

CHUNKS_MAX = 16_384
"""Chunks of a PNG. Encoders write pieces of 8 KiB and more; a million empty ones would keep a thread for seconds."""

SCANS_AT_PIXELS_MAX = 10
"""
Scans that the largest picture may have; ten is what encoders write for a progressive JPEG. Each scan is a pass over all
pixels, so a smaller picture may have more.
"""

# Threads are ours to give: OpenCV's own would fight with them for the same cores.
cv2.setNumThreads(0)
# Our own limit is checked before Pillow sees a byte; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


Kind = Literal["jpeg", "png", "webp", "tiff"]
USUAL: frozenset[Kind] = frozenset({"jpeg", "png"})


@dataclass(frozen=True)
class EncodedImage:
    """An image whose header was checked, and its size in pixels as stored."""

    content: bytes | bytearray
    kind: Kind
    width: int
    height: int


def check(content: bytes | bytearray, *, pixels_max: int, kinds: frozenset[Kind] = USUAL) -> EncodedImage:
    """
    Tell what the content is, and that its header asks for no more than can be decoded.

    Args:
        kinds: what is taken here.

    Raises:
        UnsupportedImage: none of them.
        BrokenImage: the header cannot be read.
        TooManyPixels: width times height, or that times the number of scans, is too much work; or a side is too long.
        SeveralPictures: an animated PNG or WebP, or a TIFF of several pages.
    """
    if content.startswith(JPEG_START):
        image = _checked_jpeg(content, pixels_max)
    elif content.startswith(PNG_START):
        image = _checked_png(content, pixels_max)
    elif "webp" in kinds and is_webp(content):
        image = EncodedImage(content, "webp", *webp_size(content))
    elif "tiff" in kinds and is_tiff(content):
        image = EncodedImage(content, "tiff", *tiff_size(content))
    else:
        raise UnsupportedImage
    if image.width * image.height > pixels_max:
        raise TooManyPixels(limit_pixels=pixels_max)
    return image


def _checked_jpeg(content: bytes | bytearray, pixels_max: int) -> EncodedImage:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as exc:
        raise BrokenImage from exc
    # Entropy-coded data never holds FF DA (a data byte FF is followed by 00), so this counts scans, those of embedded
    # previews included.
    if width * height * content.count(SCAN) > pixels_max * SCANS_AT_PIXELS_MAX:
        raise TooManyPixels(limit_pixels=pixels_max)
    return EncodedImage(content, "jpeg", width, height)


def _checked_png(content: bytes | bytearray, pixels_max: int) -> EncodedImage:
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise BrokenImage
    width, height = struct.unpack_from(">II", content, 16)
    if not width or not height:
        raise BrokenImage
    if max(width, height) > SIDE_PX_MAX:
        raise TooManyPixels("A side of the image is too long.", limit_pixels=pixels_max)
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
        TooManyPixels: decoding it would take too much memory.
    """
    orientation = ORIENTATIONS[image.kind](image.content)
    # Reduced first and turned then: a turned copy of the large picture would double what it takes.
    lying = spec if orientation < 5 else spec.model_copy(update={"height": spec.width, "width": spec.height})
    return _upright(DECODERS[image.kind](image, lying), orientation)


def _bounded(image: EncodedImage, bytes_needed: float) -> None:
    """
    Refuse what would take too much memory.

    Raises:
        TooManyPixels: it would; `limit_pixels` says how many of its kind fit.
    """
    if bytes_needed > BYTES_MAX:
        raise TooManyPixels(limit_pixels=int(image.width * image.height * BYTES_MAX / bytes_needed))


# Samples for each pixel, by how libjpeg names the chroma's subsampling; what is not named here has three.
_JPEG_SAMPLES = {"Gray": 1.0, "420": 1.5, "411": 1.5, "422": 2.0, "440": 2.0}


def _decode_jpeg(image: EncodedImage, spec: InputSpec) -> Pixels:
    """
    Decode at the smallest scale that is at least twice the target.

    That is 1.8 to 2.4 times faster for large pictures, and nearer to the true resize than a full decode with a bilinear
    one.

    Raises:
        BrokenImage: it cannot be decoded to its end; libjpeg's warnings count: it fills what is missing with grey.
        TooManyPixels: it would take too much memory.
    """
    wanted = {"min_width": 2 * spec.width, "min_height": 2 * spec.height}
    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(image.content, **wanted)
        samples = 4.0 if colours in ("CMYK", "YCCK") else _JPEG_SAMPLES.get(subsampling, 3.0)
        held = 2 * samples * image.width * image.height if holds_coefficients(image.content) else 0
        _bounded(image, 3 * height * width + held)
        pixels = simplejpeg.decode_jpeg(image.content, "RGB", **wanted)
    except ValueError as exc:
        raise BrokenImage from exc
    return fit(pixels, spec)


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


def holds_coefficients(content: bytes | bytearray) -> bool:
    """
    Tell whether libjpeg holds every coefficient of a JPEG, at full size and two bytes each, until its last scan.

    It does where the first scan is not all of the picture; what cannot be told counts as if.

    Source: ITU-T T.81 §B.2 (frame and scan headers).
    """
    components = 0
    for marker, start, _ in jpeg_segments(content):
        if marker in _PROGRESSIVE_FRAMES:
            return True
        if marker in _FRAMES:
            components = content[start + 5]
        if marker == SOS:
            return components == 0 or content[start] < components
    return True


def _decode_png(image: EncodedImage, spec: InputSpec) -> Pixels:
    """
    Decode with Pillow: as fast as OpenCV here, and it refuses damaged files without printing about them.

    Raises:
        BrokenImage: it cannot be decoded to its end, or has too many chunks.
        TooManyPixels: it would take too much memory.
    """
    if more_chunks_than(CHUNKS_MAX, image.content):
        raise BrokenImage
    try:
        # The class itself: Image.open would import and try the parsers of other formats, too.
        with PngImageFile(io.BytesIO(image.content)) as opened:
            _bounded(image, image.width * image.height * _PNG_BYTES.get(opened.mode, 4))
            if image.width * image.height <= WHOLE_PIXELS_MAX:
                return fit(_to_rgb(opened), spec)
            return _fit_by_strips(opened, spec)
    except TooManyPixels:
        raise
    # Pillow's parsers let pass what they meet: OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError.
    except Exception as exc:
        raise BrokenImage from exc


def _decode_whole(opener: Callable[[io.BytesIO], ImageFile], bytes_a_pixel: int) -> Callable[..., Pixels]:
    """Return a decoder of one of Pillow's formats, whose decoding takes so many bytes for each pixel."""

    def decode_whole(image: EncodedImage, spec: InputSpec) -> Pixels:
        """
        Decode with Pillow.

        Raises:
            BrokenImage: it cannot be decoded to its end, or is not what its header said.
            TooManyPixels: it would take too much memory.
        """
        _bounded(image, image.width * image.height * bytes_a_pixel)
        try:
            with opener(io.BytesIO(image.content)) as opened:
                _same(image, opened)
                return fit(_to_rgb(opened), spec)
        except Exception as exc:
            raise BrokenImage from exc

    return decode_whole


def _same(image: EncodedImage, opened: ImageFile) -> None:
    """
    Hold what a decoder's parser has read against what `check` has.

    Raises:
        BrokenImage: it is larger, or of a kind that is not brought to RGB here (floating point, 32 bits).
    """
    if opened.width * opened.height > image.width * image.height or opened.mode not in _MODES:
        raise BrokenImage


_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "RGBX"})


def more_chunks_than(limit: int, content: bytes | bytearray) -> bool:
    """Tell whether a PNG has more chunks than *limit*."""
    position = len(PNG_START)
    for _ in range(limit):
        if position + 12 > len(content):
            return False
        position += 12 + int.from_bytes(content[position : position + 4])
    return position + 12 <= len(content)


# Bytes for each pixel in Pillow's memory; every other mode of a PNG has four, those with fewer channels among them.
_PNG_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}


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


DECODERS: Mapping[Kind, Callable[[EncodedImage, InputSpec], Pixels]] = {
    "jpeg": _decode_jpeg,
    "png": _decode_png,
    # The decoder's own copy, ours, and one in colour.
    "webp": _decode_whole(WebPImageFile, 12),
    "tiff": _decode_whole(TiffImageFile, 8),
}
ORIENTATIONS: Mapping[Kind, Callable[[bytes | bytearray], int]] = {
    "jpeg": jpeg_orientation,
    "png": png_orientation,
    "webp": webp_orientation,
    "tiff": tiff_orientation,
}


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


def _fit_by_strips(image: Image.Image, spec: InputSpec) -> Pixels:
    """
    Do what `fit` does, with no more than a strip of the picture in colour at a time.

    Both filters are separable: OpenCV reduces each strip's rows to their final width, and a sum with weights brings the
    rows to their final number. The result differs from `fit` by rounding, a level of 255 at most.
    """
    width, height = image.size
    image.load()
    shrinks = height >= spec.height and width >= spec.width
    weights_of, filtering = (_area_weights, cv2.INTER_AREA) if shrinks else (_linear_weights, cv2.INTER_LINEAR)
    fitted = np.zeros((spec.height, spec.width, 3), dtype=np.float32)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _to_rgb(image.crop((0, top, width, bottom))).astype(np.float32)
        narrow = cv2.resize(strip, (spec.width, bottom - top), interpolation=filtering)
        weights = weights_of(np.arange(top, bottom), height, spec.height)
        touched = weights.any(axis=1)
        # Not by BLAS, which would take threads of its own.
        fitted[touched] += np.einsum("ir,rxc->ixc", weights[touched], narrow, optimize=False)
    return np.clip(np.rint(fitted), 0, 255).astype(np.uint8)


def _area_weights(rows: NDArray[np.int_], height: int, target: int) -> NDArray[np.float32]:
    """Return float32[target, rows]: which share of a target row's area each source row is."""
    scale = height / target
    top = np.arange(target)[:, None] * scale
    covered = np.minimum(top + scale, rows + 1) - np.maximum(top, rows)
    return np.asarray(np.clip(covered, 0, None) / scale, dtype=np.float32)


def _linear_weights(rows: NDArray[np.int_], height: int, target: int) -> NDArray[np.float32]:
    """Return float32[target, rows]: each target row lies between two source rows, beyond the edges on the last one."""
    centre = np.clip((np.arange(target)[:, None] + 0.5) * height / target - 0.5, 0, height - 1)
    return np.asarray(np.clip(1 - np.abs(centre - rows), 0, None), dtype=np.float32)


def pixels_hmac(key: bytes, pixels: Pixels) -> str:
    """
    Return the keyed hash under which a picture is known: HMAC-SHA-256 over shape and bytes, in hex.

    A plain hash of a known picture could be linked to a person; with a key of the installation it cannot.
    """
    shape = struct.pack(">III", *pixels.shape)
    return hmac.digest(key, shape + pixels.tobytes(), "sha256").hex()


QUICK_PIXELS_MAX = 320 * 320
"""Such a picture takes 0.3 ms to decode and hash; the event loop may be held for one."""
QUICK_BYTES_MAX = 96 * 1024


def is_quick(image: EncodedImage, spec: InputSpec) -> bool:
    """
    Tell whether decoding for *spec* takes less than a millisecond, whatever is in the file.

    Only JPEGs with one scan: each further one is a pass over all pixels, and a PNG is inflated first. Sides count as
    the whole blocks that are decoded for them: a picture of one column would be 32 times its pixels.
    """
    return (
        image.kind == "jpeg"
        and spec.width * spec.height <= QUICK_PIXELS_MAX
        and _in_blocks(image.width) * _in_blocks(image.height) <= QUICK_PIXELS_MAX
        and len(image.content) <= QUICK_BYTES_MAX
        and image.content.count(SCAN) == 1
    )


def _in_blocks(side: int) -> int:
    """Return a side rounded up to the largest block that JPEG has, 32 pixels. Source: ITU-T T.81 §A.2.3."""
    return -(-side // 32) * 32


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
        Decode *image* for *spec*, a small one at once: to hand it to a thread would cost more than to decode it.

        Raises:
            BrokenImage: it cannot be decoded to its end.
            TooManyPixels: decoding it would take too much memory.
        """
        if is_quick(image, spec):
            return self._decode(image, spec, time.perf_counter())
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
