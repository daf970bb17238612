"""How many predictions of a model are made at once."""

import pytest

from gateway.concurrency import FLOOR, START, ConcurrencyLimit

TARGET_S = 0.5


def serve(
    limit: ConcurrencyLimit, seconds: float, *, capacity: float, offered: int = 1000, start: float = 0.0
) -> float:
    """
    Offer more than it takes to a server that answers *capacity* requests a second, in order; return the last latency.
    """
    waiting: list[float] = []
    now, latency = start, 0.0
    while now < start + seconds:
        while len(waiting) < offered and limit.take():
            waiting.append(now)
        now += 1 / capacity
        latency = now - waiting.pop(0)
        limit.give_back(latency, now)
    for began in waiting:
        limit.give_back(now - began, now)
    return latency


@pytest.mark.parametrize("capacity", [20.0, 60.0, 200.0])
def test_limit_keeps_latency_near_the_target(capacity: float) -> None:
    """Under a load without end, whatever the server can do: the bound is found, and the server is never idle."""
    limit = ConcurrencyLimit(1000, TARGET_S)
    latency = serve(limit, 60, capacity=capacity)
    assert 0.6 * TARGET_S < latency < 1.3 * TARGET_S


def test_limit_grows_where_answers_are_quick() -> None:
    """Up to its ceiling."""
    limit = ConcurrencyLimit(80, TARGET_S)
    serve(limit, 60, capacity=10_000)
    assert limit.limit == 80


def test_limit_does_not_grow_while_it_is_not_used() -> None:
    """A quiet night says nothing about how much the morning may bring."""
    limit = ConcurrencyLimit(1000, TARGET_S)
    serve(limit, 10, capacity=1000, offered=2)
    assert limit.limit == START


def test_answers_of_one_moment_decrease_it_once() -> None:
    """Sixty-four late answers that began together are one sign, not sixty-four."""
    limit = ConcurrencyLimit(1000, TARGET_S)
    for _ in range(START):
        assert limit.take()
    for late in range(START):
        limit.give_back(1.0, 100.0 + late / 1000)
    assert limit.limit == pytest.approx(0.8 * START)


def test_limit_never_falls_below_its_floor() -> None:
    """A few are always let through, or nobody would learn that all is well again."""
    limit = ConcurrencyLimit(1000, TARGET_S)
    for second in range(100):
        assert limit.take()
        limit.give_back(0.0, 10.0 * second, late=True)
    assert limit.limit == FLOOR
    assert ConcurrencyLimit(2, TARGET_S).limit == 2


def test_refused_are_not_counted() -> None:
    """What was not taken is not given back."""
    limit = ConcurrencyLimit(1, TARGET_S)
    assert limit.take()
    assert not limit.take()
    assert limit.full
    limit.give_back(0.1, 1.0)
    assert limit.take()


def test_limit_comes_back_after_a_slow_time() -> None:
    """A server that is quick again gets its load back within seconds."""
    limit = ConcurrencyLimit(1000, TARGET_S)
    serve(limit, 30, capacity=10)
    assert limit.limit < 10
    serve(limit, 5, capacity=200, start=100.0)
    assert limit.limit > 25
