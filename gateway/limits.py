"""Where a request comes from, and how often callers without a token may ask."""

import ipaddress
import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from gateway.problems import TooManyRequests
from healthguard.sources import source_of


def address_of(request: Request, trusted_hops: int) -> str:
    """
    Return the address that a request comes from, as the outermost proxy of ours saw it.

    Each proxy appends the address that it saw, so ours are counted from the right: what stands further left the client
    may have invented. Where that place is missing or holds no address, the request did not come through them all.
    """
    peer = request.client.host if request.client else "unknown"
    entries = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    if not 0 < trusted_hops <= len(entries):
        return peer
    try:
        return str(ipaddress.ip_address(entries[-trusted_hops].strip()))
    except ValueError:
        return peer


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
