"""
What handlers may ask for. A handler's signature is the list of its needs.

All of them are `async def`, also those that await nothing: FastAPI runs a plain function in a thread, which would cost
more than the function.
"""

import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypedDict
from uuid import UUID

from fastapi import Depends, Request, Response
from prometheus_client import Counter
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from healthguard import tls, tokens
from healthguard.database import Database
from healthguard.problems import Unauthorized
from healthguard.tokens import RememberingVerifier, bearer_token
from records import cursors, pseudonyms
from records.problems import GatewayOnly


@dataclass(frozen=True)
class Resources:
    """What lives as long as the process; the lifespan builds it."""

    database: Database
    verifier: RememberingVerifier
    pseudonyms: pseudonyms.Pseudonyms
    cursors: cursors.Cursors
    gateway_secret: SecretStr
    gateway_name: str | None
    idempotency_life: timedelta
    saved: Counter


class State(TypedDict):
    """What the lifespan yields."""

    resources: Resources


async def _resources(request: Request) -> Resources:
    found: Resources = request.state.resources
    return found


Needs = Annotated[Resources, Depends(_resources)]


async def _session(needs: Needs) -> AsyncIterator[AsyncSession]:
    """Open the request's transaction, and count what it saved, once that is true."""
    async with needs.database.write() as session:
        yield session
    if (source := session.info.get("saved")) is not None:
        needs.saved.labels(source).inc()


async def _read_session(needs: Needs) -> AsyncIterator[AsyncSession]:
    async with needs.database.read() as session:
        yield session


# scope="function": the commit runs before the answer is sent. By default it would run after the client has its 201.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
ReadSession = Annotated[AsyncSession, Depends(_read_session, scope="function")]


async def _caller(request: Request, needs: Needs) -> tokens.Caller:
    """
    Return who asks.

    Raises:
        Unauthorized: no token, one that does not hold, or one of somebody who is not a person of ours.
        Unavailable: auth's keys cannot be had.
    """
    return await caller_with(bearer_token(request.headers.get("Authorization")), needs)


async def caller_with(token: str, needs: Resources) -> tokens.Caller:
    """
    Return whom a token speaks for.

    Raises:
        Unauthorized: it does not hold, or is of somebody who is not a person of ours.
        Unavailable: auth's keys cannot be had.
    """
    caller = await needs.verifier.verify(token)
    try:
        UUID(caller.subject)
    except ValueError as exc:
        raise Unauthorized("The access token does not hold.", error="invalid_token") from exc
    return caller


Caller = Annotated[tokens.Caller, Depends(_caller)]


def _is_gateway(request: Request, needs: Needs) -> bool:
    sent = request.headers.get("X-HealthGuard-Gateway", "")
    return hmac.compare_digest(sent.encode(), needs.gateway_secret.get_secret_value().encode())


async def _gateway(request: Request, needs: Needs) -> None:
    """
    Let the gateway pass.

    Raises:
        GatewayOnly: the request does not carry its secret.
    """
    if not _is_gateway(request, needs):
        raise GatewayOnly


Gateway = Depends(_gateway)


async def _from_gateway(request: Request, needs: Needs) -> None:
    """
    Let pass what came over a connection of the gateway's, where gateways have certificates.

    The routes that write what a model has answered ask for the secret too: without TLS it is all there is.

    Raises:
        GatewayOnly: the connection is somebody else's.
    """
    if needs.gateway_name is not None and not tls.is_peer(request.scope, needs.gateway_name):
        raise GatewayOnly


FromGateway = Depends(_from_gateway)


async def _caller_or_anonymous(request: Request, needs: Needs) -> tokens.Caller | None:
    """
    Return who asks; None where the gateway vouches that it lets this one ask without a token.

    A token that was sent is always checked: one that does not hold never turns into an anonymous request.

    Raises:
        Unauthorized: neither a token that holds nor the gateway's word.
    """
    vouched = request.headers.get("X-HealthGuard-Anonymous") == "1" and _is_gateway(request, needs)
    if vouched and "Authorization" not in request.headers:
        return None
    return await _caller(request, needs)


CallerOrAnonymous = Annotated[tokens.Caller | None, Depends(_caller_or_anonymous)]


async def _not_stored_by_others(response: Response) -> None:
    """Tell browsers and proxies on the way to keep no copy of findings."""
    response.headers["Cache-Control"] = "no-store"


NoStore: Any = Depends(_not_stored_by_others)
