"""What several gateways counted, added up although they restart, come and go."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from gateway.metrics import PredictionMetrics
from serving.operator.tally import ANSWERED, CALLS, COMPARISONS, FAILURES, Series, Tally, measured, read


def metrics() -> tuple[PredictionMetrics, CollectorRegistry]:
    """Return a gateway's own metrics."""
    registry = CollectorRegistry()
    return PredictionMetrics(registry), registry


def text(registry: CollectorRegistry) -> str:
    """Return what a gateway answers at /metrics."""
    return generate_latest(registry).decode()


def test_operator_reads_what_gateways_write() -> None:
    """The names and labels are those of the gateway's code: renaming one there fails here."""
    gateway, registry = metrics()
    tally = Tally()
    tally.take("one", read(text(registry)).counts)
    for seconds in (0.004, 0.004, 0.4):
        gateway.called("cancer", 4, seconds)
    gateway.call_failed("cancer", 4, "UNAVAILABLE")
    gateway.call_failed("cancer", 4)
    for result in ("agree", "agree", "differ", "failed", "dropped", "incomparable"):
        gateway.comparisons.labels("cancer", 4, result).inc()
    gateway.made("cancer", 3, "Positive", "doctor")
    gateway.made("cancer", 3, "Negative", "doctor")
    gateway.made("cancer", 4, "Negative", "doctor")
    gateway.failures.labels("cancer", "", "overloaded").inc()
    gateway.in_flight.labels("cancer").inc()
    heard = read(text(registry))
    tally.take("one", heard.counts)
    found = measured(tally.of("cancer", 4), {}, complete=True)
    assert (found.requests, found.errors, found.agreed, found.differed) == (3, 2, 2, 1)
    assert (found.slower_than(100), found.durations[0.005]) == (1, 2)
    assert tally.answered("cancer") == {3: 2, 4: 1}
    assert heard.in_flight == {"cancer": 1}


def counts(calls: float, failures: float = 0) -> dict[Series, float]:
    """Return counters of version 4."""
    return {Series("cancer", 4, CALLS, "+Inf"): calls, Series("cancer", 4, FAILURES, "INTERNAL"): failures}


def requests(tally: Tally) -> int:
    """Return the calls that were counted."""
    return measured(tally.of("cancer", 4), {}, complete=True).requests


def test_tally_begins_where_a_gateway_is_first_heard() -> None:
    """What it counted before, nobody knows when, is no news of this rollout."""
    tally = Tally()
    tally.take("one", counts(1000))
    assert requests(tally) == 0
    tally.take("one", counts(1010))
    assert requests(tally) == 10


def test_tally_bears_a_restart() -> None:
    """A counter that is lower than before began again from 0."""
    tally = Tally()
    for each in (100, 150, 7, 9):
        tally.take("one", counts(each))
    assert requests(tally) == 50 + 7 + 2


def test_tally_keeps_what_a_gateway_counted_that_is_gone() -> None:
    """Its requests were made; another one that gets its address begins anew."""
    tally = Tally()
    tally.take("one", counts(0))
    tally.take("one", counts(20))
    tally.keep(frozenset({"two"}))
    tally.take("two", counts(500))
    assert requests(tally) == 20
    tally.keep(frozenset({"one", "two"}))
    tally.take("one", counts(900))
    assert requests(tally) == 20


def test_counters_that_appear_later_count_from_nought() -> None:
    """A label's series is there only once something was counted."""
    tally = Tally()
    tally.take("one", {})
    tally.take("one", counts(3, 3))
    assert measured(tally.of("cancer", 4), {}, complete=True).errors == 3


def test_measured_is_what_came_since() -> None:
    """The counters' standing at the step's beginning is taken off."""
    found = measured(counts(30, 2), counts(20, 2), complete=False)
    assert (found.requests, found.errors, found.complete) == (10, 0, False)
    assert found.durations == {math.inf: 10}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.booleans()), max_size=60))
def test_tally_never_counts_more_than_there_was(events: list[tuple[str, int, bool]]) -> None:
    """Whatever gateways do, restart and vanish among it, no request is counted twice and none below 0."""
    tally, standing, true = Tally(), dict.fromkeys("abc", 0), 0
    for gateway, more, restarted in events:
        standing[gateway] = more if restarted else standing[gateway] + more
        true += more
        tally.take(gateway, counts(standing[gateway]))
    assert 0 <= requests(tally) <= true


@pytest.mark.parametrize(
    "line",
    [
        f'{CALLS}{{model="cancer",version="four",le="1.0"}} 1',
        f'{COMPARISONS}{{model="cancer",version="",result="agree"}} 1',
        f'{ANSWERED}{{condition="cancer",version="4",outcome="Positive"}} NaN',
        'healthguard_of_tomorrow{model="cancer",version="4"} 1',
    ],
)
def test_what_says_nothing_of_a_version_is_left_out(line: str) -> None:
    """A newer gateway may say more, and an odd one nonsense."""
    assert read(line).counts == {}


@given(st.text(max_size=200))
def test_garbage_is_refused_in_one_way(garbage: str) -> None:
    """Whatever is answered where metrics should be is a ValueError, or nothing."""
    for beginning in ("", f"{CALLS}{{", "healthguard_predictions_in_flight{"):
        try:
            read(beginning + garbage)
        except ValueError:
            continue
