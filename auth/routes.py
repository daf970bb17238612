"""
Auth over HTTP: `/v1/auth/…`, and the names that clients of the replaced application use (`/auth/…`).

The gateway adds `/api` before both.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from auth import api_keys, login, registration, store
from auth.credentials import CREDENTIALS_BODY
from auth.deps import (
    Admin,
    Caller,
    CurrentUser,
    DatabaseDep,
    IssuerDep,
    LoggedIn,
    PasswordHolder,
    PasswordsDep,
    ReadSession,
    RegistrationKey,
    Session,
    Settings,
    Source,
    SuccessorKey,
    ThrottleDep,
)
from auth.keyring import Issuer
from auth.login import Refreshable, id_of
from auth.passwords import check_new_password
from auth.problems import (
    ApiKeyRefused,
    ApiKeyShown,
    CredentialsRefused,
    EmailTaken,
    PasswordRefused,
    RefreshRefused,
    TooManyApiKeys,
    TooManyAttempts,
)
from auth.refresh import RefreshToken
from auth.registration import Applicant
from auth.schemas import (
    AccessToken,
    ApiKeyInfo,
    ApiKeyList,
    ApiKeyTrade,
    CreatedApiKey,
    JwkSet,
    Login,
    NewApiKey,
    Person,
    PersonChange,
    PersonList,
    RefreshRequest,
    Registered,
    Registration,
    Verification,
)
from auth.settings import AuthSettings
from auth.signing import AuthMethod
from auth.store import KeyUse
from auth.tables import ApiKey, User
from healthguard.idempotency import IdempotencyKey, fingerprint
from healthguard.problems import (
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    Problem,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    responses,
)
from healthguard.tokens import Role

API_KEYS_MAX = 20
API_KEYS_LISTED_MAX = 100
JWKS_CACHE_S = 60
"""For how long a cache may keep the public keys; a tenth of the time from a key's publication to its first use."""

old = APIRouter(prefix="/auth", tags=["the names of the replaced application"])
v1 = APIRouter(prefix="/v1/auth", tags=["auth"])
well_known = APIRouter(tags=["auth"])

# Answers that hold a token or a person must not stay in a cache.
_NO_STORE = {"Cache-Control": "no-store"}


