"""Assemble the auth service."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from auth import routes
from auth.deps import State
from auth.keyring import Issuer, KeyRings
from auth.passwords import PROFILES, HashingPool, Passwords
from auth.refresh import successor_key
from auth.settings import AuthSettings
from auth.throttle import Throttle
from healthguard import __version__, http
from healthguard.body import BodyLimit
from healthguard.database import Database, open_database
from healthguard.health import Check, Health
from healthguard.logging import configure_logging
from healthguard.metrics import HttpMetrics
from healthguard.problems import Unavailable
from healthguard.telemetry import NO_TELEMETRY, configure_tracing
from healthguard.tokens import Keys, TokenVerifier

BODY_BYTES_MAX = 16 * 1024
"""The longest body is a log-in: an e-mail and a password of 4096 characters, each up to 4 bytes as UTF-8 or escaped."""

Lifespan = Callable[[AuthSettings], AbstractAsyncContextManager[State]]


def make_state(settings: AuthSettings, database: Database, passwords: Passwords) -> State:
    """Return the long-lived objects over *database* and *passwords*."""
    key_rings = KeyRings(database, settings.key_encryption_key_bytes())
    return State(
        settings=settings,
        database=database,
        passwords=passwords,
        throttle=Throttle(),
        issuer=Issuer(key_rings, settings),
        verifier=TokenVerifier(Keys(key_rings.jwks), settings.token_issuer, settings.token_audience),
        successor_key=successor_key(settings.key_encryption_key_bytes()),
    )


@contextlib.asynccontextmanager
async def real_state(settings: AuthSettings) -> AsyncIterator[State]:
    """Yield the state over the database of *settings*."""
    pool = HashingPool(threads=settings.hash_threads, queue_max=settings.hash_queue_max)
    try:
        async with open_database(settings, "auth") as database:
            yield make_state(settings, database, Passwords(PROFILES[settings.password_profile], pool))
    finally:
        pool.close()


def create_app(settings: AuthSettings, lifespan: Lifespan | None = None) -> FastAPI:
    """
    Return the auth service.

    Args:
        lifespan: yields the long-lived objects; `real_state` unless a test gives others.
    """
    health = Health("auth")

    @contextlib.asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[State]:
        configure_logging("auth", settings.log_level, settings.log_format)
        configure_tracing("auth", settings.otlp_endpoint)
        async with (lifespan or real_state)(settings) as state:
            key_rings = state["issuer"].key_rings
            # A database that is away now must not stop the start: the service becomes ready when it is back. A wrong
            # key-encryption key does stop it: that never heals by itself.
            with contextlib.suppress(Unavailable):
                await key_rings.get()
            health.checks = {"database": state["database"].check, "signing_keys": _check_keys(key_rings)}
            health.started = True
            yield state

    app = FastAPI(
        title="HealthGuard auth",
        version=__version__,
        summary="People, passwords, tokens, API keys and public keys.",
        lifespan=run,
        telemetry=NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,
    )
    # Added first, so that it stands inside what `install` adds: refusals get a request id, a log line and a metric.
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    http.install(app, health, HttpMetrics())
    for router in (routes.old, routes.v1, routes.well_known):
        app.include_router(router)
    return app


def _check_keys(key_rings: KeyRings) -> Check:
    async def check() -> None:
        await key_rings.get()

    return check
