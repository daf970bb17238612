"""
Tell whether the watch still tells: compare what it said of each object with what the API server lists.

A watch that died silently looks like one over a quiet cluster. Only a change that it missed shows the difference, so
that is what is counted: an object that was listed twice in a state that the watch has not told, and nothing of it told
in between. No heartbeat object is written for this, and no right is needed for one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class WatchAge:
    """What the watch told, by object, and since when it owes something; `clock` is in seconds, monotonic."""

    clock: Callable[[], float]
    _told: dict[str, str] = field(default_factory=dict)
    _owes: dict[str, tuple[str | None, float]] = field(default_factory=dict)

    def tell(self, uid: str, resource_version: str) -> None:
        """Note what the watch told."""
        self._told[uid] = resource_version

    def compare(self, listed: Mapping[str, str]) -> None:
        """Note what the API server lists: resource versions by uid."""
        now = self.clock()
        for gone in self._told.keys() - listed.keys():
            del self._told[gone]
        self._owes = {uid: self._debt(uid, now) for uid, version in listed.items() if self._told.get(uid) != version}

    def _debt(self, uid: str, now: float) -> tuple[str | None, float]:
        """Return the debt as it was if nothing was told since, else a new one: the watch moves, and may be behind."""
        told = self._told.get(uid)
        before = self._owes.get(uid)
        return before if before is not None and before[0] == told else (told, now)

    @property
    def age_s(self) -> float:
        """How long the watch has owed a change already, seconds; 0 where it owes none."""
        return max((self.clock() - since for _, since in self._owes.values()), default=0.0)
