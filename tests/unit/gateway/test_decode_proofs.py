"""
Decoding, proved on many images: the fast path is near the full one, and no bytes whatever crash it or fill memory.

The fuzzer runs small by default and with a million inputs under HEALTHGUARD_PROVE=1. It is a loop of our own: atheris
would have to rebuild the decoders with its instrumentation to see into them, and without that only guesses, too.
"""

import io
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gateway.contracts import InputSpec
from gateway.images import Kind, check, decode, fit
from gateway.problems import BrokenImage, SeveralPictures, TooManyPixels, UnsupportedImage
from healthguard.problems import Problem
from tests.pictures import encoded, picture

PROVE = bool(os.environ.get("HEALTHGUARD_PROVE"))
SPEC = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")
ALL: frozenset[Kind] = frozenset({"jpeg", "png", "webp", "tiff"})
ORIENTATION = 0x0112

MEAN_BOUND = 0.8
"""How far the fast path may be from the full one: levels of 255, in the mean over a picture."""
MOST_BOUND = 12
"""The same for any single sample."""


def grainy(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return a picture with grain, which is what a decoder at a smaller scale treats differently."""
    grain = np.random.default_rng(seed).normal(0, 10, (height, width, 3))
    return np.clip(picture(width, height, seed) + grain, 0, 255).astype(np.uint8)


SIZES = ((100, 80), (224, 224), (300, 500), (449, 460), (640, 480), (896, 900), (1024, 768), (1300, 500), (500, 1200))


def cases() -> Iterator[tuple[str, str, bytes]]:
    """Yield name, kind and content of each picture: sizes by quality, subsampling, mode and orientation."""
    for seed, (width, height) in enumerate(SIZES):
        pixels = Image.fromarray(grainy(width, height, seed))
        for quality in (60, 80, 92, 100):
            for subsampling in (0, 1, 2):
                how = {"quality": quality, "subsampling": subsampling}
                yield f"{width}x{height} q{quality} s{subsampling}", "jpeg", encoded(pixels, "JPEG", **how)
        for mode in ("L", "CMYK"):
            yield f"{width}x{height} {mode}", "jpeg", encoded(pixels.convert(mode), "JPEG", quality=90)
        yield f"{width}x{height} progressive", "jpeg", encoded(pixels, "JPEG", quality=90, progressive=True)
        for orientation in range(2, 9):
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            yield f"{width}x{height} turned {orientation}", "jpeg", encoded(pixels, "JPEG", quality=90, exif=exif)
        for mode in ("L", "P"):
            yield f"{width}x{height} {mode}", "png", encoded(pixels.convert(mode), "PNG", compress_level=1)


def full(content: bytes) -> NDArray[np.uint8]:
    """Return what the picture should become: decoded whole by Pillow, turned upright, then resized."""
    with Image.open(io.BytesIO(content)) as opened:
        if opened.mode == "CMYK":
            # Pillow turns it into RGB by another rule; ours is libjpeg-turbo's.
            return fit(simplejpeg.decode_jpeg(content, "RGB"), SPEC)
        return fit(np.asarray(ImageOps.exif_transpose(opened).convert("RGB")), SPEC)


@pytest.mark.timeout(400)
def test_fast_path_is_near_the_full_path() -> None:
    """On every one of more than two hundred pictures."""
    counted: Counter[str] = Counter()
    for name, kind, content in cases():
        difference = np.abs(decode(check(content, pixels_max=10**7), SPEC).astype(int) - full(content))
        assert difference.mean() < MEAN_BOUND, name
        assert difference.max() <= MOST_BOUND, name
        counted[kind] += 1
    assert counted.total() > 200


def test_a_coarser_path_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: decoding at the smallest scale at all, instead of twice the target, exceeds the bound."""
    content = encoded(grainy(1024, 1024, 6), "JPEG", quality=92, subsampling=2)
    half = InputSpec(height=112, width=112, channels="RGB", resize="area", fit="stretch")
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg,
        "decode_jpeg",
        lambda content, colours, **_: real(content, colours, min_height=half.height, min_width=half.width),
    )
    difference = np.abs(decode(check(content, pixels_max=10**7), SPEC).astype(int) - full(content))
    assert difference.mean() > MEAN_BOUND or difference.max() > MOST_BOUND


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA"])
def test_tiff_of_every_mode_is_right(mode: str) -> None:
    """As an option; compressed without loss, so it is exact but for transparency, which lies on white."""
    image = Image.fromarray(grainy(300, 200, 1)).convert(mode)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        content = encoded(image, "TIFF", **({"compression": compression} if compression else {}))
        found = decode(check(content, pixels_max=10**6, kinds=ALL), SPEC)
        np.testing.assert_array_equal(found, fit(np.asarray(image.convert("RGB")), SPEC))


