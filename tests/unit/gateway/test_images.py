"""Decoding: every kind of picture becomes the right RGB, and what is broken or too large is refused."""

import io
import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gateway import images
from gateway.contracts import InputSpec
from gateway.images import (
    BYTES_MAX,
    QUICK_BYTES_MAX,
    QUICK_PIXELS_MAX,
    Decoder,
    EncodedImage,
    check,
    decode,
    fit,
    is_quick,
    pixels_hmac,
)
from gateway.problems import BrokenImage, SeveralPictures, TooManyPixels, UnsupportedImage
from tests.pictures import encoded, picture

LIMIT = 10_000_000
SPEC = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")
ORIENTATION = 0x0112


def decoded(content: bytes, spec: InputSpec = SPEC) -> NDArray[np.uint8]:
    """Return the picture as the model gets it."""
    return decode(check(content, pixels_max=LIMIT), spec)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, 0..255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def reference(image: Image.Image) -> NDArray[np.uint8]:
    """Return what an image of Pillow's should become: RGB, resized by area from full size."""
    return fit(np.asarray(image.convert("RGB")), SPEC)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", mode) for mode in ("RGB", "L", "CMYK")]
    + [("PNG", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA")],
)
def test_decode_brings_every_mode_to_rgb(kind: str, mode: str) -> None:
    """What a viewer shows in colour or grey is what the model gets."""
    image = Image.fromarray(picture(400, 300)).convert(mode)
    pixels = decoded(encoded(image, kind, **({"quality": 98} if kind == "JPEG" else {})))
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert distance(pixels, reference(image)) < (0.01 if kind == "PNG" else 2)


def test_decode_scales_sixteen_bits_down() -> None:
    """16-bit grey and colour PNGs keep their brightness: 65535 is white, and halves are halves."""
    grey = np.linspace(0, 65535, 224 * 224).reshape(224, 224).astype(np.uint16)
    pixels = decoded(encoded(Image.fromarray(grey), "PNG"))
    assert np.abs(pixels[..., 0].astype(int) - np.round(grey / 257)).max() <= 1
    assert (pixels[0, 0, 0], pixels[-1, -1, 2]) == (0, 255)
    colour = picture(224, 224).astype(np.uint16) * 257
    written, content = cv2.imencode(".png", colour[..., ::-1])
    assert written
    np.testing.assert_array_equal(decoded(content.tobytes()), colour // 257)


def test_decode_lays_transparency_on_white() -> None:
    """Whole, half and no cover; by an alpha channel and by a transparent colour of a palette."""
    rgba = np.zeros((224, 224, 4), dtype=np.uint8)
    rgba[:, 75:150, 3], rgba[:, 150:, 3] = 128, 255
    pixels = decoded(encoded(Image.fromarray(rgba), "PNG"))
    assert (pixels[0, 0, 0], pixels[0, 223, 0]) == (255, 0)
    assert abs(int(pixels[0, 100, 0]) - 127) <= 1
    palette = Image.new("P", (224, 224), 0)
    palette.putpalette([10, 20, 30])
    assert tuple(decoded(encoded(palette, "PNG"))[5, 5]) == (10, 20, 30)
    assert tuple(decoded(encoded(palette, "PNG", transparency=0))[5, 5]) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_the_picture_as_exif_says(kind: str, orientation: int) -> None:
    """All eight orientations, against Pillow's own turning; the picture is no square, so that sides matter."""
    image = Image.fromarray(picture(640, 300))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(image, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert turned is not None
    assert distance(decoded(content), reference(turned)) < 1.5


def test_decode_turning_is_seen_by_the_test_above() -> None:
    """A picture that was not turned would be far from the reference."""
    image = Image.fromarray(picture(640, 300))
    assert distance(reference(image), reference(image.rotate(90, expand=True))) > 10


@pytest.mark.parametrize(("width", "height"), [(449, 460), (1024, 1024), (1600, 500), (3000, 2000)])
def test_jpeg_fast_path_is_near_the_full_path(width: int, height: int) -> None:
    """Decoding at a smaller scale changes a grainy picture by less than 0.8 of 255 levels in the mean."""
    grain = np.random.default_rng(3).normal(0, 12, (height, width, 3))
    pixels = np.clip(picture(width, height) + grain, 0, 255).astype(np.uint8)
    content = encoded(pixels, "JPEG", quality=92, subsampling=2)
    full = fit(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), SPEC)
    assert distance(decoded(content), full) < 0.8


def test_jpeg_of_several_pictures_gives_its_primary_one() -> None:
    """Phones add depth maps and previews (MPO); the picture that viewers show counts."""
    first, second = picture(300, 300, 1), picture(300, 300, 2)
    content = encoded(Image.fromarray(first), "MPO", save_all=True, append_images=[Image.fromarray(second)], quality=98)
    assert Image.open(io.BytesIO(content)).n_frames == 2  # type: ignore[attr-defined]
    assert distance(decoded(content), fit(first, SPEC)) < distance(decoded(content), fit(second, SPEC)) / 5


def test_animated_png_is_refused() -> None:
    """Which of its pictures is meant is not ours to guess."""
    frames = [Image.fromarray(picture(64, 64, seed)) for seed in range(3)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(SeveralPictures):
        check(content, pixels_max=LIMIT)


def test_progressive_jpeg_decodes() -> None:
    """Ten scans are what an encoder writes."""
    content = encoded(picture(300, 300), "JPEG", quality=95, progressive=True)
    assert distance(decoded(content), fit(picture(300, 300), SPEC)) < 2


def test_jpeg_of_too_many_scans_is_refused() -> None:
    """Each scan is a pass over all pixels: thousands of tiny ones would keep a thread for minutes."""
    content = encoded(picture(1000, 1000), "JPEG", progressive=True)
    check(content, pixels_max=1_000_000)
    with pytest.raises(TooManyPixels):
        check(content + b"\xff\xda" * 10, pixels_max=1_000_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_are_counted_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel too many is refused by the header alone."""
    content = encoded(picture(100, 100), kind)
    check(content, pixels_max=10_000)
    monkeypatch.setattr(images, "decode", None)
    with pytest.raises(TooManyPixels) as refused:
        check(content, pixels_max=9_999)
    assert refused.value.extra == {"limit_pixels": 9_999}


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def _header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


BROKEN = {
    "JPEG without its end": encoded(picture(), "JPEG")[:-2],
    "JPEG cut in the middle": encoded(picture(), "JPEG")[:4000],
    "JPEG of three bytes": b"\xff\xd8\xff",
    "JPEG of noise": b"\xff\xd8\xff" + bytes(range(256)) * 10,
    "PNG cut in the middle": encoded(picture(), "PNG")[:4000],
    "PNG with a flipped bit": bytes(byte ^ (index == 4000) for index, byte in enumerate(encoded(picture(), "PNG"))),
    "PNG of its signature": b"\x89PNG\r\n\x1a\n",
    "PNG without a header": _png((b"IDAT", zlib.compress(b"0"))),
    "PNG without pixels": _png(_header(8, 8), (b"IEND", b"")),
    "PNG with too few pixels": _png(_header(8, 8), (b"IDAT", zlib.compress(bytes(30))), (b"IEND", b"")),
    "PNG of no width": _png(_header(0, 8), (b"IEND", b"")),
    "PNG of an impossible depth": _png(_header(8, 8, depth=3), (b"IDAT", zlib.compress(bytes(300))), (b"IEND", b"")),
    "PNG whose text is a bomb": _png(
        _header(8, 8), (b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)), (b"IEND", b"")
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused(name: str) -> None:
    """None of them becomes a picture, and none an error of another kind."""
    with pytest.raises(BrokenImage):
        decoded(BROKEN[name])


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"RIFF....WEBP", b"%PDF-1.7", b"<svg/>", b"\x89PNG", b"\xff\xd8"])
def test_other_content_is_unsupported(content: bytes) -> None:
    """The first bytes say what it is; no name is asked."""
    with pytest.raises(UnsupportedImage):
        check(content, pixels_max=LIMIT)


def test_every_cut_of_a_small_file_is_refused_or_whole() -> None:
    """A file cut anywhere gives a problem, or (where only its end mark is lost) the whole picture; nothing else."""
    for kind in ("JPEG", "PNG"):
        content = encoded(picture(40, 30), kind)
        whole = decoded(content)
        for length in range(len(content)):
            try:
                pixels = decoded(content[:length])
            except (BrokenImage, UnsupportedImage):
                continue
            np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize(
    ("height", "width", "interpolation"),
    [(500, 300, cv2.INTER_AREA), (224, 300, cv2.INTER_AREA), (100, 50, cv2.INTER_LINEAR), (500, 50, cv2.INTER_LINEAR)],
)
def test_fit_is_area_when_it_shrinks_and_linear_when_a_side_grows(height: int, width: int, interpolation: int) -> None:
    """As the cards say the models were trained."""
    pixels = picture(width, height)
    expected = cv2.resize(pixels, (224, 224), interpolation=interpolation)
    np.testing.assert_array_equal(fit(pixels, SPEC), expected)


def test_fit_gives_height_and_width_in_their_order() -> None:
    """A contract that is no square tells them apart."""
    spec = InputSpec(height=100, width=200, channels="RGB", resize="area", fit="stretch")
    assert fit(picture(500, 500), spec).shape == (100, 200, 3)
    assert decoded(encoded(picture(500, 500), "JPEG"), spec).shape == (100, 200, 3)


def test_hmac_tells_pictures_keys_and_shapes_apart() -> None:
    """The same picture and key give the same hash; another picture, key or shape another one."""
    pixels = picture(6, 4)
    same = pixels_hmac(b"key", pixels)
    assert same == pixels_hmac(b"key", pixels.copy())
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    hashes = {
        same,
        pixels_hmac(b"yek", pixels),
        pixels_hmac(b"key", other),
        pixels_hmac(b"key", pixels.reshape(6, 4, 3)),
    }
    assert len(hashes) == 4
    assert all(len(each) == 64 for each in hashes)


async def test_decoder_works_in_its_threads_and_passes_problems_on() -> None:
    """The picture, its hash and the times come back; a broken image is a problem here, too."""
    decoder = Decoder(1, b"key")
    try:
        found = await decoder.decode(check(encoded(picture(), "PNG"), pixels_max=LIMIT), SPEC)
        assert found.hmac == pixels_hmac(b"key", found.pixels)
        assert found.queue_s >= 0
        assert found.decode_s > 0
        with pytest.raises(BrokenImage):
            await decoder.decode(check(BROKEN["PNG cut in the middle"], pixels_max=LIMIT), SPEC)
    finally:
        decoder.close()


# A process of its own: its peak is of nothing else, and a peak once reached stays.
MEASURE = """
    import json, struct, sys, zlib
    import numpy as np
    from gateway import images
    from gateway.contracts import InputSpec

    def png(width, height, depth, colour, bits):
        def chunk(kind, content):
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        packer, row = zlib.compressobj(1), bytes(1 + width * bits // 8)
        pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return images.PNG_START + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    def peak():
        # Of this program alone; getrusage would begin with the peak of the process that started it.
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    spec = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")
    small, large = (png(*size, *json.loads(sys.argv[1])) for size in ((300, 300), (6324, 6324)))
    images.decode(images.check(small, pixels_max=40_000_000), spec)
    before = peak()
    images.decode(images.check(large, pixels_max=40_000_000), spec)
    print(peak() - before)
"""


@pytest.mark.parametrize(
    "form", [(8, 6, 32), (16, 6, 64), (16, 4, 32), (16, 0, 16)], ids=["RGBA", "RGBA 16", "grey alpha 16", "grey 16"]
)
def test_png_of_few_bytes_and_many_pixels_takes_bounded_memory(form: tuple[int, int, int]) -> None:
    """The largest picture that is decoded, in the kinds that need the most conversions: below 192 MiB at the peak."""
    code = "\n".join(line[4:] for line in MEASURE.splitlines())
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code, json.dumps(form)]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 10_000_000 < int(found.stdout) < 192 * 1024 * 1024


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize(("width", "height"), [(1201, 777), (150, 900), (900, 150), (224, 500)])
def test_png_by_strips_is_the_picture_as_a_whole(
    mode: str, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both filters, in strips whose edges lie anywhere: never more than a level from the resize of the whole."""
    if mode == "I;16":
        image = Image.fromarray(picture(width, height)[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(picture(width, height)).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(picture(width, height, seed=1)[..., 0]))
    content = encoded(image, "PNG")
    whole = decoded(content)
    monkeypatch.setattr(images, "WHOLE_PIXELS_MAX", 0)
    monkeypatch.setattr(images, "STRIP_PIXELS", 37 * width)
    assert np.abs(decoded(content).astype(int) - whole.astype(int)).max() <= 1


def test_picture_that_takes_too_much_memory_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes a pixel for colour, one for grey; `limit_pixels` says how many of its kind fit."""
    colour, grey = encoded(picture(100, 100), "PNG"), encoded(picture(100, 100)[..., 0], "PNG")
    monkeypatch.setattr(images, "BYTES_MAX", 39_999)
    decoded(grey)
    with pytest.raises(TooManyPixels) as refused:
        decoded(colour)
    assert refused.value.extra == {"limit_pixels": 9_999}


def test_progressive_jpeg_counts_its_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    """libjpeg holds two bytes for each sample of the full size, however small the picture that comes out."""
    sides = {"width": 4000, "height": 3000}
    baseline = encoded(picture(**sides), "JPEG", subsampling=2)
    progressive = encoded(picture(**sides), "JPEG", subsampling=2, progressive=True)
    full = encoded(picture(**sides), "JPEG", subsampling=0, progressive=True)
    monkeypatch.setattr(images, "BYTES_MAX", 3 * 12_000_000 + 3 * 750 * 1000)
    images.decode(check(baseline, pixels_max=12_000_000), SPEC)
    images.decode(check(progressive, pixels_max=12_000_000), SPEC)
    with pytest.raises(TooManyPixels):
        images.decode(check(full, pixels_max=12_000_000), SPEC)


def test_side_that_no_jpeg_could_have_is_refused() -> None:
    """A strip is at least one row, so a row is bounded, too."""
    with pytest.raises(TooManyPixels):
        check(_png(_header(65_536, 1), (b"IDAT", b"")), pixels_max=LIMIT)


def test_largest_colour_png_fits_the_memory() -> None:
    """Both limits by their defaults: what the pixel limit lets through, a PNG in colour may use."""
    assert BYTES_MAX >= 4 * 40_000_000


@pytest.mark.parametrize(
    ("content", "quick"),
    [
        (encoded(Image.fromarray(picture(300, 300)), "JPEG"), True),
        (encoded(Image.fromarray(picture(320, QUICK_PIXELS_MAX // 320 + 1)), "JPEG"), False),
        (encoded(Image.fromarray(picture(4000, 1)), "JPEG"), False),
        (encoded(Image.fromarray(picture(300, 300)), "JPEG", progressive=True), False),
        (encoded(Image.fromarray(picture(300, 300)), "JPEG") + bytes(QUICK_BYTES_MAX), False),
        (encoded(Image.fromarray(picture(30, 30)), "PNG"), False),
    ],
    ids=["small", "larger", "of one column", "of several scans", "of many bytes", "PNG"],
)
async def test_only_what_is_quick_is_decoded_on_the_event_loop(
    content: bytes, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could take longer than a millisecond goes to a thread, and gives the same pixels there."""
    image, threads = check(content, pixels_max=LIMIT), set()

    def noting(encoded_image: EncodedImage, spec: InputSpec) -> NDArray[np.uint8]:
        threads.add(threading.get_ident())
        return decode(encoded_image, spec)

    monkeypatch.setattr(images, "decode", noting)
    decoder = Decoder(1, b"k" * 32)
    try:
        done = await decoder.decode(image, SPEC)
    finally:
        decoder.close()
    assert is_quick(image, SPEC) is quick
    assert (threads == {threading.get_ident()}) is quick
    assert np.array_equal(done.pixels, decode(image, SPEC))
