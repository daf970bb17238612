"""Who asks: by token and by API key, and for how long that is remembered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pydantic_core import from_json, to_json

from gateway import credentials
from gateway.credentials import ENTRIES_MAX, NEW_KEYS_PER_MINUTE, REFUSED_S, REMEMBERED_S, Credentials, Memory
from gateway.limits import Rates
from gateway.problems import BadUpstream, TooManyRequests, UpstreamUnavailable
from gateway.upstream import Answer, Upstream
from healthguard.problems import Problem, Unauthorized
from healthguard.tokens import Caller, TokenVerifier
from tests.issuer import Issuer

KEY = "hg_live_" + "a" * 22 + "_" + "b" * 6


@dataclass
class Clock:
    """A clock that tests turn."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Auth:
    """Answers trades, in the place of auth's HTTP client."""

    answer: Callable[[], Answer]
    calls: list[Any] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def call(self, method: str, path: str, *, body: bytes, **_: Any) -> Answer:
        """Answer one trade."""
        self.calls.append((method, path, from_json(body)))
        if self.hold is not None:
            await self.hold.wait()
        return self.answer()


@dataclass
class Desk:
    """Credentials over an issuer and an auth of the test's own."""

    issuer: Issuer = field(default_factory=Issuer)
    clock: Clock = field(default_factory=Clock)
    verified: int = 0

    def __post_init__(self) -> None:
        """Wire it up."""
        self.auth = Auth(lambda: Answer(200, {}, to_json({"access_token": self.issuer.token(), "expires_in": 300})))
        verifier = self.issuer.verifier()
        original = verifier.verify

        async def verify(token: str) -> Caller:
            self.verified += 1
            return await original(token)

        counted = cast(TokenVerifier, type("Counted", (), {"verify": staticmethod(verify)})())
        self.credentials = Credentials(counted, cast(Upstream, self.auth), Rates(), Memory(self.clock))

    async def show(self, authorization: str | None = None, api_key: str | None = None) -> Caller:
        """Show something."""
        return await self.credentials.caller(authorization, api_key, source="192.0.2.1", request_id="r")


async def test_token_is_checked_once_a_minute() -> None:
    """The second time it is known; after its time it is checked again."""
    desk = Desk()
    token = desk.issuer.token()
    callers = [await desk.show(f"Bearer {token}") for _ in range(3)]
    assert callers[0] is callers[2]
    assert desk.verified == 1
    desk.clock.now = REMEMBERED_S + 1
    await desk.show(f"Bearer {token}")
    assert desk.verified == 2


async def test_token_is_not_remembered_beyond_its_end() -> None:
    """A token of the last seconds ends as its issuer meant."""
    desk = Desk()
    import time

    token = desk.issuer.token(exp=int(time.time()) + 10)
    await desk.show(f"Bearer {token}")
    desk.clock.now = 16
    assert desk.verified == 1
    await desk.show(f"Bearer {token}")
    assert desk.verified == 2


async def test_refused_token_is_never_remembered_as_good() -> None:
    """Nor does a good one open the door for one that looks like it."""
    desk = Desk()
    good, bad = desk.issuer.token(), Issuer().token()
    await desk.show(f"Bearer {good}")
    for shown in (bad, good + "=", good[:-4] + "AAAA"):
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await desk.show(f"Bearer {shown}")


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [(None, KEY), (f"Bearer {KEY}", None), ("Bearer other", f" {KEY} ")],
    ids=["X-API-Key", "Authorization", "both"],
)
async def test_key_is_traded_once(authorization: str | None, api_key: str | None) -> None:
    """In either header; then it is known for a while, and asked about again."""
    desk = Desk()
    for _ in range(3):
        await desk.show(authorization, api_key)
    assert desk.auth.calls == [("POST", "/v1/auth/token", {"api_key": KEY})]
    desk.clock.now = REMEMBERED_S + 1
    await desk.show(authorization, api_key)
    assert len(desk.auth.calls) == 2


async def test_crowd_with_one_key_makes_one_trade() -> None:
    """A batch job's first fifty requests come together."""
    desk = Desk()
    desk.auth.hold = asyncio.Event()
    crowd = [asyncio.create_task(desk.show(api_key=KEY)) for _ in range(50)]
    await asyncio.sleep(0.01)
    # One leaves: the others still get their answer.
    crowd[0].cancel()
    desk.auth.hold.set()
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert len({answer for answer in answers[1:] if isinstance(answer, Caller)}) == 1
    assert len(desk.auth.calls) == 1


@pytest.mark.parametrize("status", [401, 422])
async def test_refused_key_is_not_asked_about_again_at_once(status: int) -> None:
    """A client that tries again and again costs auth nothing; a key made since works soon."""
    desk = Desk()
    good = desk.auth.answer
    desk.auth.answer = lambda: Answer(status, {}, b"{}")
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await desk.show(api_key=KEY)
    assert len(desk.auth.calls) == 1
    desk.auth.answer = good
    desk.clock.now = REFUSED_S + 1
    await desk.show(api_key=KEY)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(503, {}, b""), UpstreamUnavailable),
        (Answer(429, {}, b""), UpstreamUnavailable),
        (Answer(200, {}, b"{}"), BadUpstream),
        (Answer(200, {}, to_json({"access_token": Issuer().token(), "expires_in": 300})), Unauthorized),
    ],
    ids=["away", "busy", "another form", "a token of somebody else"],
)
async def test_trade_that_fails_lets_nobody_in(answer: Answer, problem: type[Problem]) -> None:
    """And is not remembered."""
    desk = Desk()
    good, desk.auth.answer = desk.auth.answer, lambda: answer
    with pytest.raises(problem):
        await desk.show(api_key=KEY)
    desk.auth.answer = good
    await desk.show(api_key=KEY)


@pytest.mark.parametrize("api_key", ["", "hunter2", KEY + "x", "hg_live_short"])
async def test_what_is_no_key_is_not_asked_about(api_key: str) -> None:
    """Its form alone tells; a token in the key's header is none, either."""
    desk = Desk()
    for shown in (api_key, desk.issuer.token()):
        with pytest.raises(Unauthorized):
            await desk.show(api_key=shown)
    assert desk.auth.calls == []


async def test_invented_keys_are_counted_by_address() -> None:
    """Whoever tries keys by the thousand does not get auth to look each of them up; known keys still work."""
    desk = Desk()
    await desk.show(api_key=KEY)
    desk.auth.answer = lambda: Answer(401, {}, b"")
    invented = [f"hg_live_{number:022d}_bbbbbb" for number in range(NEW_KEYS_PER_MINUTE + 10)]
    refusals = []
    for key in invented:
        with pytest.raises(Problem) as refused:
            await desk.show(api_key=key)
        refusals.append(refused.type)
    assert refusals.count(TooManyRequests) == 11
    assert len(desk.auth.calls) == NEW_KEYS_PER_MINUTE
    await desk.show(api_key=KEY)


def test_memory_is_bounded() -> None:
    """The one not seen for longest goes first."""
    memory = Memory(Clock())
    for number in range(ENTRIES_MAX):
        memory.put(str(number).encode(), None, 10)
    assert memory.get(b"0") is not None
    memory.put(b"one more", None, 10)
    assert memory.get(b"0") is not None
    assert memory.get(b"1") is None


async def test_what_is_remembered_holds_no_key() -> None:
    """A dump of the process' memory of callers gives nobody a key: only digests of them are kept."""
    desk = Desk()
    await desk.show(api_key=KEY)
    assert KEY not in repr(vars(desk.credentials._memory))
    assert credentials.KEY_HEADER == "x-api-key"
