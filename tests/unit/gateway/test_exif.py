"""The orientation of a picture: read where it is, and taken for upright wherever the block is broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.exif import UPRIGHT, jpeg_orientation, png_orientation
from tests.pictures import encoded, picture


def with_orientation(kind: str, value: int, **more: str) -> bytes:
    """Return a small picture whose EXIF says *value*, among other entries."""
    exif = Image.Exif()
    exif[0x010E] = more.get("description", "a description")
    exif[0x0112] = value
    return encoded(picture(20, 10), kind, exif=exif)


@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_read_from_both_kinds(value: int) -> None:
    """As Pillow wrote it."""
    assert jpeg_orientation(with_orientation("JPEG", value)) == value
    assert png_orientation(with_orientation("PNG", value)) == value


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_upright(value: int) -> None:
    """Only 1 to 8 mean something."""
    assert jpeg_orientation(with_orientation("JPEG", value)) == UPRIGHT


def test_picture_without_exif_is_upright() -> None:
    """Most have none."""
    assert jpeg_orientation(encoded(picture(20, 10), "JPEG")) == UPRIGHT
    assert png_orientation(encoded(picture(20, 10), "PNG")) == UPRIGHT


def test_orientation_in_big_endian_is_read() -> None:
    """Half of the cameras write so."""
    block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"Exif\0\0" + block
    jpeg = b"\xff\xd8\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + b"\xff\xda"
    assert jpeg_orientation(jpeg) == 6


@given(st.binary(max_size=400), st.sampled_from([b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b""]))
def test_any_block_gives_an_orientation(noise: bytes, start: bytes) -> None:
    """Whatever stands there, the answer is one of eight, and nothing is raised."""
    segment = start + noise
    jpeg = b"\xff\xd8\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + b"\xff\xda"
    assert jpeg_orientation(jpeg) in range(1, 9)
    assert jpeg_orientation(b"\xff\xd8" + noise) in range(1, 9)
    assert png_orientation(b"\x89PNG\r\n\x1a\n" + len(noise).to_bytes(4) + b"eXIf" + noise + b"IDAT") in range(1, 9)
