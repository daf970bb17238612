"""Which replica behaves so much worse than its peers that it is left out for a while: pure decisions over counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

FAILURES_MAX = 3
"""Failures in a row after which a replica is left out."""
ANSWERS_MIN = 10
"""Answers before a replica's latency says anything."""
SLOWER_FACTOR, SLOWER_S = 3.0, 0.25
"""A replica is slow where it takes so many times as long as its peers' median, and so much longer besides."""
EJECTION_S, EJECTION_MAX_S = 5.0, 60.0
"""How long the first time; doubled each time after that."""
FORGIVEN_S = 120.0
"""A replica that was left out no more for so long starts with a clean record."""
SMOOTHING = 0.2
"""Share of the newest answer in the mean latency."""


@dataclass
class Conduct:
    """What one gateway has seen of one replica."""

    failures: int = 0
    """In a row."""
    answers: int = 0
    latency_s: float = 0.0
    """Moving mean."""
    ejections: int = 0
    ejected_until: float = float("-inf")

    def answered(self, latency_s: float) -> None:
        """Account for an answer."""
        self.failures = 0
        self.answers += 1
        share = max(SMOOTHING, 1.0 / self.answers)
        self.latency_s += share * (latency_s - self.latency_s)

    def failed(self) -> None:
        """Account for a call that got no answer for a reason that lies with the server or the way to it."""
        self.failures += 1

    def eject(self, now: float) -> float:
        """Leave it out from *now* on; return for how long, seconds. What comes after is judged on its own."""
        if now - self.ejected_until > FORGIVEN_S:
            self.ejections = 0
        duration_s = min(EJECTION_S * 2.0**self.ejections, EJECTION_MAX_S)
        self.ejections += 1
        self.ejected_until = now + duration_s
        self.failures, self.answers, self.latency_s = 0, 0, 0.0
        return duration_s


def is_outlier(own: Conduct, peers: Sequence[Conduct], now: float) -> bool:
    """
    Tell whether a replica is to be left out.

    At most half of all are left out at a time: where most do badly, the fault is not one replica's, and the rest could
    not bear the load.

    Args:
        peers: the others of the same version.
    """
    out = sum(peer.ejected_until > now for peer in peers)
    if out + 1 > (len(peers) + 1) // 2:
        return False
    return own.failures >= FAILURES_MAX or _is_slow(own, [peer for peer in peers if peer.ejected_until <= now])


def _is_slow(own: Conduct, peers: Sequence[Conduct]) -> bool:
    known = [peer.latency_s for peer in peers if peer.answers >= ANSWERS_MIN]
    if own.answers < ANSWERS_MIN or not known:
        return False
    usual = median(known)
    return own.latency_s > SLOWER_FACTOR * usual and own.latency_s > usual + SLOWER_S