def test_tiff_of_sixteen_bits_keeps_its_brightness() -> None:
    """In both byte orders."""
    grey = np.linspace(0, 65535, 224 * 224).reshape(224, 224).astype(np.uint16)
    content = encoded(Image.fromarray(grey), "TIFF")
    found = decode(check(content, pixels_max=10**6, kinds=ALL), SPEC)
    assert np.abs(found[..., 0].astype(int) - np.round(grey / 257)).max() <= 1


@pytest.mark.parametrize("how", [{"lossless": True}, {"quality": 90}, {"quality": 90, "exif": True}])
def test_webp_is_right(how: dict[str, object]) -> None:
    """With loss and without, turned and not; transparency lies on white."""
    image = Image.fromarray(grainy(300, 200, 1))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(image, "WEBP", **how | ({"exif": exif} if "exif" in how else {}))
    found = decode(check(content, pixels_max=10**6, kinds=ALL), SPEC)
    np.testing.assert_allclose(found.astype(int), full(content), atol=1)
    clear = encoded(Image.new("RGBA", (300, 200), (9, 9, 9, 0)), "WEBP", lossless=True)
    assert decode(check(clear, pixels_max=10**6, kinds=ALL), SPEC).min() == 255


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_options_are_off_unless_asked_for(kind: str) -> None:
    """One decoder more is one more to trust."""
    content = encoded(picture(), kind)
    with pytest.raises(UnsupportedImage):
        check(content, pixels_max=10**6)
    with pytest.raises(TooManyPixels):
        check(content, pixels_max=100, kinds=ALL)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG's chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """Return a TIFF of one directory."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)


def frames(kind: str) -> bytes:
    """Return a file of three pictures."""
    first, *others = [Image.fromarray(picture(64, 64, seed)) for seed in range(3)]
    return encoded(first, kind, save_all=True, append_images=others)


