"""What the prober makes of a server that does not answer."""

import grpc
import pytest

from serving.operator.prober import TIMEOUTS_MAX, State, state_unanswered

LATE = grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("in_a_row", range(1, TIMEOUTS_MAX + 1))
def test_server_that_is_late_still_serves(in_a_row: int) -> None:
    """A few time-outs are what load looks like."""
    assert state_unanswered(State.SERVING, LATE, in_a_row) is State.SERVING


def test_server_that_stays_late_serves_no_more() -> None:
    """One that hangs looks the same at first, and is found out in the end."""
    assert state_unanswered(State.SERVING, LATE, TIMEOUTS_MAX + 1) is State.LOADING


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not LATE])
def test_server_that_fails_otherwise_serves_no_more(code: grpc.StatusCode) -> None:
    """It is gone, or knows the model no more: at once."""
    assert state_unanswered(State.SERVING, code, 1) is State.LOADING


@pytest.mark.parametrize("state", [State.LOADING, State.TESTING])
def test_server_that_is_late_before_it_served_is_loading(state: State) -> None:
    """Nothing is proved yet that could be held on to."""
    assert state_unanswered(state, LATE, 1) is State.LOADING
