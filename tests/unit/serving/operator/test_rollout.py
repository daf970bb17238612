"""How far a new version comes: each phase, each way forward and each way back; readable as the manual of a rollout."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.operator import spec as spec_module
from serving.operator.annotations import Word, meaning, word_of
from serving.operator.gates import Gates, Measured
from serving.operator.rollout import (
    LOOK_MEASURING_S,
    RolloutWish,
    VersionState,
    decide,
    look_again_s,
    replicas,
    wish_of,
)
from serving.operator.rollout_status import PHASES, RolloutState
from tests.unit.serving.operator import served

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
WISH = RolloutWish(
    stable=3,
    version=4,
    steps=(5, 25, 50),
    percent=50,
    gates=Gates(error_rate=0.01, p99_ms=500, agreement=0.98),
    interval_s=120,
    min_requests=50,
    timeout_s=600,
)


def after(seconds: float) -> datetime:
    """Return a time so long after the start."""
    return START + timedelta(seconds=seconds)


def state(phase: Any, percent: int = 0, step: int = 0, **changes: Any) -> RolloutState:
    """Return a rollout of version 4 whose step began at the start."""
    return replace(RolloutState(4, 3, phase, step, percent, START, START, "Measuring", "So it is."), **changes)


def pods(ready: int = 4, stable: int = 4, **changes: Any) -> dict[int, VersionState]:
    """Return what is so about the pods of both versions."""
    trial = VersionState(4, "Serving" if ready else "Staging", wanted=ready, ready=ready)
    return {3: VersionState(3, "Serving", stable, stable), 4: replace(trial, **changes)}


def seen(requests: int = 100, errors: int = 0, differed: int = 0, complete: bool = True) -> Measured:
    """Return what the gateways measured; every call took 0.1 s."""
    return Measured(requests, errors, {0.1: requests, math.inf: requests}, requests - differed, differed, complete)


def decided(
    before: RolloutState | None,
    measured: Measured | None = None,
    *,
    wish: RolloutWish = WISH,
    versions: dict[int, VersionState] | None = None,
    verb: Any = None,
    at: float = 0,
) -> RolloutState:
    """Decide once."""
    word = Word(verb, 4, before.started_at if before else after(at)) if verb else None
    return decide(wish, before, pods() if versions is None else versions, measured, word=word, now=after(at))


# ---- forward


def test_rollout_goes_up_its_steps_and_is_promoted() -> None:
    """Each step is measured for its interval, the one with all requests too; then it is promoted."""
    found, at, shares = decided(None), 0.0, []
    while not found.over:
        shares.append(found.canary_percent)
        at += 120
        found = decided(found, seen(), at=at)
    assert shares == [5, 25, 50, 100]
    assert (found.phase, found.canary_percent, found.reason) == ("Promoted", 100, "Promoted")
    assert found.message == (
        "Version 4 answers all requests: 100 requests measured, all gates passed. "
        "Set spec.traffic.stable to it to end the rollout."
    )


def test_no_request_reaches_it_before_its_pods_are_ready() -> None:
    """It is being prepared until then, however long ago the rollout began."""
    found = decided(None, versions=pods(0, message="Version 4 is not fetched and checked yet."))
    assert (found.phase, found.canary_percent) == ("Preparing", 0)
    assert found.message == (
        "Version 4 answers 0 % of the requests: 0 of 1 pods ready (Version 4 is not fetched and checked yet)."
    )
    found = decided(found, seen(), versions=pods(1), at=60)
    assert (found.phase, found.canary_percent, found.step_started_at) == ("Progressing", 5, after(60))


def test_step_lasts_its_interval() -> None:
    """Good news do not shorten it."""
    assert decided(state("Progressing", 5), seen(), at=119).canary_percent == 5
    assert decided(state("Progressing", 5), seen(), at=120).canary_percent == 25


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        pytest.param(None, "GatewaysUnseen", id="no gateway could be asked"),
        pytest.param(seen(complete=False), "GatewaysUnseen", id="a gateway could not be asked"),
        pytest.param(seen(0), "TooFewRequests", id="no request came"),
        pytest.param(seen(49), "TooFewRequests", id="too few came"),
        pytest.param(seen(50, errors=1), "ErrorRate", id="above the limit, perhaps by chance"),
    ],
)
def test_no_news_is_no_good_news(measured: Measured | None, reason: str) -> None:
    """It stays where it is."""
    found = decided(state("Progressing", 5), measured, at=300)
    assert (found.phase, found.canary_percent, found.reason) == ("Progressing", 5, reason)


def test_pods_come_before_the_requests() -> None:
    """A step that needs more pods first makes them, and is measured from when it has its share."""
    before = state("Progressing", 25, step=1)
    scaling = decided(before, seen(), versions=pods(1), at=120)
    assert (scaling.step, scaling.canary_percent, scaling.reason) == (2, 25, "Scaling")
    assert replicas(WISH, scaling, 4) == 2
    raised = decided(scaling, seen(), versions=pods(2), at=150)
    assert (raised.step, raised.canary_percent, raised.step_started_at) == (2, 50, after(150))


@pytest.mark.parametrize(
    ("found", "count"),
    [
        pytest.param(state("Preparing"), 1, id="one at least"),
        pytest.param(state("Progressing", 25, step=1), 3, id="rounded up"),
        pytest.param(state("Progressing", 25, step=2), 5, id="for the share to come"),
        pytest.param(state("Promoted", 100, step=4), 10, id="all"),
        pytest.param(state("RolledBack"), 0, id="none"),
    ],
)
def test_replicas_are_for_the_share(found: RolloutState, count: int) -> None:
    """Where the stable version has ten pods."""
    assert replicas(WISH, found, 10) == count


def test_shadow_comes_before_the_first_share() -> None:
    """A version that gets copies is compared first, while nobody gets its answers, under the same gates."""
    wish = replace(WISH, shadow_percent=50)
    shadowing = decided(None, wish=wish, versions=pods(2))
    assert (shadowing.phase, shadowing.canary_percent, replicas(wish, shadowing, 4)) == ("Shadowing", 0, 2)
    assert decided(shadowing, seen(), wish=wish, at=60).phase == "Shadowing"
    shared = decided(shadowing, seen(), wish=wish, at=120)
    assert (shared.phase, shared.canary_percent, shared.step) == ("Progressing", 5, 0)
    back = decided(shadowing, seen(differed=50), wish=wish, at=30)
    assert (back.phase, back.reason) == ("RolledBack", "Agreement")


def test_rollout_that_is_not_automatic_waits_for_a_person() -> None:
    """It goes up to canary.percent, where nobody is too late; then somebody has to say the word."""
    wish = replace(WISH, automatic=False, percent=30)
    assert wish.ladder == (5, 25, 30)
    waiting = decided(state("Progressing", 30, step=2), seen(), wish=wish, at=5000)
    assert (waiting.phase, waiting.canary_percent, waiting.reason) == ("Progressing", 30, "WaitingForPromotion")
    assert decided(waiting, seen(0), wish=wish, at=9000).phase == "Progressing"
    assert decided(waiting, seen(), wish=wish, verb="promote").phase == "Promoted"
    assert decided(waiting, seen(errors=50), wish=wish).phase == "RolledBack"


# ---- back


@pytest.mark.parametrize(
    ("measured", "reason", "why"),
    [
        (seen(50, errors=25), "ErrorRate", "25 of 50 calls failed, 1.00% may"),
        (
            Measured(50, 0, {0.5: 0, 1.0: 50, math.inf: 50}, 50),
            "Latency",
            "50 of 50 calls took longer than 500 ms, 1% may",
        ),
        (seen(differed=40), "Agreement", "40 of 100 answers differ from the stable version's, 2.00% may"),
    ],
)
def test_missed_gate_takes_it_back_at_once(measured: Measured, reason: str, why: str) -> None:
    """The step's end is not waited for, and the reason is told with its numbers."""
    found = decided(state("Progressing", 25, step=1), measured, at=10)
    assert (found.phase, found.canary_percent, found.reason) == ("RolledBack", 0, reason)
    assert found.message == (
        f"Version 4 was taken back while it answered 25 % of the requests: {why}. Version 3 answers all requests."
    )


