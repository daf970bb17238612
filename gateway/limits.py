"""How often callers without a token may ask."""

import ipaddress
import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from gateway.problems import TooManyRequests

IPV6_NETWORK_BITS = 64
"""One subscriber commonly has a whole /64 network, and with it any number of addresses."""


class AnonymousLimit:
    """A limit per network address, in this process's memory: each pod counts for itself."""

    def __init__(self, *, allowed: bool, per_minute: int) -> None:
        self.allowed = allowed
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def hit(self, address: str) -> None:
        """
        Count one request of *address*.

        Raises:
            TooManyRequests: it has used up its requests.
        """
        source = source_of(address)
        if not self._limiter.hit(self._item, source):
            reset_at = self._limiter.get_window_stats(self._item, source).reset_time
            raise TooManyRequests(retry_after_ms=max(1, math.ceil(1000 * (reset_at - time.time()))))


def source_of(address: str) -> str:
    """Return what is counted as one caller: an IPv4 address, the /64 network of an IPv6 one, or the text as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
