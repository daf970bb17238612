"""When processes start, restart and stop: the decisions, as a table."""

import pytest

from healthguard.local import lifecycle
from healthguard.local.lifecycle import BACKOFF_MAX_S, START_TRIES_MAX, STEADY_S, Act, Phase, Plan, State, Step

NOW = 1000.0
PLANS = [
    Plan("database", start_s_max=10, stop_s_max=5),
    Plan("migrate", needs=frozenset({"database"}), task=True),
    Plan("service", needs=frozenset({"database", "migrate"})),
    Plan("door", uses=frozenset({"service"})),
]
READY = State(Phase.READY, since=NOW, was_ready=True)
DONE = State(Phase.DONE, since=NOW, was_ready=True)


def _states(**changed: State) -> dict[str, State]:
    return {plan.name: changed.get(plan.name, State(Phase.STARTING, since=NOW)) for plan in PLANS}


@pytest.mark.parametrize(
    ("states", "at", "stopping", "expected"),
    [
        pytest.param(
            {plan.name: State() for plan in PLANS},
            NOW,
            False,
            [Step(Act.START, "database"), Step(Act.START, "door")],
            id="at first what needs nothing starts, also what only uses others",
        ),
        pytest.param(
            _states(database=READY, migrate=State(), service=State()),
            NOW,
            False,
            [Step(Act.START, "migrate")],
            id="what needs a ready service starts, what needs more waits",
        ),
        pytest.param(
            _states(database=READY, migrate=DONE, service=State()),
            NOW,
            False,
            [Step(Act.START, "service")],
            id="a task that is done meets a need",
        ),
        pytest.param(
            _states(
                database=State(Phase.BACKOFF, since=NOW, deaths=1, was_ready=True),
                migrate=DONE,
                service=State(Phase.BACKOFF, since=NOW, deaths=1, was_ready=True),
            ),
            NOW + lifecycle.backoff_s(1),
            False,
            [Step(Act.START, "database"), Step(Act.START, "service")],
            id="after a crash nothing waits for what was ready once",
        ),
        pytest.param(
            _states(database=State(Phase.BACKOFF, since=NOW, deaths=3)),
            NOW + lifecycle.backoff_s(3) - 0.001,
            False,
            [],
            id="the delay before a restart is kept",
        ),
        pytest.param(
            _states(), NOW + 10.001, False, [Step(Act.KILL, "database")], id="what is not ready in time is killed"
        ),
        pytest.param(
            _states(database=READY, migrate=DONE, service=READY, door=READY),
            NOW,
            True,
            [Step(Act.STOP, "door")],
            id="what nobody uses stops first",
        ),
        pytest.param(
            _states(database=READY, migrate=DONE, service=READY, door=State(Phase.STOPPED)),
            NOW,
            True,
            [Step(Act.STOP, "service")],
            id="then what it used",
        ),
        pytest.param(
            _states(
                database=State(Phase.STOPPING, since=NOW),
                migrate=DONE,
                service=State(Phase.STOPPED),
                door=State(Phase.STOPPED),
            ),
            NOW + 5.001,
            True,
            [Step(Act.KILL, "database")],
            id="what does not stop in time is killed",
        ),
    ],
)
def test_steps_follow_from_the_states(
    states: dict[str, State], at: float, stopping: bool, expected: list[Step]
) -> None:
    """Each situation has the steps that its name says, and no others."""
    assert lifecycle.steps(PLANS, states, at, stopping=stopping) == expected


def test_next_at_names_the_moment_when_steps_change() -> None:
    """Just before that moment there is nothing to do, just after it there is."""
    states = _states(database=State(Phase.BACKOFF, since=NOW, deaths=4), migrate=State(), service=State(), door=READY)
    at = lifecycle.next_at(PLANS, states, stopping=False)
    assert lifecycle.steps(PLANS, states, at - 0.001, stopping=False) == []
    assert lifecycle.steps(PLANS, states, at + 0.001, stopping=False) == [Step(Act.START, "database")]


def test_backoff_doubles_up_to_a_bound() -> None:
    """A service that dies again and again is tried less and less often, but never given up for long."""
    delays = [lifecycle.backoff_s(deaths) for deaths in range(1, 12)]
    assert delays[1] == 2 * delays[0]
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_MAX_S


@pytest.mark.parametrize(
    ("since", "deaths"), [(NOW - STEADY_S, 1), (NOW - STEADY_S + 0.1, 6)], ids=["steady for long", "not yet steady"]
)
def test_ended_forgets_deaths_of_a_steady_service(since: float, deaths: int) -> None:
    """The delay begins anew only after a service was in order for long enough; what people are told goes on."""
    state = State(Phase.READY, since=since, deaths=5, restarts=5, was_ready=True)
    after = lifecycle.ended(PLANS[0], state, NOW, status=-9, stopping=False)
    assert (after.phase, after.deaths, after.restarts) == (Phase.BACKOFF, deaths, 6)


def test_ended_gives_up_what_was_never_ready() -> None:
    """A service that dies at each start fails; one that was ready once never does."""
    never = State(Phase.STARTING, since=NOW, deaths=START_TRIES_MAX - 1)
    once = State(Phase.STARTING, since=NOW, deaths=START_TRIES_MAX + 50, was_ready=True)
    assert lifecycle.ended(PLANS[0], never, NOW, status=1, stopping=False).phase is Phase.FAILED
    assert lifecycle.ended(PLANS[0], once, NOW, status=1, stopping=False).phase is Phase.BACKOFF


@pytest.mark.parametrize(("status", "phase"), [(0, Phase.DONE), (1, Phase.BACKOFF)])
def test_ended_tells_a_task_that_is_done_from_one_that_failed(status: int, phase: Phase) -> None:
    """Only exit status 0 makes a task's dependants start."""
    after = lifecycle.ended(PLANS[1], State(Phase.STARTING, since=NOW), NOW, status=status, stopping=False)
    assert (after.phase, after.was_ready) == (phase, status == 0)


def test_became_ready_ignores_an_answer_that_came_too_late() -> None:
    """A service that is being stopped, or that died meanwhile, is not brought back by an old answer."""
    stopping = State(Phase.STOPPING, since=NOW)
    assert lifecycle.became_ready(stopping, NOW) == stopping