@pytest.mark.parametrize("phase", ["Preparing", "Blocked", "Shadowing", "Progressing", "Paused"])
def test_version_that_fails_is_taken_back(phase: Any) -> None:
    """A wrong digest, an expired approval or a missed golden case ends it in any phase, in the words of its pods."""
    why: dict[str, Any] = {
        "failed": True,
        "reason": "DigestMismatch",
        "message": "Version 4 is not served: a file was changed.",
    }
    found = decided(state(phase), versions=pods(0, **why))
    assert (found.phase, found.reason) == ("RolledBack", "DigestMismatch")
    assert found.message == (
        "Version 4 was taken back: Version 4 is not served: a file was changed. Version 3 answers all requests."
    )


@pytest.mark.parametrize(
    ("before", "measured", "versions", "reason"),
    [
        pytest.param(state("Preparing"), None, pods(0), "TooSlow", id="never ready"),
        pytest.param(state("Progressing", 5), seen(0), None, "NoTraffic", id="nobody asks"),
        pytest.param(state("Progressing", 5), None, None, "GatewaysUnseen", id="nobody tells"),
        pytest.param(state("Progressing", 50, step=3), seen(), pods(2), "TooSlow", id="its pods never come"),
        pytest.param(state("Progressing", 5), seen(50, errors=1), None, "ErrorRate", id="never well"),
        pytest.param(
            state("Shadowing"), Measured(60, 0, {math.inf: 0}, 0), None, "TooFewComparisons", id="not compared"
        ),
    ],
)
def test_step_that_takes_too_long_takes_it_back(
    before: RolloutState, measured: Measured | None, versions: dict[int, VersionState] | None, reason: str
) -> None:
    """Time runs from the step's beginning; a second before, it still waits."""
    assert not decided(before, measured, versions=versions, at=599).over
    found = decided(before, measured, versions=versions, at=600)
    assert (found.phase, found.reason) == ("RolledBack", reason)
    assert "no step forward within 600 s" in found.message


