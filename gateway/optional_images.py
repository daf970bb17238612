"""
The headers of WebP and TIFF, which are taken only where an installation says so.

Read here and not by the decoders' own parsers: what a file asks for is known, and refused, before any of them sees it.

Source: RFC 9649 (WebP) §2; TIFF 6.0 §2 and §8.
"""

import struct
from collections.abc import Mapping

from gateway.problems import BrokenImage, SeveralPictures, UnsupportedImage

ENTRIES_MAX = 256
_ANIMATED = 0x02
_SHORT, _LONG = 3, 4
_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_SUB_FILES = 330
# None, LZW, deflate (both numbers), PackBits. JPEG inside TIFF would be another decoder, with bounds of its own.
_COMPRESSIONS = frozenset({1, 5, 8, 32946, 32773})


def is_webp(content: bytes | bytearray) -> bool:
    """Tell a WebP by its first bytes."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def is_tiff(content: bytes | bytearray) -> bool:
    """Tell a TIFF by its first bytes; BigTIFF is none."""
    return bytes(content[:4]) in {b"II*\0", b"MM\0*"}


def webp_size(content: bytes | bytearray) -> tuple[int, int]:
    """
    Return width and height.

    Raises:
        BrokenImage: the first chunk cannot be read.
        SeveralPictures: an animation.
    """
    kind, start = bytes(content[12:16]), 20
    try:
        if kind == b"VP8X":
            (flags,) = struct.unpack_from("B", content, start)
            if flags & _ANIMATED:
                raise SeveralPictures
            width, height = (
                int.from_bytes(content[place : place + 3], "little") + 1 for place in (start + 4, start + 7)
            )
        elif kind == b"VP8L":
            signature, bits = struct.unpack_from("<BI", content, start)
            if signature != 0x2F:
                raise BrokenImage
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 " and content[start + 3 : start + 6] == b"\x9d\x01\x2a":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, start + 6))
        else:
            raise BrokenImage
    except struct.error as exc:
        raise BrokenImage from exc
    if not width or not height or len(content) < start + 10:
        raise BrokenImage
    return width, height


def tiff_size(content: bytes | bytearray) -> tuple[int, int]:
    """
    Return width and height of what decoding would hold: of whole tiles, where the picture is in tiles.

    Raises:
        BrokenImage: the directory cannot be read.
        SeveralPictures: there is another one.
        UnsupportedImage: the picture is compressed in a way that is not decoded here.
    """
    order = "<" if content[:2] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, directory)
        if not 0 < count <= ENTRIES_MAX:
            raise BrokenImage
        tags = _tags(content, order, directory + 2, count)
        (following,) = struct.unpack_from(order + "I", content, directory + 2 + 12 * count)
    except struct.error as exc:
        raise BrokenImage from exc
    if following or _SUB_FILES in tags:
        raise SeveralPictures
    if tags.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise UnsupportedImage
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    if not width or not height:
        raise BrokenImage
    return max(width, tags.get(_TILE_WIDTH, 0)), max(height, tags.get(_TILE_HEIGHT, 0))


def _tags(content: bytes | bytearray, order: str, start: int, count: int) -> Mapping[int, int]:
    """
    Return the single whole numbers of a directory, by tag; a tag with other values is there with 0.

    Raises:
        struct.error: the directory ends early.
    """
    tags: dict[int, int] = {}
    for place in range(start, start + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", content, place)
        form = {_SHORT: "H", _LONG: "I"}.get(kind)
        value = struct.unpack_from(order + form, content, place + 8)[0] if form and number == 1 else 0
        # A tag that is there twice is read differently by different readers.
        tags[tag] = max(value, tags.get(tag, 0))
    return tags
