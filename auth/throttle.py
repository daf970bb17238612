"""
Slow down whoever guesses passwords, without locking out whoever knows theirs.

Three counters, each with free attempts and then waits that double:

- of an account, for sources that never logged in to it: guesses from many places add up here;
- of an account and a source from which it logged in before: a stranger's guesses do not count here, so nobody can lock
  a person out of the place where they work;
- of a source, over all accounts, with room for a hospital behind one address. It leaks, since a thousand people mistype
  all day; and it never holds up who logs in where they did before.

An attempt counts before its password is checked, and is taken back when it was right: many guesses at once are thus
bounded as many in a row are. An unknown account counts like a known one.

The counters live in this process's memory, bounded and forgotten after an hour: several pods each have their own, and
a restart forgets both guesses and known sources. That keeps a failed log-in from being a write to the database.
"""

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auth.problems import TooManyAttempts

ENTRIES_MAX = 50_000
"""Of each kind; an entry takes about 300 bytes. When full, the least recently used goes."""

FORGET_S = 3600.0
"""After this long without a failure the counting starts again."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many attempts are free, how the waits grow, and how fast failures are forgiven."""

    free: int
    wait_max_s: float
    forgiven_per_s: float = 0.0

    def wait_s(self, failures: float) -> float:
        """Return how long after the last of *failures* the next attempt may be made: 0, then 1, 2, 4 … seconds."""
        beyond = math.floor(failures) - self.free
        if beyond < 0:
            return 0.0
        # 2 ** 20 s is beyond any maximum; the bound keeps the power small for whatever count.
        return min(float(2 ** min(beyond, 20)), self.wait_max_s)


ACCOUNT = Limit(free=10, wait_max_s=900)
"""Some twenty guesses in the first twenty minutes, and then four an hour."""
SOURCE = Limit(free=100, wait_max_s=30, forgiven_per_s=0.1)
"""A hundred at once, and then six a minute."""


@dataclass(slots=True)
class _Counter:
    failures: float
    last_at: float


class _Counters:
    """Failures by key, with a bound on the number of keys."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._by_key: OrderedDict[bytes, _Counter] = OrderedDict()

    def wait_s(self, key: bytes) -> float:
        """Return how long *key* must still wait; 0 when it may try."""
        counter = self._by_key.get(key)
        if counter is None:
            return 0.0
        return max(0.0, self._limit.wait_s(self._failures(counter)) - (self._clock() - counter.last_at))

    def add(self, key: bytes) -> None:
        """Count one attempt of *key*."""
        counter = self._by_key.setdefault(key, _Counter(0, self._clock()))
        counter.failures = self._failures(counter) + 1
        counter.last_at = self._clock()
        self._by_key.move_to_end(key)
        if len(self._by_key) > ENTRIES_MAX:
            self._by_key.popitem(last=False)

    def take_back(self, key: bytes) -> None:
        """Uncount one attempt of *key*: it was not a guess."""
        if counter := self._by_key.get(key):
            counter.failures = max(0.0, counter.failures - 1)

    def _failures(self, counter: _Counter) -> float:
        """Return how many failures still count."""
        age = self._clock() - counter.last_at
        return 0.0 if age > FORGET_S else max(0.0, counter.failures - age * self._limit.forgiven_per_s)

    def forget(self, key: bytes) -> None:
        """Start again for *key*."""
        self._by_key.pop(key, None)


class Attempt:
    """An attempt that was let through; it counts as a failure until `succeeded` or `not_made` is called."""

    def __init__(self, throttle: "Throttle", counted: Mapping[bytes, _Counters], account: bytes, place: bytes) -> None:
        self._throttle = throttle
        self._counted = counted
        self._account = account
        self._place = place

    def succeeded(self) -> None:
        """The password was right: the account's counting starts again, and its owner is known here from now on."""
        # Only what the right password proves. The source's other attempts stay: whoever guesses at other accounts
        # cannot wipe out that count by logging in to one of their own.
        self.not_made()
        self._throttle._welcome(self._account, self._place, self._counted)

    def not_made(self) -> None:
        """No password was checked after all (too busy, database away): uncount."""
        for key, counters in self._counted.items():
            counters.take_back(key)


class Throttle:
    """Lets attempts through, or says how long to wait."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_account = _Counters(ACCOUNT, clock)
        self._by_place = _Counters(ACCOUNT, clock)
        self._by_source = _Counters(SOURCE, clock)
        # An account and a source from which its owner logged in: a place.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        # Keyed hashes: the memory of this process holds no list of the e-mails that were tried.
        self._key = os.urandom(32)

    def admit(self, account: str, source: str) -> Attempt:
        """
        Count an attempt by *source* to log in to *account*.

        Raises:
            TooManyAttempts: the source, or the account for this source, must wait.
        """
        account_key, source_key = self._keyed(account), self._keyed(source)
        place = account_key + source_key
        counted = (
            {place: self._by_place}
            if place in self._known
            else {account_key: self._by_account, source_key: self._by_source}
        )
        _count(counted)
        return Attempt(self, counted, account_key, place)

    def admit_source(self, source: str) -> None:
        """
        Count something that *source* alone answers for, such as a registration.

        Raises:
            TooManyAttempts: the source must wait.
        """
        _count({self._keyed(source): self._by_source})

    def _welcome(self, account: bytes, place: bytes, counted: Mapping[bytes, _Counters]) -> None:
        for key in {account, place} & counted.keys():
            counted[key].forget(key)
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)

    def _keyed(self, value: str) -> bytes:
        return hashlib.blake2b(value.encode(), digest_size=16, key=self._key).digest()


def _count(counted: Mapping[bytes, _Counters]) -> None:
    """
    Add one to all of *counted*.

    Raises:
        TooManyAttempts: one of them says to wait; then nothing is added.
    """
    wait_s = max(counters.wait_s(key) for key, counters in counted.items())
    if wait_s > 0:
        raise TooManyAttempts(retry_after_ms=math.ceil(wait_s * 1000))
    for key, counters in counted.items():
        counters.add(key)
