"""An approval that ends while its version serves is told within a minute, and takes nobody's service away."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.operator import expiry
from serving.operator.events import turns
from serving.operator.manifests import child_name
from serving.operator.observe import Container, Observed, read_container
from serving.operator.plan import Plan
from tests.unit.serving.operator import served
from tests.unit.serving.operator.refusals import KEY
from tests.unit.serving.operator.test_plan import ended
from tests.unit.serving.operator.worlds import again, conditions, decided, leaving, pods_of, running, seen, spec

END = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
APPROVAL: dict[str, Any] = {"approval": {"required": True, "trustedKeys": [KEY]}}


def at(time: datetime) -> str:
    """Return a time as the operator has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def staged(until: datetime | None = END) -> Container:
    """Return a stager that ended well, and what it told."""
    return Container(succeeded=True, told="" if until is None else json.dumps({"approvalExpires": until.isoformat()}))


def approved(number: int = 1, until: datetime | None = END, **more: Any) -> Any:
    """Say that a version has *number* pods, let in by an approval until *until*."""
    return running(number, stager=staged(until), **more)


def message(made: Plan, kind: str = "Approved") -> str:
    """Return what a condition says."""
    return next(str(each["message"]) for each in made.status["conditions"] if each["type"] == kind)


def serving(until: datetime | None = END, **changes: Any) -> Observed:
    """Return what is seen of version 1, which answers."""
    return seen(spec(1, minReplicas=2, **APPROVAL, **changes), {"answering": 1}, v1=approved(2, until))


def test_time_that_a_stager_leaves_is_read(tmp_path: Path) -> None:
    """In any zone; outside of a pod nothing is left."""
    log = tmp_path / "termination-log"
    expiry.write(END, log)
    assert not log.exists()
    log.touch()
    expiry.write(END.astimezone(tz=None), log)
    terminated = {"exitCode": 0, "message": log.read_text()}
    assert expiry.read(read_container({"state": {"terminated": terminated}}).told) == END


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing: no approval, or a stager of an older release"),
        pytest.param("the last line of a log", id="no JSON"),
        pytest.param("[" * 4000, id="too deep"),
        pytest.param("[]", id="a list"),
        pytest.param('{"approvalExpires": 7}', id="a number"),
        pytest.param('{"approvalExpires": "tomorrow"}', id="no time"),
        pytest.param('{"approvalExpires": "2026-11-22T12:00:00"}', id="no zone"),
        pytest.param('{"approvalExpires": "9999-12-31T23:59:59-01:00"}', id="after the end of the calendar"),
        pytest.param(" " * 5000 + '{"approvalExpires": "2026-11-22T12:00:00Z"}', id="too long"),
    ],
)
def test_time_that_is_none_is_no_end(text: str) -> None:
    """What cannot be read ends nothing."""
    assert expiry.read(text) is None


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        pytest.param({"exitCode": 1, "message": "why"}, "", id="a stager that failed"),
        pytest.param({"exitCode": 0}, "", id="one that left nothing"),
        pytest.param({"exitCode": 0, "message": "until"}, "until", id="one that ended well"),
    ],
)
def test_what_a_container_leaves_at_a_good_end_is_no_failure(ended: dict[str, Any], told: str) -> None:
    """A good end's message and a bad end's are two things."""
    found = read_container({"state": {"terminated": ended}})
    assert (found.told, found.message) == (told, "" if told else ended.get("message", ""))


@pytest.mark.parametrize(
    ("now", "status", "look_s"),
    [
        pytest.param(END - timedelta(days=9), "True", None, id="long before: at the regular looks"),
        pytest.param(END - MINUTE, "True", 90.0, id="soon: just then"),
        pytest.param(END, "True", 30.0, id="this very second: the operator's clock may be ahead of the node's"),
        pytest.param(END + expiry.SKEW, "False", None, id="half a minute later"),
        pytest.param(END + timedelta(days=9), "False", None, id="long after"),
    ],
)
def test_end_of_an_approval_is_told_within_a_minute(now: datetime, status: str, look_s: float | None) -> None:
    """The operator looks when it is time, although nothing that could wake it happens then."""
    made = decided(serving(), now=at(now))
    assert (conditions(made)["Approved"][0], made.again_s) == (status, look_s)
    assert expiry.SKEW < MINUTE


