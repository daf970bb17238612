"""
Judge a version on trial by what the gateways measured of it. Pure.

Every gate is a share that has a limit: of failed calls, of calls slower than `p99Ms` (1 %), of comparisons in which the
stable version said something else. A share of few requests says little, so two questions are asked of it. Is it so bad
that chance cannot be why? Then the version is refused at once, after two failures of two requests as much as after
fifty of five thousand. Is it within the limit over enough requests? Then it passes. What is neither waits for more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

CHANCE = 0.001
"""How unlikely a share must be for a version that keeps the limit, before it is called bad."""
SLOW_SHARE = 0.01
"""What p99 means: one call of a hundred may take longer."""


@dataclass(frozen=True)
class Gates:
    """The limits; None: not looked at."""

    error_rate: float | None = None
    """Greatest share of calls that fail, 0..1."""
    p99_ms: float | None = None
    """What 99 of 100 calls must keep to, milliseconds."""
    agreement: float | None = None
    """Least share of comparisons with the same outcome, 0..1."""


@dataclass(frozen=True)
class Measured:
    """What all gateways together counted of one version since a moment."""

    requests: int = 0
    """Calls to the version's servers: callers' and shadow copies."""
    errors: int = 0
    """Of them, those that failed or gave no scores."""
    durations: Mapping[float, int] = field(default_factory=dict)
    """How many calls took at most so long, by upper bound in seconds; inf is among them."""
    agreed: int = 0
    """Comparisons with the stable version that came to the same outcome."""
    differed: int = 0
    """Comparisons that came to another."""
    complete: bool = True
    """Whether every gateway that takes requests was heard; without one of them nothing may be called good."""

    @property
    def compared(self) -> int:
        """Comparisons that were made."""
        return self.agreed + self.differed

    @property
    def error_rate(self) -> float | None:
        """Share of calls that failed, 0..1; None without calls."""
        return self.errors / self.requests if self.requests else None

    @property
    def agreement(self) -> float | None:
        """Share of comparisons that agreed, 0..1; None without comparisons."""
        return self.agreed / self.compared if self.compared else None

    @property
    def p99_ms(self) -> float | None:
        """Return how long 99 of 100 calls took at most, milliseconds; beyond the last bound: that bound."""
        total = self.durations.get(math.inf, 0)
        if not total:
            return None
        rank = (1 - SLOW_SHARE) * total
        below_s, below = 0.0, 0
        for bound_s in sorted(self.durations):
            count = self.durations[bound_s]
            if count >= rank:
                within = (rank - below) / (count - below)
                return 1000 * (below_s if bound_s == math.inf else below_s + within * (bound_s - below_s))
            below_s, below = bound_s, count
        return 1000 * below_s

    def slower_than(self, limit_ms: float) -> int:
        """Return how many calls took longer; within a bucket they are taken to lie evenly, as Prometheus does."""
        total, limit_s = self.durations.get(math.inf, 0), limit_ms / 1000
        below_s, below = 0.0, 0
        for bound_s in sorted(self.durations):
            count = self.durations[bound_s]
            if bound_s >= limit_s:
                # The last bucket has no end: what lies in it counts as slower.
                within = 0.0 if bound_s == math.inf else (limit_s - below_s) / (bound_s - below_s)
                return round(total - below - within * (count - below))
            below_s, below = bound_s, count
        return 0


@dataclass(frozen=True)
class Verdict:
    """What the gates say, with a reason in one CamelCase word and a sentence."""

    kind: Literal["pass", "wait", "fail"]
    reason: str
    message: str


@dataclass(frozen=True)
class _Share:
    """One gate: how many of how many were bad, how many may be, and how that is told."""

    reason: str
    bad: int
    of: int
    limit: float
    told: str

    @property
    def refuted(self) -> bool:
        """Whether chance cannot be why so many were bad."""
        return self.of > 0 and self.bad > self.limit * self.of and chance(self.bad, self.of, self.limit) < CHANCE


def judge(gates: Gates, measured: Measured | None, min_requests: int) -> Verdict:
    """
    Judge a version; None: no gateway could be asked, which is no news and never good news.

    Args:
        min_requests: how many requests, and comparisons where agreement is looked at, a pass needs.
    """
    if measured is None:
        return Verdict("wait", "GatewaysUnseen", "no gateway could be asked what it measured")
    shares = _shares(gates, measured)
    for share in shares:
        if share.refuted:
            return Verdict("fail", share.reason, share.told)
    return _too_little(gates, measured, min_requests) or _doubtful(shares) or _passed(measured)


def _too_little(gates: Gates, measured: Measured, min_requests: int) -> Verdict | None:
    if not measured.complete:
        return Verdict("wait", "GatewaysUnseen", "a gateway that takes requests could not be asked what it measured")
    if measured.requests < min_requests:
        return Verdict("wait", "TooFewRequests", f"{measured.requests} of {min_requests} requests measured")
    if gates.agreement is not None and measured.compared < min_requests:
        told = f"{measured.compared} of {min_requests} answers compared with the stable version's"
        return Verdict("wait", "TooFewComparisons", told)
    return None


def _doubtful(shares: list[_Share]) -> Verdict | None:
    for share in shares:
        if share.bad > share.limit * share.of:
            return Verdict("wait", share.reason, f"{share.told}; too few to tell that from chance")
    return None


def _passed(measured: Measured) -> Verdict:
    return Verdict("pass", "GatesPassed", f"{measured.requests} requests measured, all gates passed")


def _shares(gates: Gates, measured: Measured) -> list[_Share]:
    shares = []
    if gates.error_rate is not None:
        bad, of = measured.errors, measured.requests
        told = f"{bad} of {of} calls failed, {gates.error_rate:.2%} may"
        shares.append(_Share("ErrorRate", bad, of, gates.error_rate, told))
    if gates.p99_ms is not None:
        bad, of = measured.slower_than(gates.p99_ms), measured.durations.get(math.inf, 0)
        told = f"{bad} of {of} calls took longer than {gates.p99_ms:g} ms, {SLOW_SHARE:.0%} may"
        shares.append(_Share("Latency", bad, of, SLOW_SHARE, told))
    if gates.agreement is not None:
        bad, of = measured.differed, measured.compared
        told = f"{bad} of {of} answers differ from the stable version's, {1 - gates.agreement:.2%} may"
        shares.append(_Share("Agreement", bad, of, 1 - gates.agreement, told))
    return shares


def chance(bad: int, of: int, limit: float) -> float:
    """
    Return a bound of how likely at least *bad* of *of* are where the true share is *limit*; *bad* is above the limit.

    Source: H. Chernoff, "A measure of asymptotic efficiency for tests of a hypothesis based on the sum of
    observations", 1952: P ≤ exp(-n · KL(bad/n ‖ limit)). It errs on the side of waiting.
    """
    share = bad / of
    if limit <= 0:
        return 0.0
    if limit >= 1:
        return 1.0
    divergence = share * math.log(share / limit)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - limit))
    return math.exp(-of * divergence)
