"""
What auth's handlers may ask for: a handler's signature is its list of needs.

All of these are coroutines, also where nothing is awaited: FastAPI runs a plain function in a worker thread, which
costs more than the function.
"""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from auth import login, store
from auth.credentials import read_credentials
from auth.keyring import Issuer
from auth.passwords import Passwords
from auth.settings import AuthSettings
from auth.signing import AuthMethod
from auth.tables import User
from auth.throttle import Throttle
from healthguard.database import Database
from healthguard.idempotency import IdempotencyText
from healthguard.problems import Forbidden, Unauthorized
from healthguard.sources import address_of, source_of
from healthguard.tokens import Caller as TokenCaller
from healthguard.tokens import Role, TokenVerifier, bearer_token


class State(TypedDict):
    """The long-lived objects; the lifespan makes them, tests may give others."""

    settings: AuthSettings
    database: Database
    passwords: Passwords
    throttle: Throttle
    issuer: Issuer
    verifier: TokenVerifier
    successor_key: bytes


async def _settings(request: Request) -> AuthSettings:
    return request.state.settings  # type: ignore[no-any-return]  # Starlette's state is untyped


async def _database(request: Request) -> Database:
    return request.state.database  # type: ignore[no-any-return]


async def _passwords(request: Request) -> Passwords:
    return request.state.passwords  # type: ignore[no-any-return]


async def _throttle(request: Request) -> Throttle:
    return request.state.throttle  # type: ignore[no-any-return]


async def _issuer(request: Request) -> Issuer:
    return request.state.issuer  # type: ignore[no-any-return]


async def _successor_key(request: Request) -> bytes:
    return request.state.successor_key  # type: ignore[no-any-return]


Settings = Annotated[AuthSettings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
PasswordsDep = Annotated[Passwords, Depends(_passwords)]
ThrottleDep = Annotated[Throttle, Depends(_throttle)]
IssuerDep = Annotated[Issuer, Depends(_issuer)]
SuccessorKey = Annotated[bytes, Depends(_successor_key)]


async def open_session(database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """Yield the request's transaction: returning commits, raising rolls back."""
    async with database.write() as session:
        yield session


async def open_read_session(database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """Yield the request's transaction that cannot write."""
    async with database.read() as session:
        yield session


# scope="function": the commit is over before the answer is sent. With FastAPI's default it would run afterwards, and a
# commit that fails would follow a 201 that the client has read.
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]
ReadSession = Annotated[AsyncSession, Depends(open_read_session, scope="function")]


RegistrationKey = Annotated[
    IdempotencyText | None,
    Header(
        alias="Idempotency-Key",
        description="The same key again, with the same e-mail and password, opens the account once. It belongs to "
        "that account: with another e-mail it is another key.",
    ),
]


async def _source(request: Request, settings: Settings) -> str:
    return source_of(address_of(request, settings.trusted_hops))


Source = Annotated[str, Depends(_source)]


async def password_holder(
    request: Request, database: DatabaseDep, passwords: PasswordsDep, throttle: ThrottleDep, source: Source
) -> User:
    """
    Return the person whose e-mail and password the request's body carries.

    Raises:
        CredentialsRefused: they do not belong together.
        TooManyAttempts: wait before the next attempt.
    """
    sent = await read_credentials(request)
    return await login.authenticate(
        database, passwords, throttle, email=sent.email, password=sent.password.get_secret_value(), source=source
    )


PasswordHolder = Annotated[User, Depends(password_holder)]

# Documents the header; the reading is `bearer_token`'s, whose refusal is a problem.
_bearer = HTTPBearer(auto_error=False, description="An access token from login or refresh.")


async def token_caller(request: Request, _documented: Annotated[object, Security(_bearer)]) -> TokenCaller:
    """
    Return whom the request's access token speaks for.

    Raises:
        Unauthorized: it carries no token, or one that does not hold.
    """
    verifier: TokenVerifier = request.state.verifier
    return await verifier.verify(bearer_token(request.headers.get("authorization")))


Caller = Annotated[TokenCaller, Depends(token_caller)]


async def current_user(caller: Caller, database: DatabaseDep) -> User:
    """
    Return the person behind the token, as they are now.

    Other services believe a token until it expires. Here the database is at hand, so a person who was disabled, or
    whose role has changed, must log in again at once.

    Raises:
        Unauthorized: the token does not hold, or no longer says what is so.
    """
    async with database.read() as session:
        user = await store.user_by_subject(session, uuid.UUID(caller.subject))
    if user is None or user.disabled_at is not None or user.role != caller.role:
        raise Unauthorized("The access token does not hold.", error="invalid_token")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


async def logged_in(caller: Caller, user: CurrentUser) -> User:
    """
    Return the person behind the token, who logged in for it.

    A token that an API key was traded for does not do: whoever finds a key could make others that outlive its
    revocation, and with an admin's key other admins.

    Raises:
        Forbidden: they did not.
    """
    if AuthMethod.PASSWORD not in caller.methods:
        raise Forbidden("Log in with the password for this.")
    return user


LoggedIn = Annotated[User, Depends(logged_in)]


async def admin(user: LoggedIn) -> User:
    """
    Return the person behind the token, who is an admin and logged in for it.

    Raises:
        Forbidden: they are not, or did not.
    """
    if user.role != Role.ADMIN:
        raise Forbidden
    return user


Admin = Annotated[User, Depends(admin)]
