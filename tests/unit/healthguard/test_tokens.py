"""Access tokens: every way in which one can be wrong is refused, and auth may be away."""

import asyncio
import base64
import hmac
import inspect
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from healthguard import tokens
from healthguard.problems import Unauthorized, Unavailable
from healthguard.tokens import (
    KEYS_FIRST_S,
    KEYS_FRESH_S,
    KEYS_REFETCH_S,
    LEEWAY_S,
    REMEMBERED_MAX,
    REMEMBERED_S,
    Caller,
    Keys,
    KeysNotFetched,
    RememberingVerifier,
    Role,
    TokenVerifier,
    bearer_token,
)
from tests.issuer import AUDIENCE, ISSUER, Issuer

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """One issuer for all tests here: making a key is the slow part."""
    return Issuer()


def b64(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_token_of_auth_names_its_caller(issuer: Issuer) -> None:
    """The caller is who the claims say, and its token is not in its printed form."""
    token = issuer.token(Role.DOCTOR, sub="0192-me")
    caller = await issuer.verifier().verify(token)
    assert (caller.subject, caller.role) == ("0192-me", Role.DOCTOR)
    assert token not in repr(caller)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60},
        {"iss": "somebody-else"},
        {"aud": "another-service"},
        {"aud": [AUDIENCE, "another-service"]},
        {"nbf": int(time.time()) + 600},
        {"iat": int(time.time()) + 600},
        {"role": "emperor"},
        {"role": None},
        {"sub": 7},
        {"exp": "tomorrow"},
        {"headers": {"typ": "JWT"}},
        {"headers": {"typ": None}},
        {"headers": {"typ": "rt+jwt"}},
        {"headers": {"kid": "unknown"}},
        {"headers": {"kid": "../../etc/passwd"}},
        {"headers": {"crit": ["exp"]}},
        *({"without": (claim,)} for claim in ("iss", "aud", "sub", "role", "iat", "exp", "jti")),
    ],
    # Some values are times: in the ids they would differ from one worker to the next.
    ids=lambda changes: "-".join([*changes, *changes.get("headers", {}), *changes.get("without", ())]),
)
async def test_token_that_does_not_hold_is_refused(issuer: Issuer, changes: dict[str, Any]) -> None:
    """Wrong time, issuer, audience, type, key or role; a missing claim."""
    with pytest.raises(Unauthorized) as refused:
        await issuer.verifier().verify(issuer.token(**changes))
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_token_of_another_issuer_with_our_key_id_is_refused(issuer: Issuer) -> None:
    """A key id is only a name; the signature decides."""
    with pytest.raises(Unauthorized):
        await issuer.verifier().verify(Issuer(issuer.kid).token())


def forged(issuer: Issuer) -> dict[str, str]:
    """Return tokens that an attacker could make of a good one."""
    good = issuer.token()
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    public = json.dumps(issuer.jwks()["keys"][0])
    none = b64(json.dumps({"typ": "at+jwt", "alg": "none", "kid": issuer.kid}).encode())
    doctor = b64(json.dumps(claims | {"role": "doctor"}).encode())
    hs256 = f"{b64(json.dumps({'typ': 'at+jwt', 'alg': 'HS256', 'kid': issuer.kid}).encode())}.{body}"
    return {
        "empty": "",
        "not a token": "abc",
        "padded": good + "==",
        "role changed": f"{head}.{doctor}.{signature}",
        "no signature": f"{head}.{body}.",
        "alg none": f"{none}.{body}.",
        "HS256 with the public key": f"{hs256}.{b64(hmac.digest(public.encode(), hs256.encode(), 'sha256'))}",
        "signature cut": good[:-4],
        "too long": good + "a" * 9000,
        "four parts": good + ".x",
    }


async def test_forged_tokens_are_refused(issuer: Issuer) -> None:
    """None of them passes, and none raises anything but our own refusal."""
    for name, token in forged(issuer).items():
        with pytest.raises(Unauthorized):
            pytest.fail(f"accepted: {name} as {await issuer.verifier().verify(token)}")


