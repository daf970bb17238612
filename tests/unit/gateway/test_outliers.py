"""Which replica is left out for a while."""

import pytest

from gateway.outliers import ANSWERS_MIN, EJECTION_MAX_S, EJECTION_S, FAILURES_MAX, FORGIVEN_S, Conduct, is_outlier

NOW = 1000.0


def conduct(latency_s: float = 0.05, *, answers: int = 50, failures: int = 0) -> Conduct:
    """Return the conduct of a replica that has answered often."""
    return Conduct(failures=failures, answers=answers, latency_s=latency_s)


def test_failures_in_a_row_leave_a_replica_out() -> None:
    """Fewer do not, and an answer between them starts the count anew."""
    bad, peers = conduct(), [conduct(), conduct()]
    for _ in range(FAILURES_MAX - 1):
        bad.failed()
    assert not is_outlier(bad, peers, NOW)
    bad.failed()
    assert is_outlier(bad, peers, NOW)
    bad.answered(0.05)
    assert not is_outlier(bad, peers, NOW)


@pytest.mark.parametrize(
    ("latency_s", "slow"),
    [(0.05, False), (0.25, False), (0.31, True), (2.0, True)],
    ids=["equal", "near", "far", "2 s"],
)
def test_replica_that_is_much_slower_than_its_peers_is_left_out(latency_s: float, slow: bool) -> None:
    """Several times as slow, and by more than anybody would call noise."""
    assert is_outlier(conduct(latency_s), [conduct(), conduct(0.06)], NOW) is slow


def test_few_answers_say_nothing_about_latency() -> None:
    """Neither the own ones nor the peers'."""
    assert not is_outlier(conduct(2.0, answers=ANSWERS_MIN - 1), [conduct(), conduct()], NOW)
    assert not is_outlier(conduct(2.0), [conduct(answers=ANSWERS_MIN - 1)] * 2, NOW)


@pytest.mark.parametrize(("replicas", "out_max"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_are_left_out(replicas: int, out_max: int) -> None:
    """Where most do badly, the fault is not theirs; the only one is never left out."""
    all_bad = [conduct(failures=FAILURES_MAX) for _ in range(replicas)]
    out = 0
    for one in all_bad:
        peers = [other for other in all_bad if other is not one]
        if is_outlier(one, peers, NOW):
            one.eject(NOW)
            out += 1
    assert out == out_max


def test_ejections_grow_and_are_forgiven() -> None:
    """Twice as long each time up to a bound; after a good while it counts as the first again."""
    bad, now = conduct(), NOW
    durations = []
    for _ in range(6):
        durations.append(bad.eject(now))
        now = bad.ejected_until + 1
    assert durations == [EJECTION_S * factor for factor in (1, 2, 4, 8)] + [EJECTION_MAX_S] * 2
    assert bad.eject(bad.ejected_until + FORGIVEN_S + 1) == EJECTION_S
