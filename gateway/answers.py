"""Answers to the same pixels by the same version: kept in this process, or in Redis; never who asked, or about whom."""

import struct
from collections import OrderedDict
from typing import Protocol

from gateway.contracts import Contract
from gateway.redis import Redis

Scores = tuple[float, float]
"""The probability, and the out-of-distribution score."""

_PACKED = struct.Struct("<ff")
"""Both are float32 as the model gave them, so nothing is lost."""


class Answers(Protocol):
    """A bounded store of scores; what it has lost is only asked again."""

    async def get(self, key: str) -> Scores | None:
        """Return the scores under *key*; None where they are not known."""

    async def put(self, key: str, scores: Scores) -> None:
        """Keep them for a while."""


def key_of(contract: Contract, image_hmac: str) -> str:
    """
    Return what an answer is kept under: the version, its weights, and the keyed hash of the pixels that it was asked.

    The pixels are those that the model sees: the same photograph in another file gives the same answer.
    """
    return f"{contract.model}:{contract.version}:{contract.weights_digest[7:39]}:{image_hmac}"


class MemoryAnswers:
    """The last answers of this process; the one that was longest not asked for goes first."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._scores: OrderedDict[str, Scores] = OrderedDict()

    async def get(self, key: str) -> Scores | None:
        """Return the scores under *key*; None where they are not known."""
        if (found := self._scores.get(key)) is not None:
            self._scores.move_to_end(key)
        return found

    async def put(self, key: str, scores: Scores) -> None:
        """Keep them until others push them out."""
        self._scores[key] = scores
        self._scores.move_to_end(key)
        if len(self._scores) > self._entries_max:
            self._scores.popitem(last=False)


class RedisAnswers:
    """The answers of all gateways; while Redis is away nothing is known, and every picture is asked anew."""

    def __init__(self, redis: Redis, seconds: int) -> None:
        self._redis = redis
        self._seconds = seconds

    async def get(self, key: str) -> Scores | None:
        """Return the scores under *key*; None where they are not known."""
        found = await self._redis.get(f"answer:{key}")
        if found is None or len(found) != _PACKED.size:
            return None
        probability, ood_score = _PACKED.unpack(found)
        return probability, ood_score

    async def put(self, key: str, scores: Scores) -> None:
        """Keep them until their time is over."""
        await self._redis.put(f"answer:{key}", _PACKED.pack(*scores), seconds=self._seconds)
