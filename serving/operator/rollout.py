"""
Decide how far a new version has come: prepared, asked beside, given a share of the requests, promoted or taken back.

Pure: what is wished, what was decided before (`status.rollout`), what the pods say, what the gateways measured, a
person's word and the time go in; what is so now comes out. Nothing else is remembered, so an operator that was killed,
or a second one beside it, goes on where the status stands. The spec is never edited: it belongs to whoever wrote it.

    Preparing    its pods are made, verified, loaded and tested; no request reaches it
    Blocked      its pods cannot be made here, such as for want of a free GPU; nothing was begun
    Shadowing    it gets copies of requests, and nobody gets its answers
    Progressing  it answers a share of the requests, step by step
    Paused       a person asked to stay as it is
    Promoted     it answers all requests, until spec.traffic.stable names it
    RolledBack   it answers none any more, and the reason says why

A rollout never moves on for want of news: without requests, or without a gateway that can be asked, it waits, and is
taken back where `timeoutSeconds` pass without a step forward. It is taken back at once where a gate is missed beyond
what chance explains, paused or not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from serving.operator.annotations import Verb, Word
from serving.operator.gates import Gates, Measured, Verdict, judge
from serving.operator.rollout_status import Observation, RolloutState
from serving.operator.spec import ServedModelSpec

OBSERVED_S = 10.0
"""What was measured is told so often: each telling is a write, and wakes every watcher of the object."""
LOOK_MEASURING_S, LOOK_WAITING_S = 3.0, 30.0


@dataclass(frozen=True)
class RolloutWish:
    """What the spec says of a rollout."""

    stable: int
    version: int
    steps: tuple[int, ...]
    """Shares of the requests, percent, rising."""
    percent: int
    """The greatest share without a person's word, where it is not automatic."""
    gates: Gates
    shadow_percent: int | None = None
    """How many requests it gets copies of, before its first step and during it; None: none."""
    automatic: bool = True
    """Whether it goes up to all requests and is promoted by itself. Taken back it is by itself in any case."""
    interval_s: float = 120.0
    """How long a step lasts at least."""
    min_requests: int = 50
    """Requests that a step is judged by at least."""
    timeout_s: float = 1800.0
    """How long a step, or the preparation, may take."""

    @property
    def ladder(self) -> tuple[int, ...]:
        """Return the shares that it goes through by itself; the last one is measured like the others."""
        top = 100 if self.automatic else self.percent
        return (*(step for step in self.steps if step < top), top)

    def share(self, step: int) -> int:
        """Return the share of a step; after the last: all."""
        return self.ladder[step] if step < len(self.ladder) else 100


@dataclass(frozen=True)
class VersionState:
    """What is so about one version's pods."""

    version: int
    state: str = "NotServed"
    """In the words of `status.versions`; Blocked: its pods are not even made."""
    wanted: int = 0
    """Pods that are asked for."""
    ready: int = 0
    """Pods that take requests."""
    failed: bool = False
    """Whether waiting will not mend it: a wrong digest, a missed golden case, a server that ends again and again."""
    reason: str = ""
    message: str = ""
    """Why it is so: a sentence, as in the conditions."""


VersionStates = Mapping[int, VersionState]


def decide(
    wish: RolloutWish,
    state: RolloutState | None,
    versions: VersionStates,
    measured: Measured | None,
    *,
    word: Word | None,
    now: datetime,
) -> RolloutState:
    """
    Return what is so now.

    Args:
        state: what was so before; another version's counts as none.
        measured: of the version on trial, since `state.step_started_at`; None: no gateway could be asked.
        word: a person's; one that means another version or another rollout of it is not obeyed.
    """
    now = now.replace(microsecond=0)
    if state is None or (state.version, state.stable) != (wish.version, wish.stable):
        measured, state = None, _begun(wish, now)
    verb = _obeyed(word, state)
    trial = _trial(wish, versions)
    decided = _ended(wish, state, trial, measured, verb) or _moved(wish, state, versions, measured, verb=verb, now=now)
    return _observed(state, decided, measured, now)


def _obeyed(word: Word | None, state: RolloutState) -> Verb | None:
    """Return what a person asks for this rollout; None: nothing."""
    if word is None or word.version != state.version:
        return None
    if word.started_at is None:
        # A promotion skips the gates: one that was left from another rollout must not. The other verbs risk no patient.
        return None if word.verb == "promote" else word.verb
    return word.verb if word.started_at == state.started_at else None


def wish_of(spec: ServedModelSpec) -> RolloutWish | None:
    """Return what a spec wishes; None where there is no canary, or its share is the spec's own business."""
    canary, shadow, rollout = spec.traffic.canary, spec.traffic.shadow, spec.rollout
    if canary is None or rollout is None:
        return None
    gates = rollout.gates
    return RolloutWish(
        stable=spec.traffic.stable,
        version=canary.version,
        steps=tuple(sorted(rollout.steps)),
        percent=rollout.steps[-1] if canary.percent is None else canary.percent,
        gates=Gates(gates.error_rate, gates.p99_ms, gates.agreement),
        shadow_percent=shadow.percent if shadow is not None and shadow.version == canary.version else None,
        automatic=rollout.automatic,
        interval_s=rollout.interval_seconds,
        min_requests=rollout.min_requests,
        timeout_s=rollout.timeout_seconds,
    )