def _with_body(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the problems of a path that takes a body."""
    return responses(InvalidRequest, PayloadTooLarge, *kinds)


# Registration and log-in


_REGISTER_PROBLEMS = _with_body(EmailTaken, PasswordRefused, TooManyAttempts, Unavailable)


@old.post("/register", status_code=201, responses=_REGISTER_PROBLEMS)
@v1.post("/register", status_code=201, responses=_REGISTER_PROBLEMS)
async def register(
    *,
    body: Registration,
    settings: Settings,
    passwords: PasswordsDep,
    database: DatabaseDep,
    throttle: ThrottleDep,
    source: Source,
    key: RegistrationKey = None,
) -> Registered:
    """
    Open an account; everyone who registers is a patient.

    The same `Idempotency-Key` again, with the same e-mail and password, answers with the account that is there.
    """
    applicant = Applicant(body.email, body.password.get_secret_value(), source)
    check_new_password(applicant.password, email=body.email, length_min=settings.password_length_min)
    user = await registration.register(
        database, passwords, throttle, applicant, key=key, key_life=settings.idempotency_life()
    )
    return Registered(id=id_of(user), email=user.email, created_at=user.created_at)


_LOGIN_PROBLEMS = _with_body(CredentialsRefused, TooManyAttempts, UnsupportedMedia, Unavailable)


@old.post("/login", responses=_LOGIN_PROBLEMS, openapi_extra=CREDENTIALS_BODY)
async def log_in_for_access(
    user: PasswordHolder, issuer: IssuerDep, settings: Settings, response: Response
) -> AccessToken:
    """Log in; the answer has no refresh token, since the clients of this name know none."""
    return await _access(user, AuthMethod.PASSWORD, settings.access_token_s, issuer, response)


@v1.post("/login", responses=_LOGIN_PROBLEMS, openapi_extra=CREDENTIALS_BODY)
async def log_in(
    user: PasswordHolder, database: DatabaseDep, issuer: IssuerDep, settings: Settings, response: Response
) -> Login:
    """Log in; the answer has an access token, and a refresh token to get the next one with."""
    begun = await login.begin(database, user, timedelta(seconds=settings.refresh_token_s))
    return await _login(begun, issuer, settings, response)


async def _access(user: User, method: AuthMethod, life_s: int, issuer: Issuer, response: Response) -> AccessToken:
    token = await issuer.access_token(user, method, life_s)
    response.headers.update(_NO_STORE)
    return AccessToken(access_token=token.text, expires_in=token.expires_in_s)


async def _login(state: Refreshable, issuer: Issuer, settings: AuthSettings, response: Response) -> Login:
    access = await _access(state.user, AuthMethod.PASSWORD, settings.access_token_s, issuer, response)
    return Login(**access.model_dump(), refresh_token=str(state.token), refresh_expires_at=state.expires_at)


@v1.post("/refresh", responses=_with_body(RefreshRefused, Unavailable))
async def refresh(
    *,
    body: RefreshRequest,
    database: DatabaseDep,
    key: SuccessorKey,
    issuer: IssuerDep,
    settings: Settings,
    response: Response,
) -> Login:
    """
    Replace a refresh token by its successor, and get an access token.

    A token that was replaced more than ten seconds ago ends the log-in: somebody else may hold it.
    """
    token = RefreshToken.parse(body.refresh_token.get_secret_value())
    return await _login(await login.refresh(database, key, token), issuer, settings, response)


@v1.post("/logout", status_code=204, responses=_with_body(RefreshRefused, Unavailable))
async def log_out(body: RefreshRequest, session: Session) -> None:
    """
    End a log-in by its newest refresh token or the one before; again is no error.

    Its access tokens go on until they expire, so clients forget theirs.
    """
    token = RefreshToken.parse(body.refresh_token.get_secret_value())
    if not await store.end_family(session, token.family, token.hash()):
        raise RefreshRefused


@old.get("/verify", responses=responses(Unauthorized, Unavailable))
@v1.get("/verify", responses=responses(Unauthorized, Unavailable))
async def verify(caller: Caller, user: CurrentUser, response: Response) -> Verification:
    """Say whom an access token speaks for."""
    response.headers.update(_NO_STORE)
    return Verification(
        user_id=id_of(user), subject=user.subject, email=user.email, role=caller.role, expires_at=caller.expires_at
    )


@v1.get("/me", responses=responses(Unauthorized, Unavailable))
async def me(user: CurrentUser, response: Response) -> Person:
    """Say who the caller is."""
    response.headers.update(_NO_STORE)
    return _person(user)


# API keys


_CREATE_KEY_PROBLEMS = _with_body(
    Unauthorized, Forbidden, TooManyApiKeys, ApiKeyShown, IdempotencyMismatch, Unavailable
)


@v1.post("/keys", status_code=201, responses=_CREATE_KEY_PROBLEMS)
async def create_key(
    *,
    body: NewApiKey,
    user: LoggedIn,
    session: Session,
    settings: Settings,
    response: Response,
    key: IdempotencyKey = None,
) -> CreatedApiKey:
    """
    Make an API key for the caller, who logged in; this answer is the only one that shows it.

    The same `Idempotency-Key` again makes no other key: it is a 409 that names the key which is there, to be revoked if
    the first answer was lost. A token that an API key was traded for neither makes, lists nor revokes keys, and does
    not manage people.
    """
    key_id = uuid.uuid4()
    working = await store.working_api_keys(session, id_of(user))
    if key is not None:
        asked = fingerprint("create API key", body.model_dump_json())
        use = KeyUse(id_of(user), key, asked, str(key_id))
        if (made := await store.use_key(session, use, settings.idempotency_life())) is not None:
            raise ApiKeyShown(key_id=made)
    if working >= API_KEYS_MAX:
        raise TooManyApiKeys
    return await _new_key(key_id, body, user, session, response)


async def _new_key(
    key_id: uuid.UUID, body: NewApiKey, user: User, session: AsyncSession, response: Response
) -> CreatedApiKey:
    key = api_keys.new_key()
    days = body.expires_in_days
    row = await store.insert_api_key(
        session,
        ApiKey(
            id=key_id,
            user_id=id_of(user),
            name=body.name,
            prefix=api_keys.prefix_of(key),
            key_hash=api_keys.hash_of(key),
            created_at=(created_at := await store.now(session)),
            expires_at=None if days is None else created_at + timedelta(days=days),
        ),
    )
    response.headers.update(_NO_STORE)
    return CreatedApiKey(**_key_info(row).model_dump(), key=key)


@v1.get("/keys", responses=responses(Unauthorized, Forbidden, Unavailable))
async def list_keys(user: LoggedIn, session: ReadSession, response: Response) -> ApiKeyList:
    """List the caller's API keys, the newest first; the last hundred of them."""
    response.headers.update(_NO_STORE)
    rows = await store.api_keys_of(session, id_of(user), limit=API_KEYS_LISTED_MAX)
    return ApiKeyList(items=[_key_info(row) for row in rows])


@v1.delete("/keys/{key_id}", status_code=204, responses=responses(Unauthorized, Forbidden, NotFound, Unavailable))
async def revoke_key(key_id: uuid.UUID, user: LoggedIn, session: Session) -> None:
    """Revoke one of the caller's API keys; tokens that it was traded for end within minutes."""
    if not await store.revoke_api_key(session, user_id=id_of(user), key_id=key_id):
        raise NotFound


@v1.post("/token", responses=_with_body(ApiKeyRefused, Unavailable))
async def trade_key(
    body: ApiKeyTrade, response: Response, database: DatabaseDep, issuer: IssuerDep, settings: Settings
) -> AccessToken:
    """Trade an API key for an access token of a few minutes."""
    key = body.api_key.get_secret_value()
    if not api_keys.is_well_formed(key):
        raise ApiKeyRefused
    async with database.write() as session:
        user = await store.use_api_key(session, api_keys.hash_of(key))
    if user is None:
        raise ApiKeyRefused
    return await _access(user, AuthMethod.API_KEY, settings.api_key_token_s, issuer, response)


# People, for admins


@v1.get("/users", responses=responses(Unauthorized, Forbidden, Unavailable))
async def list_users(
    _admin: Admin,
    session: ReadSession,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> PersonList:
    """List people, the newest first."""
    response.headers.update(_NO_STORE)
    rows = await store.users_page(session, before_id=cursor, limit=limit + 1)
    items = [_person(user) for user in rows[:limit]]
    return PersonList(items=items, next_cursor=str(items[-1].id) if len(rows) > limit else None)


@v1.patch("/users/{user_id}", responses=_with_body(Unauthorized, Forbidden, NotFound, IdempotencyMismatch, Unavailable))
async def change_user(
    *,
    user_id: Annotated[int, Path(ge=1, le=2**63 - 1)],
    body: PersonChange,
    by: Admin,
    session: Session,
    settings: Settings,
    response: Response,
    key: IdempotencyKey = None,
) -> Person:
    """
    Set a person's role, disable them, or enable them again; either ends their log-ins.

    The same `Idempotency-Key` again, for the same change, changes nothing more, and answers with the person as they
    are: a repeat that arrives late undoes no later change, and ends no log-in that began since.
    """
    if user_id == by.id:
        # An installation could otherwise be left without an admin by a slip.
        raise Forbidden("Another admin must change this account.")
    if key is not None and await _is_changed(session, by, key, (user_id, body), settings):
        user = await store.user_by_id(session, user_id)
    else:
        user = await store.update_user(session, user_id, role=body.role, disabled=body.disabled)
    if user is None:
        raise NotFound
    response.headers.update(_NO_STORE)
    return _person(user)


async def _is_changed(
    session: AsyncSession, by: User, key: str, change: tuple[int, PersonChange], settings: AuthSettings
) -> bool:
    """Tell whether *change*, of whom and to what, was made under *key* before; if not, it is from now on."""
    user_id, wished = change
    asked = fingerprint("change person", str(user_id), wished.model_dump_json())
    use = KeyUse(id_of(by), key, asked, str(user_id))
    return await store.use_key(session, use, settings.idempotency_life()) is not None


# Public keys


@well_known.get("/.well-known/jwks.json", responses=responses(Unavailable))
async def jwks(issuer: IssuerDep, response: Response) -> JwkSet:
    """Publish the keys that verify access tokens."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_CACHE_S}"
    return JwkSet(**(await issuer.key_rings.get()).jwks(datetime.now(UTC)))


def _person(user: User) -> Person:
    return Person(
        id=id_of(user),
        subject=user.subject,
        email=user.email,
        role=Role(user.role),
        created_at=user.created_at,
        disabled_at=user.disabled_at,
    )


def _key_info(row: ApiKey) -> ApiKeyInfo:
    return ApiKeyInfo(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
