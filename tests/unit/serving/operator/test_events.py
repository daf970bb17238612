"""An Event is written for each turn of Ready and of a rollout, and for nothing else."""

from typing import Any

import pytest

from serving.operator.events import NOTE_LENGTH_MAX, turns
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
    events = turns(served.OWNER, before, after, now=NOW, instance="operator-1")
    assert [event["type"] for event in events] == ([kind] if kind else [])


def approved(status: str, reason: str) -> dict[str, Any]:
    """Return the status of a model that serves, and whether it is approved."""
    told = {"type": "Approved", "status": status, "reason": reason, "message": "Why."}
    return {"conditions": [*SERVING["conditions"], told]}


IN_FORCE, EXPIRED = approved("True", "Approved"), approved("False", "ApprovalExpired")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param(SERVING, IN_FORCE, None, id="a first approval"),
        pytest.param(IN_FORCE, EXPIRED, ("Warning", "ApprovalExpired"), id="its end"),
        pytest.param(SERVING, EXPIRED, ("Warning", "ApprovalExpired"), id="its end, of which nobody knew the begin"),
        pytest.param(EXPIRED, EXPIRED, None, id="nothing turns"),
        pytest.param(EXPIRED, IN_FORCE, ("Normal", "Approved"), id="a new one"),
        pytest.param(EXPIRED, SERVING, None, id="none is asked for any more"),
        pytest.param(
            EXPIRED, approved("Unknown", "NotChecked"), None, id="pods of a changed spec are not looked at yet"
        ),
    ],
)
def test_turns_of_an_approval_are_told(
    before: dict[str, Any], after: dict[str, Any], told: tuple[str, str] | None
) -> None:
    """Ready does not turn with it: what serves goes on."""
    events = turns(served.OWNER, before, after, now=NOW, instance="operator-1")
    assert [(event["type"], event["reason"]) for event in events] == ([told] if told else [])


def test_reason_that_ready_tells_is_told_once() -> None:
    """A version that is refused at its start is one piece of news."""
    refused = status("False", "ApprovalExpired")
    refused["conditions"].append({"type": "Approved", "status": "False", "reason": "ApprovalExpired", "message": "."})
    (event,) = turns(served.OWNER, STAGING, refused, now=NOW, instance="operator-1")
    assert event["reason"] == "ApprovalExpired"


def rollout(phase: str, percent: int, *, version: int = 2) -> dict[str, Any]:
    """Return a ServedModel's status while a version is on trial; what Ready says stays the same."""
    told = {"version": version, "phase": phase, "canaryPercent": percent, "message": "Why."}
    return SERVING | {"rollout": told}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param(SERVING, rollout("Preparing", 0), ("Normal", "RolloutPreparing"), id="a canary"),
        pytest.param(rollout("Preparing", 0), rollout("Progressing", 5), ("Normal", "RolloutProgressing"), id="a step"),
        pytest.param(
            rollout("Progressing", 5), rollout("Progressing", 25), ("Normal", "RolloutProgressing"), id="a larger share"
        ),
        pytest.param(rollout("Progressing", 5), rollout("Progressing", 5), None, id="nothing moves"),
        pytest.param(rollout("Progressing", 5), rollout("RolledBack", 0), ("Warning", "RolloutRolledBack"), id="back"),
        pytest.param(rollout("Promoted", 100), SERVING, None, id="it is over"),
        pytest.param(
            rollout("RolledBack", 0),
            rollout("RolledBack", 0, version=3),
            ("Warning", "RolloutRolledBack"),
            id="another version",
        ),
    ],
)
def test_moves_of_a_rollout_are_told(
    before: dict[str, Any], after: dict[str, Any], told: tuple[str, str] | None
) -> None:
    """Each phase and each share, so that the events of a model read as its history."""
    events = turns(served.OWNER, before, after, now=NOW, instance="operator-1")
    assert [(event["type"], event["reason"]) for event in events] == ([told] if told else [])


def test_event_is_what_the_api_server_takes() -> None:
    """It is about the model, in the operator's name, with a time of microseconds and a note that is not too long."""
    after = status("False", "Staging", message="x" * 2000)
    (event,) = turns(served.OWNER, {}, after, now=NOW, instance="operator-1")
    assert (event["eventTime"], len(event["note"])) == ("2026-11-22T10:00:00.000000Z", NOTE_LENGTH_MAX)
    assert event["regarding"]["uid"] == served.OWNER.uid
    assert event["metadata"]["namespace"] == served.OWNER.namespace


def test_the_same_turn_twice_is_one_event() -> None:
    """A write whose answer was lost is repeated."""
    told = [turns(served.OWNER, {}, STAGING, now=NOW, instance=name) for name in "ab"]
    names = {event["metadata"]["name"] for events in told for event in events}
    assert len(names) == 1
