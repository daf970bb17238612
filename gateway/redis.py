"""Redis, where one is set: what gateways share. It may be away at any time; then each pod goes on by itself."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client

log = structlog.get_logger()

TIMEOUT_S = 0.1
"""A request waits no longer for Redis than this: it saves work, and must not become the thing that is waited for."""
AWAY_S = 1.0
"""After a failure it is not asked for so long."""
CONNECTIONS_MAX = 32


class Redis:
    """A connection pool to one Redis that never fails loudly: what is not known is None."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        # Imported only where it is used: most installations have no Redis, and it costs each process 10 MB.
        from redis.asyncio import Redis as Made  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        self.url = url
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._clock = clock
        self._away_until = float("-inf")
        self.client: Client = Made.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, max_connections=CONNECTIONS_MAX
        )

    @property
    def usable(self) -> bool:
        """Whether it is worth asking."""
        return self._clock() >= self._away_until

    def failed(self, exc: Exception) -> None:
        """Leave it alone for a while."""
        self._away_until = self._clock() + AWAY_S
        log.warning("redis_failed", exception=type(exc).__qualname__)

    async def get(self, key: str) -> bytes | None:
        """Return what is under *key*; None where there is nothing, or Redis is away."""
        found: Any = await self._try(self.client.get, key)
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes, *, seconds: int) -> None:
        """Keep *value* for so long, if Redis is there."""
        await self._try(self.client.set, key, value, ex=seconds)

    async def _try(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self.usable:
            return None
        try:
            return await call(*args, **options)
        except self._errors as exc:
            self.failed(exc)
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()
