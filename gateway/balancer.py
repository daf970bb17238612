"""The replicas of a model, and which of them takes the next call."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.contracts import Contract
from serving.tfs.client import Client, VersionStatus

CHANNEL_OPTIONS = (
    # gRPC's own backoff grows to two minutes; a model server that came back must be found within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(eq=False)
class Replica:
    """One server of a model: its channel, what it last said of itself, and how many calls it has of ours."""

    target: str
    client: Client
    versions: Sequence[VersionStatus] = ()
    contract: Contract | None = None
    """The stable version's contract; None while that version is not AVAILABLE here."""
    trouble: str | None = "not_asked_yet"
    """Why it has no contract; a change of it is logged."""
    in_flight: int = 0
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call found the server away, so that its state is asked for at once."""


def connect(target: str) -> Replica:
    """Return a replica for *target* (`host:port` or `unix:/path`); it connects when first called."""
    return Replica(target, Client(target, options=CHANNEL_OPTIONS))


def choose(replicas: Sequence[Replica], random: Random) -> Replica:
    """
    Return the one with fewer calls in flight of two at random.

    Not the least of all: gateways that all saw the same least-loaded replica would all send there at once.
    Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
    """
    if len(replicas) == 1:
        return replicas[0]
    first, second = random.sample(replicas, 2)
    return first if first.in_flight <= second.in_flight else second


def choose_again(replicas: Sequence[Replica], failed: Replica, random: Random) -> Replica | None:
    """
    Return who may take a call that *failed* answered with UNAVAILABLE; None: nobody, and the failure stands.

    Another replica where there is one. The same one only where the connection to it broke: a server that answers so
    over a standing connection has a full queue, and a second call at once would make it fuller.
    """
    if others := [replica for replica in replicas if replica is not failed]:
        return choose(others, random)
    return None if failed.client.connected else failed


@dataclass
class RetryBudget:
    """
    Lets one call in ten be tried again, and a few at once after quiet times.

    Where every call fails, a second try of each would double the load just when it cannot be borne.
    Source: B. Beyer et al., "Site Reliability Engineering", 2016, ch. 21 (retry budgets).
    """

    share: float = 0.1
    burst: float = 10.0
    saved: float = 10.0

    def earn(self) -> None:
        """Account for one first call."""
        self.saved = min(self.saved + self.share, self.burst)

    def spend(self) -> bool:
        """Tell whether a second call may be made, and account for it."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True
