"""What the gates say of what was measured: refused beyond chance, passed within the limit, or more is waited for."""

import math
import random

import pytest

from serving.operator.gates import CHANCE, Gates, Measured, chance, judge

GATES = Gates(error_rate=0.01, p99_ms=500, agreement=0.98)


def durations(fast: int, slow: int = 0) -> dict[float, int]:
    """Return the durations of calls of 50 to 100 ms, and of slow ones of 1 to 2.5 s."""
    return {0.05: 0, 0.1: fast, 0.5: fast, 1.0: fast, 2.5: fast + slow, math.inf: fast + slow}


def measured(
    requests: int = 100, *, errors: int = 0, slow: int = 0, differed: int = 0, compared: int = 100
) -> Measured:
    """Return what was measured of a version."""
    return Measured(requests, errors, durations(requests - slow, slow), compared - differed, differed)


@pytest.mark.parametrize(
    ("found", "kind", "reason"),
    [
        pytest.param(measured(), "pass", "GatesPassed", id="all is well"),
        pytest.param(measured(100, errors=1), "pass", "GatesPassed", id="as many errors as may be"),
        pytest.param(None, "wait", "GatewaysUnseen", id="nobody could be asked"),
        pytest.param(Measured(), "wait", "TooFewRequests", id="nobody asked anything"),
        pytest.param(measured(49, compared=49), "wait", "TooFewRequests", id="one request is lacking"),
        pytest.param(measured(compared=49), "wait", "TooFewComparisons", id="one comparison is lacking"),
        pytest.param(measured(1, errors=1), "wait", "TooFewRequests", id="one error may be chance"),
        pytest.param(measured(2, errors=2), "fail", "ErrorRate", id="two errors of two are none"),
        pytest.param(measured(50, errors=1), "wait", "ErrorRate", id="above the limit, and too few to tell"),
        pytest.param(measured(50, errors=5), "fail", "ErrorRate", id="a tenth fails"),
        pytest.param(measured(5000, errors=100), "fail", "ErrorRate", id="twice the limit, of many"),
        pytest.param(measured(5000, errors=55), "wait", "ErrorRate", id="just above it, of many"),
        pytest.param(measured(100, slow=100), "fail", "Latency", id="every call is slow"),
        pytest.param(measured(1000, slow=10), "pass", "GatesPassed", id="one of a hundred is slow"),
        pytest.param(measured(1000, slow=40), "fail", "Latency", id="four of a hundred are slow"),
        pytest.param(measured(compared=100, differed=2), "pass", "GatesPassed", id="as many differ as may"),
        pytest.param(measured(compared=60, differed=12), "fail", "Agreement", id="a fifth differs"),
        pytest.param(measured(10, compared=10, differed=10), "fail", "Agreement", id="all of the first ten differ"),
    ],
)
def test_judge_by_table(found: Measured | None, kind: str, reason: str) -> None:
    """Each row is a moment of a rollout with 50 requests at least."""
    verdict = judge(GATES, found, 50)
    assert (verdict.kind, verdict.reason) == (kind, reason), verdict.message


def test_gate_that_is_left_out_is_not_asked() -> None:
    """Without limits all that counts is that requests came; no comparison is waited for."""
    assert judge(Gates(), measured(50, errors=50, slow=50, compared=0), 50).kind == "pass"


def test_nothing_passes_while_a_gateway_is_not_heard() -> None:
    """The one that cannot be asked may have seen the errors; those that were seen count all the same."""
    good, bad = (Measured(100, errors, durations(100), 100, complete=False) for errors in (0, 90))
    assert judge(GATES, good, 50).reason == "GatewaysUnseen"
    assert judge(GATES, bad, 50).kind == "fail"


def test_limit_of_nought_bears_no_error() -> None:
    """Where no error may be, the first one is enough."""
    assert judge(Gates(error_rate=0), measured(1, errors=1), 50).kind == "fail"
    assert judge(Gates(error_rate=1), measured(50, errors=50), 50).kind == "pass"


def test_chance_is_a_bound_of_the_true_one() -> None:
    """The bound never says less than the sum over all worse outcomes, so a version is never refused too soon."""
    for of, limit in ((2, 0.01), (50, 0.01), (50, 0.02), (400, 0.05)):
        for bad in range(math.floor(of * limit) + 1, of + 1):
            exact = math.fsum(math.comb(of, k) * limit**k * (1 - limit) ** (of - k) for k in range(bad, of + 1))
            assert chance(bad, of, limit) >= exact * (1 - 1e-9)


def test_version_that_keeps_its_limit_is_refused_by_no_step() -> None:
    """Of all outcomes of 500 calls at the limit, those that would be refused are rarer than CHANCE."""
    of, limit = 500, 0.01
    refused = [
        bad for bad in range(of + 1) if judge(Gates(error_rate=limit), measured(of, errors=bad), 50).kind == "fail"
    ]
    unlucky = math.fsum(math.comb(of, k) * limit**k * (1 - limit) ** (of - k) for k in refused)
    assert refused
    assert unlucky < CHANCE


def test_looking_often_refuses_hardly_more() -> None:
    """A version exactly at its limit, looked at with every tenth request: of 300 rollouts three are refused at most."""
    dice = random.Random(7)

    def refused() -> bool:
        errors = 0
        for count in range(10, 1000, 10):
            errors += sum(dice.random() < 0.01 for _ in range(10))
            if judge(Gates(error_rate=0.01), Measured(count, errors), 50).kind == "fail":
                return True
        return False

    assert sum(refused() for _ in range(300)) <= 3


@pytest.mark.parametrize(("limit_ms", "slower"), [(50, 100), (75, 50), (100, 0), (600, 0), (2000, 0), (60_000, 0)])
def test_slower_calls_are_counted_within_a_bucket(limit_ms: float, slower: int) -> None:
    """A limit between two bounds takes its share of the calls between them."""
    assert measured(100).slower_than(limit_ms) == slower


def test_calls_beyond_the_last_bound_are_slow() -> None:
    """What took longer than the last bound counts as slower than any limit, and p99 is told as that bound."""
    found = Measured(10, durations={1.0: 0, math.inf: 10})
    assert (found.slower_than(5000), found.p99_ms) == (10, 1000)


def test_p99_lies_where_99_of_100_calls_are_done() -> None:
    """As `histogram_quantile` has it."""
    assert measured(100).p99_ms == pytest.approx(99.5)
    assert measured(1000, slow=20).p99_ms == pytest.approx(1750)
    assert Measured().p99_ms is None
