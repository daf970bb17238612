"""Assemble the auth service."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI

from auth import routes, store
from auth.deps import State
from auth.keyring import Issuer, KeyRings
from auth.passwords import PROFILES, HashingPool, Passwords
from auth.refresh import successor_key
from auth.settings import AuthSettings
from auth.throttle import Throttle
from healthguard import __version__, http
from healthguard.body import BodyLimit
from healthguard.database import Database, open_database
from healthguard.expiry import forgetting_keys
from healthguard.health import Check, Health
from healthguard.metrics import HttpMetrics
from healthguard.problems import Unavailable
from healthguard.telemetry import NO_TELEMETRY
from healthguard.tokens import Keys, TokenVerifier

BODY_BYTES_MAX = 16 * 1024
"""The longest body is a log-in: an e-mail and a password of 4096 characters, each up to 4 bytes as UTF-8 or escaped."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def create_app(settings: AuthSettings, lifespan: Lifespan | None = None) -> FastAPI:
    """
    Return the auth service.

    Args:
        lifespan: what builds the long-lived objects; tests give one with a database and cheap hashes of their own.
    """
    app = FastAPI(
        title="HealthGuard auth",
        version=__version__,
        summary="People, passwords, tokens, API keys and public keys.",
        lifespan=lifespan or (lambda app: _lifespan(app, settings)),
        telemetry=NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,
        # A redirect to the path with or without a slash would repeat the Host header that the client sent.
        redirect_slashes=False,
    )
    # Added first, so that it stands inside what `install` adds: refusals get a request id, a log line and a metric.
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    http.install(app, Health("auth"), HttpMetrics())
    for router in (routes.old, routes.v1, routes.well_known):
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: AuthSettings) -> AsyncIterator[State]:
    """Run over the database of *settings*, with hashes as costly as they say."""
    pool = HashingPool(threads=settings.hash_threads, queue_max=settings.hash_queue_max)
    try:
        async with (
            open_database(settings, "auth") as database,
            running(app, settings, database, Passwords(PROFILES[settings.password_profile], pool)) as state,
        ):
            yield state
    finally:
        pool.close()


@asynccontextmanager
async def running(
    app: FastAPI, settings: AuthSettings, database: Database, passwords: Passwords
) -> AsyncIterator[State]:
    """Build what lives as long as the process, over *database* and *passwords*, and run what runs beside requests."""
    key_encryption_key = settings.key_encryption_key_bytes()
    key_rings = KeyRings(database, key_encryption_key)
    # A database that is away now must not stop the start: the service becomes ready when it is back. A wrong
    # key-encryption key does stop it: that never heals by itself.
    with suppress(Unavailable):
        await key_rings.get()
    health: Health = app.state.health
    health.checks = {"database": database.check, "signing_keys": _check_keys(key_rings)}
    health.started = True
    async with forgetting_keys(database, partial(store.forget_keys, settings.idempotency_life())):
        yield State(
            settings=settings,
            database=database,
            passwords=passwords,
            throttle=Throttle(),
            issuer=Issuer(key_rings, settings),
            verifier=TokenVerifier(Keys(key_rings.jwks), settings.token_issuer, settings.token_audience),
            successor_key=successor_key(key_encryption_key),
        )


def _check_keys(key_rings: KeyRings) -> Check:
    async def check() -> None:
        await key_rings.get()

    return check