def test_what_was_taken_back_stays_so() -> None:
    """Neither better figures nor a word bring it back; only another version, or another stable one, begins anew."""
    back = state("RolledBack", reason="ErrorRate")
    for verb in (None, "resume", "promote", "pause"):
        assert decided(back, seen(), verb=verb, at=1000) == back
    for wish in (replace(WISH, version=5), replace(WISH, stable=2)):
        found = decide(wish, back, pods(), seen(), word=None, now=after(1000))
        assert (found.version, found.stable, found.phase) in ((5, 3, "Preparing"), (4, 2, "Progressing"))
        assert found.observed is None


def test_version_without_a_device_is_not_begun() -> None:
    """It is blocked with the reason, for as long as it takes, and then prepared with all its time."""
    why: dict[str, Any] = {"state": "Blocked", "reason": "InsufficientGPU", "message": "No node has a GPU free."}
    found = decided(None, versions=pods(0, **why))
    assert (found.phase, found.reason, found.message) == ("Blocked", "InsufficientGPU", "No node has a GPU free.")
    assert decided(found, versions=pods(0, **why), at=9000) == found
    freed = decided(found, versions=pods(0), at=9000)
    assert (freed.phase, freed.step_started_at) == ("Preparing", after(9000))


# ---- a person's word


def test_pause_holds_and_resume_measures_anew() -> None:
    """While it is paused no time runs; what was measured before the pause counts no more."""
    paused = decided(state("Progressing", 25, step=1), seen(), verb="pause", at=200)
    assert (paused.phase, paused.canary_percent) == ("Paused", 25)
    assert decided(paused, seen(0), verb="pause", at=99_999).phase == "Paused"
    resumed = decided(paused, seen(), verb="resume", at=100_000)
    assert (resumed.phase, resumed.canary_percent, resumed.step_started_at) == ("Progressing", 25, after(100_000))


