"""Which replica takes the next call."""

from collections import Counter
from random import Random
from unittest.mock import sentinel

import pytest

from gateway.balancer import Replica, choose, without


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


@pytest.mark.parametrize("count", [1, 3])
def test_without_leaves_the_others_or_the_same_one(count: int) -> None:
    """A second try goes elsewhere where there is an elsewhere."""
    among = replicas(*[0] * count)
    left = without(among, among[0])
    assert list(left) == (among if count == 1 else among[1:])
