"""
Who asks: an access token, checked here; or an API key, which auth trades for one.

Both are remembered for a short while, in this process only: a token is checked by an elliptic curve, which costs more
than all other work of the gateway on a small request; a key costs a call to auth. What is remembered ends with the
token, and after `REMEMBERED_S` at the latest.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from gateway.limits import Rates
from gateway.problems import BadUpstream, UpstreamUnavailable
from gateway.upstream import Upstream
from healthguard.problems import Unauthorized
from healthguard.sources import source_of
from healthguard.tokens import LEEWAY_S, Caller, TokenVerifier, bearer_token

KEY_HEADER = "x-api-key"
# Its form only: whether a key exists, auth alone can say.
_KEY = re.compile(r"hg_live_[0-9A-Za-z]{22}_[0-9A-Za-z]{6}")

REMEMBERED_S = 60.0
"""For so long a token works on where auth has withdrawn the key that signed it."""
REFUSED_S = 5.0
"""For so long a key that auth refused is not asked about again."""
ENTRIES_MAX = 4096
NEW_KEYS_PER_MINUTE = 60
"""API keys not seen lately that one network address may show a minute."""


class _Traded(BaseModel):
    """What the gateway reads of auth's answer to a key."""

    access_token: str = Field(max_length=8192)
    expires_in: int = Field(ge=1)


@dataclass(frozen=True)
class _Entry:
    caller: Caller | None
    """None: refused."""
    until: float


class Memory:
    """Callers by a digest of what they showed; the one that was longest not seen goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._clock = clock

    def get(self, key: bytes) -> _Entry | None:
        """Return what is remembered under *key*, and still holds."""
        entry = self._entries.get(key)
        if entry is None or entry.until <= self._clock():
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, caller: Caller | None, seconds: float) -> None:
        """Remember it for so long."""
        self._entries[key] = _Entry(caller, self._clock() + seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)


class Credentials:
    """Turns what a request shows into a caller."""

    def __init__(self, verifier: TokenVerifier, auth: Upstream, rates: Rates, memory: Memory | None = None) -> None:
        self.verifier = verifier
        self._auth = auth
        self._rates = rates
        self._memory = memory or Memory()
        self._trading: dict[bytes, asyncio.Task[Caller]] = {}

    async def caller(self, authorization: str | None, api_key: str | None, *, source: str, request_id: str) -> Caller:
        """
        Return who asks.

        Args:
            authorization: the header of this name: `Bearer` and a token, or an API key in its place.
            api_key: the header X-API-Key.
            source: the address that asks; keys that nobody has seen yet are counted by it.

        Raises:
            Unauthorized: nothing was shown, or something that does not hold.
            TooManyRequests: too many keys from there were new.
            Unavailable: auth's public keys were never had, or auth is away and the API key is not known here.
        """
        shown = api_key.strip() if api_key is not None else bearer_token(authorization)
        if _KEY.fullmatch(shown):
            return await self._by_key(shown, source, request_id)
        if api_key is not None:
            raise _refused()
        return await self._by_token(shown)

    async def _by_token(self, token: str) -> Caller:
        digest = _digest(token)
        entry = self._memory.get(digest)
        if entry is not None and entry.caller is not None:
            return entry.caller
        caller = await self.verifier.verify(token)
        self._memory.put(digest, caller, min(REMEMBERED_S, _left_s(caller) + LEEWAY_S))
        return caller

    async def _by_key(self, key: str, source: str, request_id: str) -> Caller:
        digest = _digest(key)
        if (entry := self._memory.get(digest)) is not None:
            if entry.caller is None:
                raise _refused()
            return entry.caller
        if digest not in self._trading:
            # Whoever invents keys would otherwise have auth look each of them up.
            await self._rates.hit("new-keys", NEW_KEYS_PER_MINUTE, source_of(source))
        trading = self._trading.get(digest)
        if trading is None:
            trading = self._trading[digest] = asyncio.create_task(self._trade(key, digest, request_id))
            trading.add_done_callback(lambda task: self._traded(digest, task))
        # Shielded, since others wait for the same answer: a client that leaves must not end it for them.
        return await asyncio.shield(trading)

    def _traded(self, digest: bytes, task: "asyncio.Task[Caller]") -> None:
        del self._trading[digest]
        if not task.cancelled():
            # Looked at here, since whoever waited for it may have left.
            task.exception()

    async def _trade(self, key: str, digest: bytes, request_id: str) -> Caller:
        """
        Ask auth for a token.

        Raises:
            Unauthorized: the key is revoked, has expired or never was.
            UpstreamUnavailable, BadUpstream: auth is away, or answers something else.
        """
        answer = await self._auth.call(
            "POST",
            "/v1/auth/token",
            request_id=request_id,
            headers={"Content-Type": "application/json"},
            body=to_json({"api_key": key}),
        )
        if answer.status in (401, 422):
            self._memory.put(digest, None, REFUSED_S)
            raise _refused()
        if answer.status >= 500 or answer.status == 429:
            raise UpstreamUnavailable
        try:
            traded = _Traded.model_validate_json(answer.body)
        except ValidationError as exc:
            raise BadUpstream from exc
        caller = await self.verifier.verify(traded.access_token)
        # Not to its last second: records checks the same token a moment later.
        self._memory.put(digest, caller, min(REMEMBERED_S, _left_s(caller) - 2 * LEEWAY_S))
        return caller


def _digest(shown: str) -> bytes:
    return hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _left_s(caller: Caller) -> float:
    return (caller.expires_at - datetime.now(UTC)).total_seconds()


def _refused() -> Unauthorized:
    return Unauthorized("The API key does not hold.", error="invalid_token")