def test_pause_does_not_protect_a_bad_version() -> None:
    """Patients' pictures go to it meanwhile."""
    assert decided(state("Paused", 25, step=1), seen(errors=50), verb="pause").reason == "ErrorRate"


def test_pause_before_the_first_share_keeps_it_from_requests() -> None:
    """It is prepared, and stays there until it is resumed."""
    paused = decided(None, verb="pause")
    assert (paused.phase, paused.canary_percent) == ("Paused", 0)
    assert decided(paused, verb="resume", at=50).canary_percent == 5


def test_promote_skips_the_steps_and_not_the_proof() -> None:
    """The pods must be verified and be as many as all requests need; the gates are the person's to overrule."""
    asked = decided(None, versions=pods(0), verb="promote")
    assert asked.phase == "Preparing"
    growing = decided(asked, versions=pods(1), verb="promote", at=10)
    assert (growing.phase, growing.canary_percent, growing.reason) == ("Progressing", 0, "Promoting")
    assert replicas(WISH, growing, 4) == 4
    assert decided(growing, versions=pods(4), verb="promote", at=20).phase == "Promoted"


def test_abort_ends_it_even_after_the_promotion() -> None:
    """Until the spec moves, the old version's pods are there to take over."""
    for before in (state("Preparing"), state("Progressing", 25, step=1), state("Promoted", 100, step=4)):
        found = decided(before, verb="abort")
        assert (found.phase, found.canary_percent, found.reason) == ("RolledBack", 0, "Aborted")


@pytest.mark.parametrize(
    ("annotations", "word"),
    [
        ({"rollout": "promote", "rollout-version": "4"}, Word("promote", 4)),
        ({"rollout": "abort", "rollout-version": "4@2026-11-22T10:00:00Z"}, Word("abort", 4, START)),
        ({"rollout": "abort", "rollout-version": meaning(4, "2026-11-22T10:00:00Z")}, Word("abort", 4, START)),
        ({"rollout": "abort", "rollout-version": "4@yesterday"}, None),
        ({"rollout": "abort", "rollout-version": "4@"}, None),
        ({"rollout": "promote"}, None),
        ({"rollout": "promote", "rollout-version": "four"}, None),
        ({"rollout": "destroy", "rollout-version": "4"}, None),
        ({}, None),
    ],
)
def test_word_needs_the_version_that_it_means(annotations: dict[str, str], word: Word | None) -> None:
    """An annotation stays on the object: a word without a version would hit the next one, too."""
    assert word_of({f"serving.healthguard.io/{name}": text for name, text in annotations.items()}) == word


def test_word_for_another_version_is_not_obeyed() -> None:
    """Last month's promotion promotes nothing today."""
    found = decide(WISH, state("Progressing", 5), pods(), seen(), word=Word("promote", 3), now=after(10))
    assert (found.phase, found.canary_percent) == ("Progressing", 5)


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        (Word("promote", 4, START), "Promoted"),
        (Word("promote", 4, after(-86_400)), "Progressing"),
        (Word("promote", 4), "Progressing"),
        (Word("abort", 4, START), "RolledBack"),
        (Word("abort", 4, after(-86_400)), "Progressing"),
        (Word("abort", 4), "RolledBack"),
        (Word("pause", 4), "Paused"),
    ],
)
def test_word_for_another_rollout_of_the_same_version_is_not_obeyed(word: Word, phase: str) -> None:
    """A version that comes on trial again is judged anew; without the time only what risks no patient is obeyed."""
    assert decide(WISH, state("Progressing", 5), pods(), seen(), word=word, now=after(10)).phase == phase


# ---- what stands in the status


