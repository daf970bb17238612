"""Which replica takes the next call."""

from collections import Counter
from random import Random
from unittest.mock import Mock, sentinel

import pytest

from gateway.balancer import SLOW_START_S, WEIGHT_MIN, Replica, RetryBudget, choose, choose_again, weight_of
from gateway.discovery import Endpoint

NOW = 1000.0


def replicas(*in_flight: int) -> list[Replica]:
    """Return replicas with so many calls in flight."""
    return [
        Replica(Endpoint(f"{number}:1"), sentinel.client, in_flight=count) for number, count in enumerate(in_flight)
    ]


def chosen(among: list[Replica], times: int = 3000) -> Counter[str]:
    """Return how often each is chosen."""
    random = Random(1)
    return Counter(choose(among, random, NOW).endpoint.address.partition(":")[0] for _ in range(times))


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
    assert choose_again(among, among[0], Random(1), NOW) is among[1]


def test_only_replica_is_tried_again_where_the_connection_broke() -> None:
    """A server that says so itself has a full queue: a second call at once would make it fuller."""
    (only,) = replicas(0)
    only.client = Mock(connected=False)
    assert choose_again([only], only, Random(1), NOW) is only
    only.client = Mock(connected=True)
    assert choose_again([only], only, Random(1), NOW) is None


def test_retries_are_a_tenth_of_the_calls() -> None:
    """Some at once after quiet times; then, where every call fails, one in ten."""
    budget = RetryBudget()
    tried = 0
    for _ in range(1000):
        budget.earn()
        tried += budget.spend()
    assert 130 <= tried <= 132


def test_new_replica_begins_small_and_gets_its_share() -> None:
    """At first a tenth of the weight, which grows until it is whole."""
    among = replicas(0, 0, 0)
    among[2].ready_at = NOW
    weights = [weight_of(among[2], NOW + passed) for passed in (0.0, SLOW_START_S / 2, SLOW_START_S, 99.0)]
    assert weights == [WEIGHT_MIN, 0.5, 1.0, 1.0]
    counted = chosen(among)
    assert 0 < counted["2"] < 0.15 * 3000


def test_slow_start_holds_where_calls_pile_up() -> None:
    """A small replica's one call weighs as much as ten of a whole one: it is not taken because it is idle."""
    among = replicas(5, 5, 1)
    among[2].ready_at = NOW
    assert chosen(among)["2"] == 0


def test_replica_that_leaves_gets_nothing_new_while_another_stays() -> None:
    """However idle it is; and rather than nobody, it is asked."""
    among = replicas(9, 0)
    among[1].endpoint = Endpoint("1:1", leaving=True)
    assert chosen(among).keys() == {"0"}
    among[0].endpoint = Endpoint("0:1", leaving=True)
    assert chosen(among).keys() == {"1"}


def test_ejected_replica_is_left_out_until_its_time_is_over() -> None:
    """Where all are ejected, all are asked: there is nobody better."""
    among = replicas(9, 0)
    among[1].conduct.eject(NOW)
    assert chosen(among).keys() == {"0"}
    among[0].conduct.eject(NOW)
    assert chosen(among).keys() == {"1"}
