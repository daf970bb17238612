"""What is to be looked at next: each ServedModel once, however often it was heard of, and later after a failure."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

_BACKOFF_S = 1.0
_BACKOFF_MAX_S = 300.0


@dataclass(frozen=True)
class Key:
    """One ServedModel."""

    namespace: str
    name: str


class WorkQueue:
    """
    A queue of keys with times, bounded by the number of objects, for one event loop.

    A key that is being worked on is not handed out a second time; if it is added meanwhile, it comes again after.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, *, after_s: float = 0.0) -> None:
        """Look at *key* in *after_s* seconds, or earlier if that was said before."""
        due = self._clock() + after_s
        self._due[key] = min(due, self._due.get(key, due))
        self._changed.set()

    async def take(self) -> Key:
        """Wait for the next key that is due; say `done` or `failed` for it afterwards."""
        while True:
            self._changed.clear()
            key, wait_s = self._next()
            if key is not None and wait_s <= 0:
                del self._due[key]
                self._busy.add(key)
                return key
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s if key is not None else None)
            except TimeoutError:
                continue

    def _next(self) -> tuple[Key | None, float]:
        free = [key for key in self._due if key not in self._busy]
        if not free:
            return None, 0.0
        key = min(free, key=self._due.__getitem__)
        return key, self._due[key] - self._clock()

    def done(self, key: Key) -> None:
        """Say that *key* was looked at."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Key) -> None:
        """Say that looking at *key* failed: it comes again, later each time."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self.add(key, after_s=min(_BACKOFF_S * 2 ** min(count - 1, 16), _BACKOFF_MAX_S))
        self._release(key)

    def _release(self, key: Key) -> None:
        self._busy.discard(key)
        self._changed.set()
