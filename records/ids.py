"""Ids of records: UUIDs of version 7, made here, since PostgreSQL has them only from version 18 on."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id(now_ns: int | None = None) -> tuple[UUID, datetime]:
    """
    Return a new id and the time in it.

    The two come from one reading of the clock, so that rows sorted by id are sorted by time. 48 bits are milliseconds,
    the next 12 the fraction of one (in 1/4096), and 62 bits are random.

    Args:
        now_ns: nanoseconds since 1970; left out, the clock is read.

    Returns:
        The id, and the time in UTC with microseconds.

    Source: RFC 9562 §5.7 and §6.2, method 3.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    milliseconds, rest_ns = divmod(now_ns, 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    number = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return UUID(int=number), _EPOCH + timedelta(microseconds=now_ns // 1000)
