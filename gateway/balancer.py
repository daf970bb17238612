"""The replicas of a model's version, and which of them takes the next call."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.contracts import Contract
from gateway.discovery import Endpoint
from gateway.outliers import Conduct
from serving.tfs.client import Client, Tls, VersionStatus

CHANNEL_OPTIONS = (
    # gRPC's own backoff grows to two minutes; a model server that came back must be found within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

SLOW_START_S = 5.0
WEIGHT_MIN = 0.1
"""A replica that has just come gets a tenth of its share and then more by the second: caches and clocks warm up."""


@dataclass(eq=False)
class Replica:
    """One server of a version: its channel, what it last said of itself, and how many calls it has of ours."""

    endpoint: Endpoint
    client: Client
    tls: Tls | None = None
    versions: Sequence[VersionStatus] = ()
    contract: Contract | None = None
    """The version's contract; None while that version is not AVAILABLE here."""
    trouble: str | None = "not_asked_yet"
    """Why it has no contract; a change of it is logged."""
    missed: int = 0
    """Questions about its state that went without an answer, in a row."""
    in_flight: int = 0
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call found the server away, so that its state is asked for at once."""
    ready_at: float = float("-inf")
    """Since when it has taken calls; its slow start counts from here."""
    conduct: Conduct = field(default_factory=Conduct)
    replaces: bool = False
    """Whether the same server has connections under older certificates, which go when this one is ready."""
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)
    """Asks for its state."""


def connect(endpoint: Endpoint, tls: Tls | None = None) -> Replica:
    """Return a replica for *endpoint*; it connects when first called."""
    # A pool of connections of its own: by default gRPC shares them, and with them each other's reconnect backoff.
    options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    return Replica(endpoint, Client(endpoint.address, tls=tls, options=options), tls)


def choose(replicas: Sequence[Replica], random: Random, now: float) -> Replica:
    """
    Return the one with fewer calls in flight of two at random, of those that may be asked.

    Not the least of all: gateways that all saw the same least-loaded replica would all send there at once.
    Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
    """
    if len(replicas) > 1:
        replicas = candidates(replicas, now)
    if len(replicas) == 1:
        return replicas[0]
    weights = [weight_of(replica, now) for replica in replicas]
    first, second = _pair(len(replicas), weights, random)
    # Calls by weight: one in flight at a tenth of the share is as much as ten are at the whole.
    loads = (replicas[first].in_flight / weights[first], replicas[second].in_flight / weights[second])
    return replicas[first] if loads[0] <= loads[1] else replicas[second]


def candidates(replicas: Sequence[Replica], now: float) -> Sequence[Replica]:
    """
    Return who may be asked: who stays and behaves; else who stays; else, rather than nobody, who is about to leave.
    """
    staying = [replica for replica in replicas if not replica.endpoint.leaving]
    behaving = [replica for replica in staying if replica.conduct.ejected_until <= now]
    return behaving or staying or replicas


def weight_of(replica: Replica, now: float) -> float:
    """Return the share of a whole replica's calls that this one gets, `WEIGHT_MIN`..1."""
    return min(1.0, max(WEIGHT_MIN, (now - replica.ready_at) / SLOW_START_S))


def _pair(count: int, weights: Sequence[float], random: Random) -> tuple[int, int]:
    """Return two different places, each drawn by weight."""
    places = range(count)
    if min(weights) == 1.0:
        first, second = random.sample(places, 2)
        return first, second
    (first,) = random.choices(places, weights)
    rest = [weight if place != first else 0.0 for place, weight in enumerate(weights)]
    return first, random.choices(places, rest)[0]


def choose_again(replicas: Sequence[Replica], failed: Replica, random: Random, now: float) -> Replica | None:
    """
    Return who may take a call that *failed* answered with UNAVAILABLE; None: nobody, and the failure stands.

    Another replica where there is one. The same one only where the connection to it broke: a server that answers so
    over a standing connection has a full queue, and a second call at once would make it fuller.
    """
    if others := [replica for replica in replicas if replica is not failed]:
        return choose(others, random, now)
    return None if failed.client.connected else failed


@dataclass
class RetryBudget:
    """
    Lets one call in ten be tried again, and some at once after quiet times.

    Where every call fails, a second try of each would double the load just when it cannot be borne. The burst is as
    many calls as one replica may have had in flight when it died: those are what retries are for.
    Source: B. Beyer et al., "Site Reliability Engineering", 2016, ch. 21 (retry budgets).
    """

    share: float = 0.1
    burst: float = 32.0
    saved: float = 32.0

    def earn(self) -> None:
        """Account for one first call."""
        self.saved = min(self.saved + self.share, self.burst)

    def spend(self) -> bool:
        """Tell whether a second call may be made, and account for it."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True


now_s = time.monotonic
"""The clock of `ready_at` and of ejections."""