def replicas(wish: RolloutWish, state: RolloutState, stable_replicas: int) -> int:
    """Return how many pods the version on trial needs: for its next share, so that it has them before the requests."""
    if state.phase == "RolledBack":
        return 0
    return replicas_for(max(state.canary_percent, next_percent(wish, state)), stable_replicas)


def replicas_for(percent: int, stable_replicas: int) -> int:
    """Return how many pods a share of the requests needs where all need *stable_replicas*; one at least."""
    return max(1, math.ceil(percent * stable_replicas / 100))


def next_percent(wish: RolloutWish, state: RolloutState) -> int:
    """Return the share that pods are needed for, percent: that of the step which is measured or about to begin."""
    shadowing = state.phase in ("Preparing", "Blocked", "Shadowing") and not state.canary_percent
    return wish.shadow_percent if shadowing and wish.shadow_percent is not None else wish.share(state.step)


def look_again_s(state: RolloutState) -> float | None:
    """Return when to look again although nothing may be heard until then, seconds; None: no need."""
    if state.over:
        return None
    return LOOK_MEASURING_S if state.phase in ("Shadowing", "Progressing", "Paused") else LOOK_WAITING_S


def _begun(wish: RolloutWish, now: datetime) -> RolloutState:
    message = f"Version {wish.version} gets no requests until its pods are ready."
    return RolloutState(wish.version, wish.stable, "Preparing", 0, 0, now, now, "Preparing", message)


def _ended(
    wish: RolloutWish, state: RolloutState, trial: VersionState, measured: Measured | None, verb: Verb | None
) -> RolloutState | None:
    """Return what ends the rollout, or is its end already; None: it goes on."""
    if state.phase == "RolledBack":
        return state
    if verb == "abort":
        return _taken_back(state, "Aborted", "a person asked for it")
    if state.phase == "Promoted":
        return state
    if trial.failed:
        return _taken_back(state, trial.reason, trial.message)
    verdict = judge(wish.gates, measured, wish.min_requests)
    if verdict.kind == "fail" and state.phase not in ("Preparing", "Blocked"):
        return _taken_back(state, verdict.reason, verdict.message)
    return None


def _moved(
    wish: RolloutWish,
    state: RolloutState,
    versions: VersionStates,
    measured: Measured | None,
    *,
    verb: Verb | None,
    now: datetime,
) -> RolloutState:
    """Return the state after at most one step forward."""
    trial = _trial(wish, versions)
    if state.phase in ("Preparing", "Blocked"):
        waiting = _waiting_for_pods(wish, state, versions, now)
        if waiting is not None:
            return waiting
    if verb == "pause":
        return state if state.phase == "Paused" else _paused(state)
    if verb == "promote":
        return _promoting(wish, state, versions)
    if state.phase == "Paused":
        # What was measured before counts no more: the share may have stood for days.
        state = replace(state, phase="Progressing" if state.canary_percent else "Preparing", step_started_at=now)
    if state.phase in ("Preparing", "Blocked"):
        return _stepped(wish, state, versions, now) if wish.shadow_percent is None else _shadowed(wish, state, now)
    if next_percent(wish, state) > state.canary_percent and state.phase == "Progressing":
        return _raised(wish, state, versions, now) or _late(wish, state, now, _lacking(wish, trial))
    return _measured(wish, state, versions, judge(wish.gates, measured, wish.min_requests), now)


def _waiting_for_pods(
    wish: RolloutWish, state: RolloutState, versions: VersionStates, now: datetime
) -> RolloutState | None:
    """Return the state of a version whose pods are not ready; None: they are."""
    trial = _trial(wish, versions)
    if trial.state == "Blocked":
        return replace(state, phase="Blocked", reason=trial.reason, message=_sentence(trial.message))
    if state.phase == "Blocked":
        state = replace(state, phase="Preparing", step_started_at=now)
    needed = replicas_for(next_percent(wish, state), _stable_replicas(wish, versions))
    if trial.ready >= needed:
        return None
    told = Verdict("wait", "Preparing", f"{trial.ready} of {needed} pods ready{_because(trial)}")
    return _late(wish, state, now, told)


def _measured(
    wish: RolloutWish, state: RolloutState, versions: VersionStates, verdict: Verdict, now: datetime
) -> RolloutState:
    """Return the state of a version whose step is being measured."""
    if verdict.kind != "pass":
        return _late(wish, state, now, verdict)
    if _elapsed_s(state, now) < wish.interval_s:
        return _told(state, "Measuring", f"{verdict.message}; the step lasts {wish.interval_s:g} s")
    if state.phase == "Shadowing":
        return _stepped(wish, state, versions, now)
    if state.step + 1 < len(wish.ladder):
        return _stepped(wish, replace(state, step=state.step + 1), versions, now)
    if wish.automatic or state.step >= len(wish.ladder):
        return _promoted(wish, state, verdict.message)
    return _told(state, "WaitingForPromotion", f"{verdict.message}; a person may promote or abort it")


