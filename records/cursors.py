"""
Cursors of the history's pages: where a page ended, signed, so that nothing but our own words reaches the database.

A page begins after a row (its time and id), not after a count of rows: rows that arrive meanwhile shift nothing.
"""

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from records.keys import derive
from records.problems import InvalidCursor

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Microseconds since 1970 (signed, big-endian), then the 16 bytes of the id.
_POSITION = struct.Struct(">q16s")
_TAG_BYTES = 16
CURSOR_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page; the next page begins below it."""

    created_at: datetime
    id: UUID


class Cursors:
    """Writes and reads cursors with the key of one installation."""

    def __init__(self, root: bytes) -> None:
        self._key = derive(root, "cursor")

    def write(self, position: Position) -> str:
        """Return the cursor of *position*: 54 characters that are safe in a URL and say nothing of a patient."""
        packed = _POSITION.pack((position.created_at - _EPOCH) // _MICROSECOND, position.id.bytes)
        return base64.urlsafe_b64encode(packed + self._tag(packed)).rstrip(b"=").decode()

    def read(self, cursor: str) -> Position:
        """
        Return the position in *cursor*.

        Raises:
            InvalidCursor: it is not one that `write` returned.
        """
        try:
            decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as exc:
            raise InvalidCursor from exc
        packed, tag = decoded[: _POSITION.size], decoded[_POSITION.size :]
        if len(packed) != _POSITION.size or not hmac.compare_digest(tag, self._tag(packed)):
            raise InvalidCursor
        micros, id_bytes = _POSITION.unpack(packed)
        return Position(_EPOCH + micros * _MICROSECOND, UUID(bytes=id_bytes))

    def _tag(self, packed: bytes) -> bytes:
        """Return the signature: half of an HMAC-SHA-256, as RFC 2104 §5 allows."""
        return hmac.digest(self._key, packed, sha256)[:_TAG_BYTES]
