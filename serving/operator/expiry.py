"""
Until when a version may be used: its stager tells it at a good end, and the operator compares it with its own clock.

A pod runs for months, and an approval that was in force at its start may be over meanwhile. The kubelet carries what
the stager left into the pod's status, as it does with failures: nobody has to be asked again.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.operator.failures import BYTES_MAX, TERMINATION_LOG

SKEW = timedelta(seconds=30)
"""
How much later than signed an approval counts as over for the operator.

Its clock may be ahead of the node's, and a version must not be called expired which a stager lets in at that moment.
"""

_KEY = "approvalExpires"


def write(expires: datetime, path: Path = TERMINATION_LOG) -> None:
    """Leave the time where the kubelet reads it; outside of a pod there is no such place, and nobody to read."""
    if path.exists():
        path.write_text(json.dumps({_KEY: expires.astimezone(UTC).isoformat()}))


def read(text: str) -> datetime | None:
    """Return the time that a stager left; None where it left none: nobody was asked, or it is of an older release."""
    try:
        found = datetime.fromisoformat(json.loads(text[:BYTES_MAX])[_KEY])
        # Without a zone it could be meant hours earlier or later.
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def over_s(expires: datetime, now: datetime) -> float:
    """Return for how long an approval has been over, seconds; below 0: so long it is not yet."""
    # In this order: a time near the end of the calendar has none after it.
    return (now - expires - SKEW).total_seconds()