@given(
    st.sampled_from(PHASES),
    st.integers(0, 4),
    st.sampled_from([0, 5, 25, 50, 100]),
    st.one_of(st.none(), st.builds(seen, st.integers(0, 200), st.integers(0, 3), st.integers(0, 5))),
    st.integers(-100, 2000),
)
def test_state_goes_through_the_status_unchanged(
    phase: Any, step: int, percent: int, measured: Measured | None, at: int
) -> None:
    """Whatever was decided is read back as it was, so a killed operator goes on where it stood."""
    found = decided(state(phase, percent, step), measured, at=at)
    again = RolloutState.read(found.status())
    assert again is not None
    assert again.status() == found.status()
    assert replace(again, observed=None) == replace(found, observed=None)


@given(
    st.sampled_from(["Shadowing", "Progressing", "Paused"]),
    st.integers(0, 3),
    st.one_of(st.none(), st.builds(seen, st.integers(0, 49))),
    st.integers(-100, 5000),
    st.sampled_from([None, "resume", "pause"]),
)
def test_share_never_grows_without_measurements(
    phase: Any, step: int, measured: Measured | None, at: int, verb: Any
) -> None:
    """However many pods there are, however long it takes, and whatever a person says short of promoting it."""
    share = 0 if phase == "Shadowing" else WISH.share(step)
    wish = replace(WISH, shadow_percent=100 if phase == "Shadowing" else None)
    found = decided(state(phase, share, step), measured, wish=wish, verb=verb, at=at)
    assert found.canary_percent <= share
    assert found.phase != "Promoted"


@pytest.mark.parametrize(
    "found", [None, {}, {"phase": "Odd"}, [], "text", state("Paused").status() | {"stepStartedAt": "yesterday"}]
)
def test_status_that_cannot_be_read_begins_anew(found: Any) -> None:
    """An older release's, or somebody's own: nothing is built on it."""
    assert RolloutState.read(found) is None


def test_clock_that_is_behind_changes_nothing() -> None:
    """Two operators' clocks differ: a step that begins in the future has lasted no time yet."""
    before = state("Progressing", 5)
    assert decided(before, seen(), at=-500).step_started_at == START
    assert decided(before, seen(), at=-500).canary_percent == 5


def test_measurements_are_told_every_ten_seconds() -> None:
    """Each telling is a write that wakes every watcher; a new step is told at once."""
    found = decided(state("Progressing", 5), seen(10), at=1)
    assert found.observed is not None
    assert found.status()["observed"]["requests"] == 10
    for at, requests in ((9, 10), (11, 30)):
        found = decided(found, seen(3 * at - 3), at=at)
        assert found.observed is not None
        assert found.observed.requests == requests
    assert decided(found, seen(20), at=12) == found


def test_look_again_while_something_is_measured() -> None:
    """A rollout that is over needs no look until something changes."""
    assert look_again_s(state("Promoted", 100)) is None
    assert look_again_s(state("RolledBack")) is None
    assert look_again_s(state("Progressing", 5)) == LOOK_MEASURING_S


def test_wish_is_what_the_spec_says() -> None:
    """A canary without a rollout has the share that its spec says, and nobody drives it."""
    versions = [{"version": n, "storageUri": f"pvc://models/cancer/{n}", "digest": served.DIGEST} for n in (3, 4)]
    traffic = {"stable": 3, "canary": {"version": 4, "percent": 10}, "shadow": {"version": 4, "percent": 40}}
    rollout = {"steps": [5, 25], "gates": {"p99Ms": 300}, "automatic": False}
    whole = spec_module.read({"versions": versions, "traffic": traffic, "rollout": rollout})
    wish = wish_of(whole)
    assert wish is not None
    assert (wish.stable, wish.version, wish.ladder, wish.shadow_percent) == (3, 4, (5, 10), 40)
    assert wish.gates == Gates(error_rate=0.01, p99_ms=300)
    assert wish_of(whole.model_copy(update={"rollout": None})) is None
    assert wish_of(spec_module.read({"versions": versions, "traffic": {"stable": 3}})) is None