HEADER = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HOSTILE: dict[str, tuple[Callable[[], bytes], type[Problem]]] = {
    "PNG with two headers": (
        lambda: (
            SIGNATURE
            + chunk(b"IHDR", HEADER)
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(64 * 193)))
            + chunk(b"IEND", b"")
        ),
        BrokenImage,
    ),
    "PNG whose colour profile is a bomb": (
        lambda: (
            SIGNATURE
            + chunk(b"IHDR", HEADER)
            + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
            + chunk(b"IEND", b"")
        ),
        BrokenImage,
    ),
    "PNG of a million chunks": (
        lambda: (
            SIGNATURE
            + chunk(b"IHDR", HEADER)
            + chunk(b"tEXt", b"a\0b") * 1_000_000
            + chunk(b"IDAT", zlib.compress(bytes(64 * 193)))
            + chunk(b"IEND", b"")
        ),
        BrokenImage,
    ),
    "JPEG of 65,500 by 65,500": (
        lambda: encoded(picture(16, 16), "JPEG").replace(struct.pack(">HH", 16, 16), struct.pack(">HH", 65500, 65500)),
        TooManyPixels,
    ),
    "JPEG cut after its header, and filled": (
        lambda: encoded(picture(64, 64), "JPEG")[:700] + bytes(1_000_000),
        BrokenImage,
    ),
    "WebP animation": (lambda: frames("WEBP"), SeveralPictures),
    "WebP of another size inside": (
        lambda: b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + encoded(picture(640, 480), "WEBP")[12:],
        BrokenImage,
    ),
    "TIFF of three pages": (lambda: frames("TIFF"), SeveralPictures),
    "TIFF that goes round in a circle": (
        lambda: tiff((256, 3, 1, 8), (257, 3, 1, 8), following=8),
        SeveralPictures,
    ),
    "TIFF of huge tiles": (
        lambda: tiff((256, 3, 1, 8), (257, 3, 1, 8), (322, 4, 1, 2**31), (323, 4, 1, 2**31)),
        TooManyPixels,
    ),
    "TIFF with JPEG inside": (lambda: encoded(picture(), "TIFF", compression="jpeg"), UnsupportedImage),
    "TIFF without pixels": (lambda: tiff((256, 3, 1, 8), (257, 3, 1, 8)), BrokenImage),
    "TIFF without a size": (lambda: tiff((258, 3, 1, 8)), BrokenImage),
    "TIFF of floating point": (lambda: encoded(Image.new("F", (64, 64)), "TIFF"), BrokenImage),
    "TIFF with a directory beyond its end": (lambda: b"II*\0" + struct.pack("<I", 10**9), BrokenImage),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused(name: str) -> None:
    """For what it is, without decoding what it promises."""
    make, problem = HOSTILE[name]
    with pytest.raises(problem):
        decode(check(make(), pixels_max=40_000_000, kinds=ALL), SPEC)


def seeds() -> list[bytes]:
    """Return small whole files of every kind, which mutations begin from."""
    small = Image.fromarray(picture(48, 32))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = [encoded(small, "JPEG", exif=exif), encoded(small, "JPEG", progressive=True)]
    found += [encoded(small.convert(mode), "PNG") for mode in ("RGB", "P", "LA", "1")]
    found += [encoded(small.convert("CMYK"), "JPEG"), encoded(small, "WEBP"), encoded(small, "WEBP", lossless=True)]
    return [*found, encoded(small, "TIFF"), encoded(small, "TIFF", compression="tiff_lzw")]


def mutated(source: random.Random, content: bytes, other: bytes) -> bytes:
    """Return *content* with a few bytes changed, a piece cut, doubled, overwritten, or taken from another file."""
    found = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place, length = source.randrange(len(found) or 1), source.randrange(1, 64)
        match source.randrange(6):
            case 0 if found:
                found[place] = source.randrange(256)
            case 1 if found:
                found[place] ^= 1 << source.randrange(8)
            case 2:
                del found[place : place + length]
            case 3:
                found[place:place] = found[place : place + length]
            case 4:
                found[place : place + 4] = source.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1")
                )
            case _:
                start = source.randrange(len(other))
                found[place : place + length] = other[start : start + length]
    return bytes(found)


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def outcome_of(content: bytes) -> str:
    """Decode it: return `decoded`, or the name of the problem that it is refused with; anything else is a fault."""
    try:
        pixels = decode(check(content, pixels_max=100_000, kinds=ALL), SPEC)
    except Problem as problem:
        return problem.slug if 400 <= problem.status < 500 else "fault"
    return "decoded" if pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8 else "fault"


@pytest.mark.timeout(6 * 3600 if PROVE else 120)
def test_no_bytes_crash_the_decoder() -> None:
    """Every mutation becomes a picture or a problem with a 4xx, and memory stays where it was after the first ones."""
    count, source, told = 1_000_000 if PROVE else 3_000, random.Random(1), Counter[str]()
    sources = seeds()
    warm = 0
    for number in range(count):
        content = mutated(source, source.choice(sources), source.choice(sources))
        told[outcome_of(content)] += 1
        if number == count // 10:
            warm = resident_bytes()
    assert resident_bytes() - warm < 64 * 1024 * 1024
    assert "fault" not in told
    # A fuzzer that only ever breaks the first bytes would prove little.
    assert told["decoded"] > count / 20
    assert told["broken-image"] > count / 20