def test_end_of_the_calendar_is_no_overflow() -> None:
    """An approval that is to hold for ever ends on its last day, and half a minute later there is no time."""
    last = datetime.max.replace(tzinfo=UTC, microsecond=0)
    made = decided(serving(last), now=at(END))
    assert (conditions(made)["Approved"][0], made.again_s) == ("True", None)


def test_approval_says_until_when_it_is_in_force() -> None:
    """Whoever has to renew it can see when; a stager of an older release told nothing, and nothing ends."""
    told = "Version 1 is signed by a key of spec.approval.trustedKeys, and approved until 2026-11-22T12:00:00Z."
    assert message(decided(serving(), now=at(END - MINUTE))) == told
    silent = decided(serving(None), now=at(END + timedelta(days=999)))
    assert message(silent) == "Version 1 is signed by a key of spec.approval.trustedKeys."


def test_version_that_answers_goes_on_without_an_approval() -> None:
    """Nothing is removed or changed, Ready stays true; the condition, the version and the last failure say what is."""
    before = decided(serving(), now=at(END - MINUTE))
    made = again(serving(), before, now=at(END + MINUTE))
    told = (
        "The approval of version 1 expired at 2026-11-22T12:00:00Z: it still answers, since nobody else would, but no "
        "pod of it can start any more. Serve another version, or approve it again and start its pods anew: kubectl "
        "rollout restart deployment model-cancer-v1."
    )
    assert (conditions(made)["Approved"], message(made)) == (("False", "ApprovalExpired"), told)
    assert (made.apply, made.delete, made.shrink) == (before.apply, (), {})
    assert {kind: conditions(made)[kind][0] for kind in ("Ready", "Stalled", "TrafficReady")} == {
        "Ready": "True",
        "Stalled": "False",
        "TrafficReady": "True",
    }
    (version,) = [each for each in made.status["versions"] if each["version"] == 1]
    assert (made.status["answering"], version["state"], version["message"]) == (1, "Serving", told)
    assert made.status["lastFailure"] == {
        "reason": "ApprovalExpired",
        "message": told,
        "time": at(END + MINUTE),
        "pod": f"{child_name('cancer', 1)}-0",
        "version": 1,
    }
    (event,) = turns(served.OWNER, before.status, made.status, now=at(END + MINUTE), instance="operator-1")
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "ApprovalExpired", told)


@pytest.mark.parametrize(
    ("v1", "v2", "status", "reason", "version"),
    [
        pytest.param({"server": Container(ended="OOMKilled", restarts=1)}, None, {}, "OutOfMemory", 1, id="of itself"),
        pytest.param({}, {"prober": ended("GoldenTestFailed", "far")}, {}, "GoldenTestFailed", 2, id="of a canary"),
        pytest.param({}, {"stager": ended("ApprovalMissing", "no")}, {}, "ApprovalMissing", 2, id="of its approval"),
        pytest.param(
            {},
            {"server": Container(ended="OOMKilled", restarts=1)},
            {"answering": 2, "rollout": {"phase": "Promoted", "canaryPercent": 100, "reason": "Promoted"}},
            "OutOfMemory",
            2,
            id="of the promoted one that answers in its place",
        ),
    ],
)
def test_end_of_an_approval_hides_no_failure(
    v1: dict[str, Any], v2: dict[str, Any] | None, status: dict[str, Any], reason: str, version: int
) -> None:
    """What stops nothing is told after what does, by the last failure as by a version's own message."""
    begun = {"version": 2, "stable": 1, "phase": "Preparing", "step": 0, "canaryPercent": 0, "startedAt": at(END)}
    begun |= {"stepStartedAt": at(END), "reason": "Preparing", "message": "."} | status.get("rollout", {})
    there = {"v1": approved(ready=0 if v1 else 1, **v1)} | ({} if v2 is None else {"v2": running(1, ready=0, **v2)})
    wanted = spec(1, canary=None if v2 is None else 2, **APPROVAL)
    before = {"answering": 1} | status | ({} if v2 is None else {"rollout": begun})
    made = decided(seen(wanted, before, **there), now=at(END + MINUTE))
    assert conditions(made)["Approved"][0] == "False"
    assert (made.status["lastFailure"]["reason"], made.status["lastFailure"]["version"]) == (reason, version)
    told = made.status["lastFailure"]["message"]
    assert told in next(each["message"] for each in made.status["versions"] if each["version"] == version)


