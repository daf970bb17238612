"""An Event is written for each turn of Ready, and for nothing else."""

from typing import Any

import pytest

from serving.operator.events import NOTE_LENGTH_MAX, turn
from tests.unit.serving.operator import served

NOW = "2026-11-22T10:00:00Z"


def status(ready: str, reason: str, *, stalled: str = "False", message: str = "Why.") -> dict[str, Any]:
    """Return a ServedModel's status."""
    return {
        "conditions": [
            {"type": "Ready", "status": ready, "reason": reason, "message": message},
            {"type": "Stalled", "status": stalled, "reason": reason, "message": message},
        ]
    }


STAGING, SERVING = status("False", "Staging"), status("True", "Serving")


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        pytest.param({}, STAGING, "Normal", id="a new model"),
        pytest.param(STAGING, SERVING, "Normal", id="it serves"),
        pytest.param(SERVING, SERVING, None, id="nothing turns"),
        pytest.param(STAGING, status("False", "Staging", message="2 of 3"), None, id="only the words change"),
        pytest.param(SERVING, STAGING, "Warning", id="it serves no more"),
        pytest.param(STAGING, status("False", "DigestMismatch", stalled="True"), "Warning", id="waiting will not mend"),
    ],
)
def test_turns_of_ready_are_told(before: dict[str, Any], after: dict[str, Any], kind: str | None) -> None:
    """Bad news are warnings, which monitors look for."""
    event = turn(served.OWNER, before, after, now=NOW, instance="operator-1")
    assert (event and event["type"]) == kind


def test_event_is_what_the_api_server_takes() -> None:
    """It is about the model, in the operator's name, with a time of microseconds and a note that is not too long."""
    event = turn(served.OWNER, {}, status("False", "Staging", message="x" * 2000), now=NOW, instance="operator-1")
    assert event is not None
    assert (event["eventTime"], len(event["note"])) == ("2026-11-22T10:00:00.000000Z", NOTE_LENGTH_MAX)
    assert event["regarding"]["uid"] == served.OWNER.uid
    assert event["metadata"]["namespace"] == served.OWNER.namespace


def test_the_same_turn_twice_is_one_event() -> None:
    """A write whose answer was lost is repeated."""
    names = {turn(served.OWNER, {}, STAGING, now=NOW, instance=name)["metadata"]["name"] for name in "ab"}  # type: ignore[index]
    assert len(names) == 1
