"""Cursors are ours, whole and unchanged, or they are refused."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.cursors import CURSOR_LENGTH_MAX, Cursors, Position
from records.problems import InvalidCursor

CURSORS = Cursors(bytes(32))
POSITION = Position(datetime(2026, 11, 22, 13, 0, 0, 123456, tzinfo=UTC), UUID(int=7 << 76 | 99))
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(TIMES, st.uuids())
def test_cursor_comes_back_as_it_was(created_at: datetime, record_id: UUID) -> None:
    """No microsecond is lost: the next page begins exactly below the row."""
    position = Position(created_at, record_id)

    assert CURSORS.read(CURSORS.write(position)) == position


def test_cursor_fits_its_bound_and_a_url() -> None:
    """What we give, we take."""
    cursor = CURSORS.write(POSITION)

    assert len(cursor) <= CURSOR_LENGTH_MAX
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("place", range(40))
def test_cursor_with_one_changed_bit_is_refused(place: int) -> None:
    """Time, id and signature: a client can choose none of them."""
    packed = bytearray(base64.urlsafe_b64decode(CURSORS.write(POSITION) + "=="))
    packed[place] ^= 1

    with pytest.raises(InvalidCursor):
        CURSORS.read(base64.urlsafe_b64encode(packed).decode())


@pytest.mark.parametrize("cursor", ["", "A", "AAAA", "é" * 54, "A" * 54, "=" * 54, "' or 1=1 --"])
def test_cursor_that_is_none_is_refused(cursor: str) -> None:
    """Whatever a client types is a 400, never an error of ours."""
    with pytest.raises(InvalidCursor):
        CURSORS.read(cursor)


def test_cursor_of_another_installation_is_refused() -> None:
    """The signature is keyed."""
    with pytest.raises(InvalidCursor):
        CURSORS.read(Cursors(b"\1" * 32).write(POSITION))