def _stepped(wish: RolloutWish, state: RolloutState, versions: VersionStates, now: datetime) -> RolloutState:
    """Return the state at the beginning of its step: with the share at once where there are pods for it."""
    begun = replace(state, phase="Progressing", step_started_at=now)
    return _raised(wish, begun, versions, now) or _told(begun, "Scaling", "more pods are made first")


def _raised(wish: RolloutWish, state: RolloutState, versions: VersionStates, now: datetime) -> RolloutState | None:
    """Return the state with its step's share; None: there are too few pods for it yet."""
    share = next_percent(wish, state)
    trial = _trial(wish, versions)
    if trial.ready < replicas_for(share, _stable_replicas(wish, versions)):
        return None
    raised = replace(state, phase="Progressing", canary_percent=share, step_started_at=now)
    return _told(raised, "Measuring", "the step has begun")


def _shadowed(wish: RolloutWish, state: RolloutState, now: datetime) -> RolloutState:
    begun = replace(state, phase="Shadowing", step_started_at=now)
    return _told(begun, "Measuring", f"it gets copies of {wish.shadow_percent} % of the requests")


def _promoting(wish: RolloutWish, state: RolloutState, versions: VersionStates) -> RolloutState:
    trial = _trial(wish, versions)
    if trial.ready >= replicas_for(100, _stable_replicas(wish, versions)):
        return _promoted(wish, state, "a person asked for it")
    asked = replace(state, phase="Progressing", step=len(wish.ladder))
    return _told(asked, "Promoting", f"a person asked for it, and more pods are made first{_because(trial)}")


def _promoted(wish: RolloutWish, state: RolloutState, why: str) -> RolloutState:
    message = f"Version {wish.version} answers all requests: {why}. Set spec.traffic.stable to it to end the rollout."
    return replace(
        state, phase="Promoted", step=len(wish.ladder), canary_percent=100, reason="Promoted", message=message
    )


def _paused(state: RolloutState) -> RolloutState:
    return _told(replace(state, phase="Paused"), "Paused", "a person asked for it")


def _late(wish: RolloutWish, state: RolloutState, now: datetime, verdict: Verdict) -> RolloutState:
    """Return the state of a step that goes on, or its end where it takes too long."""
    if _elapsed_s(state, now) < wish.timeout_s or _for_a_person(wish, state):
        return _told(state, verdict.reason, verdict.message)
    told = f"no step forward within {wish.timeout_s:g} s: {verdict.message}"
    return _taken_back(state, _TOO_LATE.get(verdict.reason, verdict.reason), told)


_TOO_LATE = {"TooFewRequests": "NoTraffic", "Preparing": "TooSlow", "Scaling": "TooSlow"}
"""Reasons for waiting that have a name of their own once it has been for too long."""


def _for_a_person(wish: RolloutWish, state: RolloutState) -> bool:
    """Tell whether it stands at the greatest share that it may take by itself: nobody is late there."""
    return not wish.automatic and state.canary_percent == wish.share(len(wish.ladder) - 1)


def _lacking(wish: RolloutWish, trial: VersionState) -> Verdict:
    return Verdict("wait", "Scaling", f"{trial.ready} pods ready, too few for the next share{_because(trial)}")


def _taken_back(state: RolloutState, reason: str, why: str) -> RolloutState:
    had = f" while it answered {state.canary_percent} % of the requests" if state.canary_percent else ""
    told = f"Version {state.version} was taken back{had}: {_sentence(why)}"
    message = f"{told} Version {state.stable} answers all requests."
    return replace(state, phase="RolledBack", canary_percent=0, reason=reason, message=message)


def _told(state: RolloutState, reason: str, what: str) -> RolloutState:
    message = f"Version {state.version} answers {state.canary_percent} % of the requests: {what}."
    return replace(state, reason=reason, message=message)


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."


def _because(trial: VersionState) -> str:
    return f" ({trial.message.rstrip('.')})" if trial.message else ""


def _stable_replicas(wish: RolloutWish, versions: VersionStates) -> int:
    return versions[wish.stable].wanted if wish.stable in versions else 1


def _trial(wish: RolloutWish, versions: VersionStates) -> VersionState:
    return versions.get(wish.version, VersionState(wish.version))


def _elapsed_s(state: RolloutState, now: datetime) -> float:
    return (now - state.step_started_at).total_seconds()


def _observed(before: RolloutState, after: RolloutState, measured: Measured | None, now: datetime) -> RolloutState:
    """Return *after* with what was measured, if it is time to tell it again or something else changed anyway."""
    if measured is None or before.over:
        return after
    told = before.observed
    fresh = told is not None and 0 <= (now - told.time).total_seconds() < OBSERVED_S
    if fresh and (before.phase, before.step) == (after.phase, after.step):
        # The message counts requests, too: it would be another one each time.
        return replace(after, message=before.message) if before.reason == after.reason else after
    found = Observation(measured.requests, measured.error_rate, measured.p99_ms, measured.agreement, now)
    return replace(after, observed=found)
