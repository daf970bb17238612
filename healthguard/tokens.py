"""
Access tokens: verify them here, with auth's public keys, without a call per request.

Tokens are ES256 JWTs of type `at+jwt`. Fixed algorithm and type, a local map of keys by `kid`, and required claims.

Source: RFC 8725 (JWT best current practices), RFC 9068 (at+jwt), RFC 7518 §3.4 (ES256).
"""

import asyncio
import contextvars
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

import jwt
import structlog

from healthguard.problems import Unauthorized, Unavailable

log = structlog.get_logger()

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type, not a secret
TOKEN_BYTES_MAX = 8192
LEEWAY_S = 5
REQUIRED_CLAIMS = ["iss", "aud", "sub", "role", "iat", "exp", "jti"]

REMEMBERED_S = 60.0
REMEMBERED_MAX = 4096

KEYS_FRESH_S = 300.0
KEYS_REFETCH_S = 10.0
"""A token with an unknown key may cause a fetch, but not more often than this: random key ids must not load auth."""
KEYS_FIRST_S = 1.0
"""How often a fetch may begin before the first success; auth may start after us, so sooner than the above."""


class Role(StrEnum):
    """What a person is to HealthGuard; open registration gives `patient`."""

    PATIENT = "patient"
    DOCTOR = "doctor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as the access token says."""

    subject: str
    role: Role
    token_id: str
    expires_at: datetime
    token: str = field(repr=False)
    """The token itself, to be sent on to records; never logged."""
    methods: frozenset[str] = frozenset()
    """What was shown for the token (`amr`, RFC 8176); empty where it does not say."""


class KeysNotFetched(Exception):
    """Auth's public keys could not be had this time."""


Fetch = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns a JWK set as a mapping, or raises `KeysNotFetched`; `healthguard.jwks` has the one over HTTP."""


class Keys:
    """
    Auth's public keys by `kid`: fetched at first need, again when stale or when a new `kid` appears.

    All who need a fetch share one, and whoever's key is known waits for none: stale keys are renewed beside the
    requests. While auth is away the keys last seen go on working, so valid tokens do too.
    """

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, kid: str) -> jwt.PyJWK:
        """
        Return the key with this id.

        Raises:
            Unauthorized: auth publishes no such key.
            Unavailable: no keys were ever had, and auth is away.
        """
        if key := self._keys.get(kid):
            if self._clock() - self._fetched_at > KEYS_FRESH_S:
                self._refresh()
            return key
        await self._refreshed()
        if key := self._keys.get(kid):
            return key
        if not self._keys:
            raise Unavailable("The keys that verify access tokens cannot be had at the moment.")
        raise _refused()

    async def ready(self) -> None:
        """
        Return when at least one key is known.

        Raises:
            Unavailable: none is.
        """
        if not self._keys:
            await self._refreshed()
        if not self._keys:
            raise Unavailable("The keys that verify access tokens cannot be had at the moment.")

    async def _refreshed(self) -> None:
        """Wait for the fetch that is under way, or for one that may begin now; where neither is, return at once."""
        if fetching := self._refresh():
            # Shielded, since others wait for the same one: a client that leaves must not end it for them.
            await asyncio.shield(fetching)

    def _refresh(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way, or begin one if the last is long enough ago."""
        if self._fetching is not None:
            return self._fetching
        if self._clock() - self._tried_at < (KEYS_REFETCH_S if self._keys else KEYS_FIRST_S):
            return None
        self._tried_at = self._clock()
        # In a context of its own: it is no part of the request that happened to come first.
        self._fetching = asyncio.create_task(self._fetch_once(), context=contextvars.Context())
        return self._fetching

    async def _fetch_once(self) -> None:
        try:
            self._keys = _keys_by_id(await self._fetch())
            self._fetched_at = self._clock()
        # Of any kind: it would reach everybody who waits, and nobody where it runs beside the requests.
        except Exception as exc:
            log.warning("token_keys_not_fetched", exception=type(exc.__cause__ or exc).__qualname__)
        finally:
            self._fetching = None


