"""Which replica takes the next call."""

from collections import Counter
from random import Random
from unittest.mock import Mock, sentinel

import pytest

from gateway.balancer import Replica, RetryBudget, choose, choose_again


def replicas(*in_flight: int) -> list[Replica]:
    """Return replicas with so many calls in flight."""
    return [Replica(str(number), sentinel.client, in_flight=count) for number, count in enumerate(in_flight)]


def chosen(among: list[Replica], times: int = 3000) -> Counter[str]:
    """Return how often each is chosen."""
    random = Random(1)
    return Counter(choose(among, random).target for _ in range(times))


def test_choose_takes_the_only_one() -> None:
    """However busy it is."""
    assert chosen(replicas(9), 3) == {"0": 3}


def test_choose_takes_the_less_busy_of_two() -> None:
    """Of two there is no luck."""
    assert chosen(replicas(2, 1)).keys() == {"1"}


def test_choose_never_takes_the_busiest_and_spreads_the_rest() -> None:
    """The busiest of four loses every pair; the three equal ones share."""
    counted = chosen(replicas(0, 0, 5, 0))
    assert counted["2"] == 0
    assert min(counted["0"], counted["1"], counted["3"]) > 700


@pytest.mark.parametrize("connected", [True, False])
def test_second_try_goes_elsewhere_where_there_is_an_elsewhere(connected: bool) -> None:
    """Whatever became of the connection to the first."""
    among = replicas(0, 0)
    among[0].client = Mock(connected=connected)
    assert choose_again(among, among[0], Random(1)) is among[1]


def test_only_replica_is_tried_again_where_the_connection_broke() -> None:
    """A server that says so itself has a full queue: a second call at once would make it fuller."""
    (only,) = replicas(0)
    only.client = Mock(connected=False)
    assert choose_again([only], only, Random(1)) is only
    only.client = Mock(connected=True)
    assert choose_again([only], only, Random(1)) is None


def test_retries_are_a_tenth_of_the_calls() -> None:
    """Ten at once after quiet times; then, where every call fails, one in ten."""
    budget = RetryBudget()
    tried = 0
    for _ in range(1000):
        budget.earn()
        tried += budget.spend()
    assert 105 <= tried <= 110