async def test_malleated_signature_keeps_the_token_id(issuer: Issuer) -> None:
    """ECDSA accepts (r, n-s) too: whoever denies a token must go by its id, never by its text."""
    good = issuer.token()
    head, body, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    twin = f"{head}.{body}.{b64(r.to_bytes(32) + (P256_ORDER - s).to_bytes(32))}"
    verifier = issuer.verifier()
    assert twin != good
    assert (await verifier.verify(twin)).token_id == (await verifier.verify(good)).token_id


class Auth:
    """Auth's key endpoint, with switches for being away and for being slow, and a count of calls."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer, self.away, self.calls = issuer, False, 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def fetch(self) -> dict[str, Any]:
        """Answer the keys, or fail as a connection does."""
        self.calls += 1
        await self.answers.wait()
        if self.away:
            raise KeysNotFetched
        return self.issuer.jwks()


async def test_keys_outlive_auth(issuer: Issuer) -> None:
    """While auth is away, tokens that were good stay good, for as long as it takes."""
    auth, now = Auth(issuer), [0.0]
    verifier = TokenVerifier(Keys(auth.fetch, clock=lambda: now[0]), ISSUER, AUDIENCE)
    await verifier.verify(issuer.token())
    auth.away, now[0] = True, KEYS_FRESH_S * 100
    await verifier.verify(issuer.token())


@pytest.mark.parametrize(
    ("claims", "methods"),
    [({}, set()), ({"amr": ["pwd"]}, {"pwd"}), ({"amr": "pwd"}, set()), ({"amr": [1, {}]}, set())],
    ids=["none", "a password", "no list", "a list of no names"],
)
async def test_token_says_what_was_shown_for_it(issuer: Issuer, claims: dict[str, Any], methods: set[str]) -> None:
    """The claim is auth's business: a token without it, or with an odd one, holds as before."""
    caller = await issuer.verifier().verify(issuer.token(**claims))

    assert caller.methods == methods


async def test_keys_never_had_is_a_503_not_a_401(issuer: Issuer) -> None:
    """A gateway that started before auth cannot judge a token, and says so."""
    auth, now = Auth(issuer), [0.0]
    auth.away = True
    keys = Keys(auth.fetch, clock=lambda: now[0])
    with pytest.raises(Unavailable):
        await TokenVerifier(keys, ISSUER, AUDIENCE).verify(issuer.token())
    auth.away, now[0] = False, KEYS_FIRST_S
    await keys.ready()


async def test_all_who_wait_for_the_first_keys_share_one_fetch(issuer: Issuer) -> None:
    """A hundred requests to a silent auth wait together, not one after the other; one that leaves ends it for none."""
    auth = Auth(issuer)
    auth.answers.clear()
    verifier = TokenVerifier(Keys(auth.fetch), ISSUER, AUDIENCE)
    waiting = [asyncio.create_task(verifier.verify(issuer.token())) for _ in range(100)]
    while not auth.calls:
        await asyncio.sleep(0)
    waiting.pop(0).cancel()
    auth.answers.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert auth.calls == 1


async def test_first_keys_are_asked_for_once_a_second_at_most(issuer: Issuer) -> None:
    """While auth is away, who comes in between is told so at once."""
    auth, now = Auth(issuer), [0.0]
    auth.away = True
    keys = Keys(auth.fetch, clock=lambda: now[0])
    for at in (0.0, 0.1, KEYS_FIRST_S - 0.01, KEYS_FIRST_S):
        now[0] = at
        with pytest.raises(Unavailable):
            await keys.ready()
    assert auth.calls == 2


async def test_stale_keys_go_on_holding_while_new_ones_are_fetched(issuer: Issuer) -> None:
    """Whoever's key is known does not wait for a silent auth; whoever's is not waits for the fetch under way."""
    auth, now = Auth(issuer), [0.0]
    verifier = TokenVerifier(Keys(auth.fetch, clock=lambda: now[0]), ISSUER, AUDIENCE)
    await verifier.verify(issuer.token())
    auth.answers.clear()
    auth.issuer, now[0] = Issuer("rotated"), KEYS_FRESH_S + 1
    async with asyncio.timeout(10):
        await verifier.verify(issuer.token())
        await verifier.verify(issuer.token())
    new = asyncio.create_task(verifier.verify(auth.issuer.token()))
    while auth.calls < 2:
        await asyncio.sleep(0)
    auth.answers.set()
    async with asyncio.timeout(10):
        await new
    assert auth.calls == 2


