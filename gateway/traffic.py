"""Which version of a model answers a request, and which one is asked beside it: pure decisions over a split."""

import hashlib
from dataclasses import dataclass

DRAWN_BYTES = 8


@dataclass(frozen=True)
class Canary:
    """A version that answers a part of the requests."""

    version: int
    percent: float
    """0..100."""
    sticky: bool = False
    """Whether a caller stays with the version that they once got, rather than each request being drawn anew."""


@dataclass(frozen=True)
class Shadow:
    """A version that is asked beside a part of the requests, and whose answers nobody is given."""

    version: int
    percent: float
    """0..100."""


@dataclass(frozen=True)
class Traffic:
    """How the requests of a model are split over its versions."""

    stable: int
    canary: Canary | None = None
    shadow: Shadow | None = None

    @property
    def versions(self) -> frozenset[int]:
        """Every version that must be reachable."""
        beside = {part.version for part in (self.canary, self.shadow) if part is not None}
        return frozenset({self.stable} | beside)


def version_for(traffic: Traffic, draw: float) -> int:
    """
    Return the version that answers.

    Args:
        draw: 0 ≤ draw < 1. Equal draws get equal versions, and whoever has the canary at some share keeps it at a
            larger one.
    """
    canary = traffic.canary
    return canary.version if canary is not None and draw < canary.percent / 100 else traffic.stable


def shadow_for(traffic: Traffic, answered: int, draw: float) -> int | None:
    """
    Return the version that is asked beside *answered*, to compare the two; None: nobody.

    What the canary answered, the stable version is asked too: only so is it known whether the two agree.
    """
    if answered != traffic.stable:
        return traffic.stable
    shadow = traffic.shadow
    return shadow.version if shadow is not None and draw < shadow.percent / 100 else None


def drawn_for(key: bytes, model: str, traffic: Traffic, subject: str) -> float:
    """
    Return a caller's own draw, 0 ≤ draw < 1: always the same for one canary, and unrelated to that for the next.

    The hash is keyed, so nobody can make themselves an account that a certain version answers.
    """
    canary = traffic.canary.version if traffic.canary else 0
    text = f"{model}\0{canary}\0{subject}".encode()
    digest = hashlib.blake2b(text, digest_size=DRAWN_BYTES, key=key[: hashlib.blake2b.MAX_KEY_SIZE]).digest()
    # A double has 53 bits: taking all 64 could round up to 1.
    return (int.from_bytes(digest) >> 11) / 2.0**53
