"""
How many predictions of a model are in flight, averaged over the last seconds: what autoscalers ask for.

One look at a gauge that moves with every request would have pods come and go with chance. And where any gateway cannot
be read there is no value, never a smaller one: less in flight means fewer pods.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

WINDOW_S = 15.0
SAMPLES_MIN = 4
"""Of those that the window holds. The first look of an operator that has just started may fall between two requests."""
FORGET_S = 900.0
FOLLOWED_MAX = 4096

Key = tuple[str, str]
"""Namespace and model."""


@dataclass
class _Followed:
    asked: float
    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))


class InFlight:
    """The averages, by namespace and model; `clock` is in seconds, monotonic."""

    def __init__(self, look: Callable[[str, str], float | None], clock: Callable[[], float]) -> None:
        """Read with *look*: what is in flight for a namespace and a model now, None where that is not known."""
        self._look = look
        self._clock = clock
        self._followed: dict[Key, _Followed] = {}

    def sample(self) -> None:
        """Look at every model that somebody asks for; forget those that nobody asks for any more."""
        now = self._clock()
        for key in [key for key, one in self._followed.items() if now - one.asked > FORGET_S]:
            del self._followed[key]
        for (namespace, model), one in self._followed.items():
            found = self._look(namespace, model)
            if found is not None:
                one.samples.append((now, found))

    def average(self, namespace: str, model: str) -> float | None:
        """Return the mean over the window; None where nothing is known of it. What was asked for is followed."""
        now = self._clock()
        one = self._follow((namespace, model), now)
        if self._look(namespace, model) is None:
            # The past would make a loss look like quiet, or like load, for as long as the window is.
            return None
        recent = [value for time, value in one.samples if now - time <= WINDOW_S]
        return fmean(recent) if len(recent) >= SAMPLES_MIN else None

    def _follow(self, key: Key, now: float) -> _Followed:
        one = self._followed.get(key) or _Followed(now)
        one.asked = now
        if len(self._followed) < FOLLOWED_MAX or key in self._followed:
            self._followed[key] = one
        return one
