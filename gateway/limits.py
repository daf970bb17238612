"""How often callers may ask: each caller by who they are, those without a token by where they come from."""

import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from gateway.problems import TooManyRequests
from gateway.redis import Redis
from healthguard.sources import source_of

MINUTE_S = 60


@dataclass(frozen=True)
class Standing:
    """Where a caller stands with a limit, as the RateLimit headers say it."""

    policy: str
    per_minute: int
    remaining: int
    reset_s: int

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """
        Return the response headers.

        Source: draft-ietf-httpapi-ratelimit-headers-10, §3 (RateLimit-Policy) and §4 (RateLimit).
        """
        name = f'"{self.policy}"'
        return (
            (b"ratelimit-policy", f"{name};q={self.per_minute};w={MINUTE_S}".encode()),
            (b"ratelimit", f"{name};r={self.remaining};t={self.reset_s}".encode()),
        )


class Rates:
    """
    Counts requests by the minute, in Redis for all gateways or in this process's memory for itself.

    The window slides: a fixed one lets twice as much through around the full minute. While Redis is away each pod
    counts for itself, as without one: nobody is refused for Redis' sake, and nobody goes uncounted.
    """

    def __init__(self, redis: Redis | None = None) -> None:
        self._redis = redis
        self._memory = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = SlidingWindowCounterRateLimiter(_storage(redis)) if redis else None

    async def hit(self, policy: str, per_minute: int, key: str) -> Standing:
        """
        Count one request of *key* under *policy*.

        Raises:
            TooManyRequests: it has used up its requests.
        """
        item = RateLimitItemPerMinute(per_minute, namespace="healthguard")
        if self._shared is not None and self._redis is not None and self._redis.usable:
            try:
                return await _hit(self._shared, item, policy, key)
            except StorageError as exc:
                self._redis.failed(exc)
        return await _hit(self._memory, item, policy, key)


def _storage(redis: Redis) -> Storage:
    return RedisStorage(
        f"async+{redis.url}",
        wrap_exceptions=True,
        implementation="redispy",
        # Of a type that the library takes, though its annotation does not say so.
        connection_pool=redis.client.connection_pool,  # type: ignore[arg-type]
    )


async def _hit(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, policy: str, key: str) -> Standing:
    """
    Count one request.

    Raises:
        TooManyRequests: there were too many.
        StorageError: where they are counted is away.
    """
    allowed = await limiter.hit(item, policy, key)
    stats = await limiter.get_window_stats(item, policy, key)
    left_s = max(0.0, stats.reset_time - time.time())
    standing = Standing(policy, item.amount, max(0, stats.remaining), math.ceil(left_s))
    if not allowed:
        headers = {name.decode(): value.decode() for name, value in standing.headers()}
        raise TooManyRequests(retry_after_ms=max(1, math.ceil(1000 * left_s)), headers=headers)
    return standing


@dataclass(frozen=True)
class CallerLimits:
    """How much each caller may ask."""

    rates: Rates
    per_minute: int
    """Of a caller with a token; 0: as much as they like."""
    anonymous: bool
    """Whether anybody may ask without a token, where a path allows it."""
    anonymous_per_minute: int

    async def hit(self, subject: str) -> Standing | None:
        """
        Count one request of the person or program *subject*.

        Raises:
            TooManyRequests: they have used up their requests.
        """
        if not self.per_minute:
            return None
        return await self.rates.hit("caller", self.per_minute, subject)

    async def hit_anonymous(self, address: str) -> Standing:
        """
        Count one request without a token.

        Raises:
            TooManyRequests: the address has used up its requests.
        """
        return await self.rates.hit("anonymous", self.anonymous_per_minute, source_of(address))
