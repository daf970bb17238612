"""Ids of records are UUIDs of version 7, and sort by time."""

from datetime import UTC, datetime
from uuid import RFC_4122

from records.ids import new_id


def test_id_is_a_uuid_of_version_7() -> None:
    """Version and variant stand where RFC 9562 puts them."""
    found, _ = new_id()

    assert (found.version, found.variant) == (7, RFC_4122)


def test_id_holds_the_time_that_is_returned() -> None:
    """The first 48 bits are the milliseconds of the row's own created_at. Source: the example of RFC 9562, A.6."""
    found, created_at = new_id(0x017F22E279B0 * 1_000_000 + 123_000)

    assert found.int >> 80 == 0x017F22E279B0
    assert created_at == datetime(2022, 2, 22, 19, 22, 22, 123, tzinfo=UTC)


def test_ids_of_one_millisecond_sort_by_time() -> None:
    """The fraction of the millisecond is part of the order: a page of the history may end between two such rows."""
    ids = [new_id(1_700_000_000_000_000_000 + micros * 1000)[0] for micros in range(1000)]

    assert ids == sorted(ids)


def test_ids_of_one_moment_differ() -> None:
    """62 bits are random: two processes with one clock do not meet."""
    ids = {new_id(1_700_000_000_000_000_000)[0] for _ in range(1000)}

    assert len(ids) == 1000