async def test_unknown_key_ids_cannot_load_auth(issuer: Issuer) -> None:
    """A hundred tokens with made-up key ids cause no fetch beyond the ration; a rotated key is found after it."""
    auth, now = Auth(issuer), [0.0]
    verifier = TokenVerifier(Keys(auth.fetch, clock=lambda: now[0]), ISSUER, AUDIENCE)
    for number in range(100):
        with pytest.raises(Unauthorized):
            await verifier.verify(issuer.token(headers={"kid": f"made-up-{number}"}))
    assert auth.calls == 1
    auth.issuer = Issuer("rotated")
    now[0] = KEYS_REFETCH_S + 1
    await verifier.verify(auth.issuer.token())
    assert auth.calls == 2


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer "])
def test_bearer_token_needs_the_scheme_and_a_token(header: str | None) -> None:
    """Anything else is a request without a token."""
    with pytest.raises(Unauthorized):
        bearer_token(header)


def test_bearer_scheme_is_case_insensitive() -> None:
    """RFC 9110 §11.1 says so of every scheme."""
    assert bearer_token("bEARER abc") == "abc"


class Counting:
    """Counts how often a token's signature is checked."""

    def __init__(self, issuer: Issuer) -> None:
        self.verifier = issuer.verifier()
        self.checked = 0

    async def verify(self, token: str) -> Caller:
        """Check it."""
        self.checked += 1
        return await self.verifier.verify(token)


async def test_remembered_token_is_checked_once_a_minute(issuer: Issuer) -> None:
    """The same caller, without the work, and not for longer than it may be."""
    now, counting = [0.0], Counting(issuer)
    remembering = RememberingVerifier(counting, clock=lambda: now[0])
    token = issuer.token(Role.DOCTOR)

    assert await remembering.verify(token) is await remembering.verify(token)
    assert counting.checked == 1
    now[0] += REMEMBERED_S + 1
    await remembering.verify(token)
    assert counting.checked == 2


async def test_remembered_token_ends_when_it_expires(issuer: Issuer) -> None:
    """What is remembered never outlives the token."""
    now, counting = [time.time()], Counting(issuer)
    remembering = RememberingVerifier(counting, wall_clock=lambda: now[0])
    token = issuer.token(exp=int(now[0]) + 10)

    await remembering.verify(token)
    now[0] += 11 + LEEWAY_S
    await remembering.verify(token)
    assert counting.checked == 2


async def test_remembered_token_is_checked_again_though_the_time_was_put_back(issuer: Issuer) -> None:
    """Whatever somebody sets the clock to, a minute is a minute."""
    assert inspect.signature(RememberingVerifier).parameters["clock"].default is time.monotonic
    passed, wall, counting = [0.0], [time.time()], Counting(issuer)
    remembering = RememberingVerifier(counting, clock=lambda: passed[0], wall_clock=lambda: wall[0])
    token = issuer.token()

    await remembering.verify(token)
    passed[0] += REMEMBERED_S + 1
    wall[0] -= 3600
    await remembering.verify(token)
    assert counting.checked == 2


async def test_refused_token_is_not_remembered(issuer: Issuer) -> None:
    """A token of somebody else's is refused each time, also with a known one beside it."""
    remembering = RememberingVerifier(issuer.verifier())
    await remembering.verify(issuer.token())
    forged = Issuer().token()
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await remembering.verify(forged)


async def test_memory_of_tokens_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no more than so many are kept."""
    assert REMEMBERED_MAX >= 1000
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 2)
    counting = Counting(issuer)
    remembering = RememberingVerifier(counting)
    first, *others = (issuer.token() for _ in range(3))
    for token in (first, *others, others[1], first):
        await remembering.verify(token)
    assert counting.checked == 4
