"""
How a camera was held: the orientation that an image's EXIF block tells.

Only this one number is read. Whatever is broken in a block of metadata means "as it lies", as viewers take it.

Source: Exif 2.32 §4.6.4 (Orientation, tag 0x0112); TIFF 6.0 §2 (the image file directory).
"""

import struct
from collections.abc import Iterator

UPRIGHT = 1

_ORIENTATION = 0x0112
_SHORT = 3
_ENTRIES_MAX = 512
_SEGMENTS_MAX = 512
"""A colour profile takes 255 of them at most; a file made of empty ones would cost more to walk than to decode."""
_APP1 = 0xE1
SOS = 0xDA
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})


def jpeg_orientation(content: bytes | bytearray) -> int:
    """Return the orientation, 1..8, of a JPEG."""
    for marker, start, end in jpeg_segments(content):
        if marker == _APP1 and content.startswith(b"Exif\0\0", start):
            return _from_tiff(content[start + 6 : end])
    return UPRIGHT


def png_orientation(content: bytes | bytearray) -> int:
    """Return the orientation, 1..8, of a PNG whose eXIf chunk comes before its pixels."""
    start = content.find(b"eXIf", 8, max(content.find(b"IDAT", 8), 0))
    if start < 0:
        return UPRIGHT
    length = int.from_bytes(content[start - 4 : start])
    return _from_tiff(content[start + 4 : start + 4 + length])


def webp_orientation(content: bytes | bytearray) -> int:
    """Return the orientation, 1..8, of a WebP."""
    position = 12
    while position + 8 <= len(content):
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        if content.startswith(b"EXIF", position):
            block = content[position + 8 : position + 8 + length]
            return _from_tiff(block.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return UPRIGHT


def tiff_orientation(content: bytes | bytearray) -> int:
    """Return the orientation, 1..8, of a TIFF."""
    return _from_tiff(content)


def jpeg_segments(content: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment's content, up to and with the head of the first scan, or too many."""
    position = 2
    for _ in range(_SEGMENTS_MAX):
        if position + 4 > len(content) or content[position] != 0xFF:
            return
        marker = content[position + 1]
        # Markers without a length, and filling, would lead to another place than libjpeg reads next.
        if marker in _BARE:
            return
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4])
        yield marker, position + 4, end
        if marker == SOS:
            return
        position = end


def _from_tiff(block: bytes | bytearray) -> int:
    """Return the orientation of a TIFF header with its first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, directory)
        for index in range(min(count, _ENTRIES_MAX)):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", block, directory + 2 + 12 * index)
            if (tag, kind, number) == (_ORIENTATION, _SHORT, 1) and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return UPRIGHT
