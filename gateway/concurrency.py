"""How many predictions of a model are made at once: more while answers are quick, fewer as soon as they are not."""

from dataclasses import dataclass

FLOOR = 4
START = 64
DECREASE = 0.8
"""What is left of the limit when answers are late."""


@dataclass
class ConcurrencyLimit:
    """
    An adaptive limit: additive increase, multiplicative decrease, by latency.

    It is a bound and not a queue: who comes above it is told so at once. A gradient towards the least latency (as
    Netflix's limiter has it) would keep no queue at all, but takes every batch that waits for a core for a sign of
    overload, and so refuses what could have been answered in time; here the target is the latency still worth having.
    Source: V. Jacobson, "Congestion Avoidance and Control", 1988, for the rule and its stability.
    """

    ceiling: int
    target_s: float
    limit: float = 0.0
    in_flight: int = 0
    _decreased_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Begin where a small installation already has room."""
        self.limit = float(min(START, self.ceiling))

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.in_flight >= int(self.limit)

    def take(self) -> bool:
        """Tell whether one more may begin, and account for it."""
        if self.full:
            return False
        self.in_flight += 1
        return True

    def give_back(self, latency_s: float, now: float, *, late: bool = False) -> None:
        """
        Account for one that has ended.

        Args:
            late: it ran into its deadline, or a server said that it has too much.
        """
        busy = 2 * self.in_flight >= int(self.limit)
        self.in_flight -= 1
        if late or latency_s > self.target_s:
            self._decrease(latency_s, now)
        elif busy:
            # One more for each limit's worth of answers. An idle gateway learns nothing about how much it could bear.
            self.limit = min(self.limit + 1.0 / self.limit, float(self.ceiling))

    def _decrease(self, latency_s: float, now: float) -> None:
        # Once for all answers that began before the last decrease: they tell of the same moment.
        if now - latency_s < self._decreased_at:
            return
        self._decreased_at = now
        self.limit = max(float(min(FLOOR, self.ceiling)), self.limit * DECREASE)

    def retry_after_ms(self) -> int:
        """Return how soon it may be worth coming back: when what is in flight has had its time."""
        return max(100, int(1000 * self.target_s))
