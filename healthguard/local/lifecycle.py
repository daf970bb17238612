"""
When a process is started, restarted and stopped: decisions only, from a snapshot and the time to a list of steps.

A service waits until all that it needs has been ready once. What dies is started again after a delay that doubles;
what dies again and again before it was ever ready makes the whole start fail. All stop in the reverse order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0
"""After this long in order, earlier deaths are forgotten."""
START_TRIES_MAX = 3
"""Deaths before the first readiness after which the start is given up: the cause will not pass by itself."""


class Phase(StrEnum):
    """Where a service stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    BACKOFF = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = frozenset({Phase.STOPPED, Phase.FAILED, Phase.DONE})
UP = frozenset({Phase.READY, Phase.DONE})
RUNNING = frozenset({Phase.STARTING, Phase.READY})


@dataclass(frozen=True, slots=True)
class Plan:
    """What must be known of a service to decide for it."""

    name: str
    needs: frozenset[str] = frozenset()
    """Services that must have been ready before this one starts, and that stop after it."""
    uses: frozenset[str] = frozenset()
    """Services that it calls and may start without; they stop after it too."""
    task: bool = False
    """Whether it runs to its end once, like a migration, and is then ready."""
    start_s_max: float = 60.0
    stop_s_max: float = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """How a service stands, since when (monotonic seconds), and how it went before."""

    phase: Phase = Phase.WAITING
    since: float = 0.0
    deaths: int = 0
    """Deaths since it was last steady."""
    restarts: int = 0
    """Deaths in all: what a person is told."""
    was_ready: bool = False


class Act(StrEnum):
    """What to do to a service."""

    START = "start"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do now."""

    act: Act
    name: str


def backoff_s(deaths: int) -> float:
    """Return how long to wait before a service that died *deaths* times in a row is started again; seconds."""
    return min(BACKOFF_FIRST_S * 2.0 ** (deaths - 1), BACKOFF_MAX_S)


def steps(plans: Sequence[Plan], states: Mapping[str, State], now: float, *, stopping: bool) -> list[Step]:
    """Return what is to be done at *now*."""
    decide = _step_down if stopping else _step_up
    found = (decide(plan, plans, states, now) for plan in plans)
    return [step for step in found if step is not None]


def _step_up(plan: Plan, _plans: Sequence[Plan], states: Mapping[str, State], now: float) -> Step | None:
    state = states[plan.name]
    needs_met = all(states[need].was_ready for need in plan.needs)
    if state.phase is Phase.WAITING and needs_met:
        return Step(Act.START, plan.name)
    if state.phase is Phase.BACKOFF and now >= state.since + backoff_s(state.deaths):
        return Step(Act.START, plan.name)
    if state.phase is Phase.STARTING and now > state.since + plan.start_s_max:
        return Step(Act.KILL, plan.name)
    return None


def _step_down(plan: Plan, plans: Sequence[Plan], states: Mapping[str, State], now: float) -> Step | None:
    state = states[plan.name]
    left = [
        other.name for other in plans if plan.name in other.needs | other.uses and states[other.name].phase not in ENDED
    ]
    if state.phase in RUNNING and not left:
        return Step(Act.STOP, plan.name)
    if state.phase is Phase.STOPPING and now > state.since + plan.stop_s_max:
        return Step(Act.KILL, plan.name)
    return None


def next_at(plans: Sequence[Plan], states: Mapping[str, State], *, stopping: bool) -> float:
    """Return the earliest time at which `steps` may answer differently though nothing happened; monotonic seconds."""
    return min((at for plan in plans for at in _times(plan, states[plan.name], stopping)), default=float("inf"))


def _times(plan: Plan, state: State, stopping: bool) -> Iterable[float]:
    match state.phase:
        case Phase.BACKOFF if not stopping:
            yield state.since + backoff_s(state.deaths)
        case Phase.STARTING if not stopping:
            yield state.since + plan.start_s_max
        case Phase.STOPPING:
            yield state.since + plan.stop_s_max


def started(state: State, now: float) -> State:
    """Return the state after a start."""
    return replace(state, phase=Phase.STARTING, since=now)


def became_ready(state: State, now: float) -> State:
    """Return the state after the first good answer; an answer that came too late changes nothing."""
    if state.phase is not Phase.STARTING:
        return state
    return replace(state, phase=Phase.READY, since=now, was_ready=True)


def asked_to_stop(state: State, now: float) -> State:
    """Return the state after the service was asked to stop."""
    return replace(state, phase=Phase.STOPPING, since=now)


def killed(state: State, now: float) -> State:
    """Return the state after SIGKILL was sent: the clock starts anew, so it is not sent again at once."""
    return replace(state, since=now)


def ended(plan: Plan, state: State, now: float, *, status: int, stopping: bool) -> State:
    """
    Return the state after the process ended.

    Args:
        status: its exit status, negative for a signal.
        stopping: whether everything is being stopped.
    """
    if plan.task and status == 0:
        return replace(state, phase=Phase.DONE, since=now, was_ready=True)
    if stopping or state.phase is Phase.STOPPING:
        return replace(state, phase=Phase.STOPPED, since=now)
    steady = state.phase is Phase.READY and now - state.since >= STEADY_S
    deaths = 1 if steady else state.deaths + 1
    given_up = not state.was_ready and deaths >= START_TRIES_MAX
    phase = Phase.FAILED if given_up else Phase.BACKOFF
    return replace(state, phase=phase, since=now, deaths=deaths, restarts=state.restarts + 1)


def at_rest(state: State) -> State:
    """Return the state of a service that nothing runs for when everything is being stopped."""
    return replace(state, phase=Phase.STOPPED) if state.phase in {Phase.WAITING, Phase.BACKOFF} else state
