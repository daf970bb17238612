"""Assemble the records service."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial

import aiohttp
from fastapi import FastAPI
from prometheus_client import Counter, Gauge

from healthguard import __version__, http
from healthguard.body import BodyLimit
from healthguard.database import open_database
from healthguard.expiry import forgetting_keys
from healthguard.health import Health
from healthguard.jwks import fetch_from
from healthguard.metrics import HttpMetrics
from healthguard.problems import responses
from healthguard.telemetry import NO_TELEMETRY
from healthguard.tls import trusting
from healthguard.tokens import Fetch, Keys, RememberingVerifier, TokenVerifier
from records import store
from records.cursors import Cursors
from records.deps import FromGateway, Resources, State
from records.problems import GatewayOnly
from records.pseudonyms import Pseudonyms
from records.routes import old_names, predictions
from records.settings import RecordsSettings

BODY_BYTES_MAX = 32 * 1024
"""
Our longest record has a recommendation of 2000 characters and a file name, each of up to 12 bytes as JSON escapes. Some
twenty usual ones, with their tokens, are stored together.
"""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def create_app(settings: RecordsSettings, lifespan: Lifespan | None = None) -> FastAPI:
    """
    Return the application.

    Args:
        lifespan: what builds the long-lived objects; tests give one whose keys come from an issuer of their own.
    """
    app = FastAPI(
        title="HealthGuard records",
        version=__version__,
        lifespan=lifespan or (lambda app: _lifespan(app, settings)),
        telemetry=NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,
        # A redirect to the path with or without a slash would repeat the Host header that the client sent.
        redirect_slashes=False,
    )
    app.state.metrics = HttpMetrics()
    # Added first, so that it stands inside what `install` adds: a refusal has a request id, a log line and a metric.
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    http.install(app, Health("records"), app.state.metrics)
    # Probes and metrics are not behind it: the kubelet and scrapers have no certificate.
    for router in (predictions.router, old_names.router):
        app.include_router(router, dependencies=[FromGateway], responses=responses(GatewayOnly))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: RecordsSettings) -> AsyncIterator[State]:
    """Run with auth's published keys."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(settings.upstream_ca_file))) as session,
        running(app, settings, fetch_from(session, settings.jwks_url)) as state,
    ):
        yield state


@asynccontextmanager
async def running(app: FastAPI, settings: RecordsSettings, fetch: Fetch) -> AsyncIterator[State]:
    """Build what lives as long as the process, and run what runs beside the requests."""
    keys = Keys(fetch)
    life = timedelta(hours=settings.idempotency_life_h)
    root = settings.pseudonym_key_bytes()
    registry = app.state.metrics.registry
    async with (
        open_database(settings, "records", synchronous_commit=settings.synchronous_commit) as database,
        forgetting_keys(database, partial(store.forget_keys, life)),
    ):
        Gauge(
            "healthguard_records_connections_in_use", "Connections lent to requests.", registry=registry
        ).set_function(database.connections_in_use)
        health: Health = app.state.health
        health.checks = {"database": database.check, "token_keys": keys.ready}
        health.started = True
        yield State(
            resources=Resources(
                database=database,
                verifier=RememberingVerifier(TokenVerifier(keys, settings.token_issuer, settings.token_audience)),
                pseudonyms=Pseudonyms(root),
                cursors=Cursors(root),
                gateway_secret=settings.gateway_secret,
                gateway_name=settings.gateway_name,
                idempotency_life=life,
                saved=Counter("healthguard_records_saved", "Records saved.", ["source"], registry=registry),
            )
        )
