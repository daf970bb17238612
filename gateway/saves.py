"""
What waits to be stored goes to records together.

A save that finds none under way goes at once and alone. Those that come while it is under way go together in the next
call, as soon as it ends or after `LINGER_S`: so nobody waits without need, and under load one call, one transaction and
one flush of the disk serve many. Nobody is answered before the call that holds their own record has succeeded.

The road not taken: a fixed window, in which everybody would wait, also where there is nobody to wait for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field

import structlog

from gateway.problems import NotStored
from gateway.schemas import NewPrediction

LINGER_S = 0.05
"""How long one call may hold up the others; beyond it, it is slow, and its fate must not be theirs."""
TOGETHER_MAX = 32
BYTES_MAX = 30 * 1024
"""Of records' limit for a body."""


@dataclass(frozen=True)
class Save:
    """One record to be stored."""

    token: str | None
    """Of the caller; None: without one."""
    record: bytes
    """JSON."""
    request_id: str

    @property
    def size(self) -> int:
        """Return about how many bytes it takes of a call."""
        return len(self.record) + len(self.token or "") + 32


@dataclass
class _Waiting:
    save: Save
    stored: "asyncio.Future[NewPrediction]" = field(repr=False)


StoreOne = Callable[[Save, float | None], Awaitable[NewPrediction]]
StoreMany = Callable[[Sequence[Save]], Awaitable[Sequence[NewPrediction] | None]]


class Saves:
    """Brings saves to records, together where several wait."""

    def __init__(self, store_one: StoreOne, store_many: StoreMany) -> None:
        """
        Args:
            store_one: stores one, within so many seconds or records' own time; raises the problem where it cannot.
            store_many: stores several, all or none; None: they were refused, which is for each to learn by itself.
        """
        self._store_one = store_one
        self._store_many = store_many
        self._waiting: list[_Waiting] = []
        self._under_way = 0
        self._linger: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def store(self, save: Save, timeout_s: float) -> NewPrediction:
        """
        Return the record of *save* once it is stored.

        Raises:
            Problem: it was refused, or it is not known whether it was stored.
        """
        if not self._under_way:
            self._under_way = 1
            try:
                return await self._store_one(save, timeout_s)
            finally:
                self._ended()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(save, loop.create_future())
        self._waiting.append(waiting)
        if self._linger is None:
            self._linger = loop.call_later(LINGER_S, self._begin)
        try:
            async with asyncio.timeout(timeout_s + LINGER_S):
                return await waiting.stored
        except TimeoutError as exc:
            raise NotStored from exc

    def _ended(self) -> None:
        self._under_way -= 1
        if self._waiting:
            self._begin()

    def _begin(self) -> None:
        """Send what waits, as much of it as one call may hold."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        together = self._take()
        if self._waiting:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._begin)
        if not together:
            return
        self._under_way += 1
        # In a context of its own: it is no part of the request whose end or timer happened to begin it.
        task = asyncio.create_task(self._send(together), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Waiting]:
        """Take from those that wait, in their order; who has left meanwhile has nothing stored."""
        together: list[_Waiting] = []
        size, looked_at = 0, 0
        for waiting in self._waiting:
            size += waiting.save.size
            if together and (len(together) == TOGETHER_MAX or size > BYTES_MAX):
                break
            looked_at += 1
            if not waiting.stored.done():
                together.append(waiting)
        del self._waiting[:looked_at]
        return together

    async def _send(self, together: Sequence[_Waiting]) -> None:
        try:
            found = await self._store_many([waiting.save for waiting in together])
            if found is None:
                await asyncio.gather(*(self._send_alone(waiting) for waiting in together))
                return
            for waiting, stored in zip(together, found, strict=True):
                if not waiting.stored.done():
                    waiting.stored.set_result(stored)
        # Of any kind: whoever waits must hear of it.
        except Exception as exc:
            for waiting in together:
                _fail(waiting, exc)
        finally:
            self._ended()

    async def _send_alone(self, waiting: _Waiting) -> None:
        if waiting.stored.done():
            return
        structlog.contextvars.bind_contextvars(request_id=waiting.save.request_id)
        try:
            stored = await self._store_one(waiting.save, None)
        except Exception as exc:
            _fail(waiting, exc)
        else:
            if not waiting.stored.done():
                waiting.stored.set_result(stored)


def _fail(waiting: _Waiting, exc: Exception) -> None:
    if not waiting.stored.done():
        waiting.stored.set_exception(exc)