def _keys_by_id(jwks: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Return the signing keys of a JWK set, by id; keys of any other kind are left out."""
    usable = (key for key in jwks["keys"] if key.get("kty") == "EC" and key.get("crv") == "P-256" and "kid" in key)
    return {key["kid"]: jwt.PyJWK(key, algorithm=ALGORITHM) for key in usable}


@dataclass(frozen=True)
class TokenVerifier:
    """Turns a token into a `Caller`, or refuses it."""

    keys: Keys
    issuer: str
    audience: str

    async def verify(self, token: str) -> Caller:
        """
        Return who the token speaks for.

        Raises:
            Unauthorized: it is malformed, expired, of another issuer or audience, or signed by no key of auth's.
            Unavailable: auth's keys cannot be had.
        """
        kid = _key_id(token)
        key = await self.keys.get(kid)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY_S,
                options={"require": REQUIRED_CLAIMS, "strict_aud": True},
            )
            return _caller(claims, token)
        except jwt.ExpiredSignatureError as exc:
            raise Unauthorized("The access token has expired.", error="invalid_token") from exc
        except (jwt.PyJWTError, ValueError) as exc:
            raise _refused() from exc


class Verifier(Protocol):
    """Whatever turns a token into a caller."""

    async def verify(self, token: str) -> Caller:
        """Return who it speaks for, or raise."""


class RememberingVerifier:
    """
    Checks each token once a minute: to check a signature costs a service more than to store what came with it.

    A token whose key auth has withdrawn goes on working for that minute; an expired one does not. The minute is one of
    a clock that nobody sets: were the time put back by an hour, a withdrawn key's tokens would go on for that hour.
    """

    def __init__(
        self,
        verifier: Verifier,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._clock = clock
        self._wall_clock = wall_clock
        self._callers: OrderedDict[str, tuple[Caller, float, float]] = OrderedDict()

    async def verify(self, token: str) -> Caller:
        """
        Return who the token speaks for.

        Raises:
            Unauthorized, Unavailable: as `TokenVerifier.verify`.
        """
        caller, until, expires = self._callers.get(token, (None, 0.0, 0.0))
        now = self._clock()
        if caller is not None and now < until and self._wall_clock() < expires:
            return caller
        caller = await self._verifier.verify(token)
        self._callers[token] = caller, now + REMEMBERED_S, caller.expires_at.timestamp() + LEEWAY_S
        self._callers.move_to_end(token)
        if len(self._callers) > REMEMBERED_MAX:
            self._callers.popitem(last=False)
        return caller


def _key_id(token: str) -> str:
    """Return the `kid` of a token whose size and header are ours; the library alone would accept other types."""
    # The base64url of a JWS has no padding (RFC 7515 §2); PyJWT would accept it, and so a second spelling of a token.
    if len(token) > TOKEN_BYTES_MAX or "=" in token:
        raise _refused()
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise _refused() from exc
    kid = header.get("kid")
    if header.get("typ") != TOKEN_TYPE or header.get("alg") != ALGORITHM or not isinstance(kid, str):
        raise _refused()
    return kid


def _caller(claims: Mapping[str, Any], token: str) -> Caller:
    """Return the caller that verified claims name; an unknown role is a ValueError."""
    return Caller(
        subject=str(claims["sub"]),
        role=Role(claims["role"]),
        token_id=str(claims["jti"]),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        token=token,
        methods=_methods(claims.get("amr")),
    )


def _methods(amr: object) -> frozenset[str]:
    """Return the methods of an `amr` claim; no other service needs one, so whatever else stands there is none."""
    return frozenset(method for method in amr if isinstance(method, str)) if isinstance(amr, list) else frozenset()


def _refused() -> Unauthorized:
    """One sentence for every way in which a token can be wrong: which one it was is nobody's business."""
    return Unauthorized("The access token does not hold.", error="invalid_token")


def bearer_token(authorization: str | None) -> str:
    """
    Return the token of an Authorization header.

    Raises:
        Unauthorized: the header is missing or is not of the Bearer scheme.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Send an access token: Authorization: Bearer …")
    return token.strip()