def test_version_that_answers_and_blinks_is_not_called_failed() -> None:
    """Its pods are not ready for a moment: they are being tested again, whatever their approval says."""
    blinks = seen(spec(1, minReplicas=2, **APPROVAL), {"answering": 1}, v1=approved(2, ready=0))
    (version,) = [each for each in decided(blinks, now=at(END + MINUTE)).status["versions"] if each["version"] == 1]
    assert version["state"] == "Loading"


def test_pod_that_cannot_start_any_more_is_told() -> None:
    """One of two pods lost its node: the other answers on, and the model is not whole until somebody approves it."""
    refused = Container(
        ended="Error", message=json.dumps({"reason": "ApprovalExpired", "message": "the approval expired"}), restarts=3
    )
    whole = serving()
    first, second = whole.pods
    made = decided(replace(whole, pods=(first, replace(second, stager=refused, ready=False))), now=at(END + MINUTE))
    assert conditions(made)["Ready"] == ("False", "ApprovalExpired")
    assert message(made, "Ready") == "A pod of version 1 is not started: the approval expired."
    assert (made.status["answering"], leaving(made)) == (1, set())


def test_approval_that_is_renewed_counts_from_the_first_new_pod_on() -> None:
    """Pods that started before keep what they were told; the newest approval is the version's."""
    whole = serving()
    first, second = whole.pods
    renewed = replace(whole, pods=(first, replace(second, stager=staged(END + timedelta(days=365)))))
    before = decided(whole, now=at(END + MINUTE))
    made = again(renewed, before, now=at(END + 2 * MINUTE))
    assert conditions(made)["Approved"] == ("True", "Approved")
    (event,) = turns(served.OWNER, before.status, made.status, now=at(END + 2 * MINUTE), instance="operator-1")
    assert (event["type"], event["reason"]) == ("Normal", "Approved")


def test_version_on_trial_is_taken_back_when_its_approval_ends() -> None:
    """Another version answers: nothing is lost."""
    told = {"version": 2, "stable": 1, "phase": "Progressing", "step": 0, "canaryPercent": 10}
    told |= {"startedAt": at(END), "stepStartedAt": at(END), "reason": "Measuring", "message": "."}
    wanted = spec(1, canary=2, **APPROVAL)
    observed = seen(wanted, {"answering": 1, "rollout": told}, v1=approved(until=None), v2=approved())
    made = decided(observed, now=at(END + MINUTE))
    assert (made.status["rollout"]["phase"], made.status["rollout"]["reason"]) == ("RolledBack", "ApprovalExpired")
    assert (made.status["rollout"]["canaryPercent"], made.status["answering"]) == (0, 1)
    promoted = {"answering": 2, "rollout": told | {"phase": "Promoted", "canaryPercent": 100, "reason": "Promoted"}}
    observed = seen(wanted, promoted, v1=approved(until=None), v2=approved())
    stays = decided(observed, now=at(END + MINUTE))
    assert (stays.status["rollout"]["phase"], stays.status["answering"], leaving(stays)) == ("Promoted", 2, set())
    assert conditions(stays)["Approved"] == ("False", "ApprovalExpired")


def test_successor_whose_approval_ends_never_begins_to_answer() -> None:
    """It was let in a moment before the end: the version before it, which is approved, goes on."""
    observed = seen(spec(2, **APPROVAL), {"answering": 1}, v1=approved(until=None), v2=approved())
    made = decided(observed, now=at(END + MINUTE))
    assert (made.status["answering"], leaving(made), pods_of(made)) == (1, set(), pods_of(decided(observed)))
    assert conditions(made)["Stalled"] == ("True", "ApprovalExpired")
    assert message(made).startswith(
        "The approval of version 2 expired at 2026-11-22T12:00:00Z: it may not be used any more. Serve another version"
    )
