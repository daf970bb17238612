"""Assemble the gateway."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from random import Random

import aiohttp
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway import openapi
from gateway.deps import State
from gateway.discovery import read_models_file
from gateway.headers import SecurityHeaders
from gateway.images import Decoder
from gateway.limits import AnonymousLimit
from gateway.metrics import PredictionMetrics
from gateway.predictor import Predictor
from gateway.records_client import Records
from gateway.routes import anemia, auth, cancer, models, predictions, records
from gateway.served import Watch, connect_model
from gateway.settings import GatewaySettings
from gateway.uploads import UploadBudget, UploadLimits
from gateway.upstream import Upstream, session
from healthguard import __version__
from healthguard.health import Health
from healthguard.http import install
from healthguard.jwks import fetch_from
from healthguard.metrics import HttpMetrics
from healthguard.telemetry import NO_TELEMETRY
from healthguard.tokens import Keys, TokenVerifier

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]

TAGS = [
    {"name": "predictions", "description": "Make predictions and read them back."},
    {"name": "models", "description": "What is served."},
    {"name": "auth", "description": "People, passwords and tokens."},
    {"name": "breast cancer, old names", "description": "Paths of the application that HealthGuard replaced."},
    {"name": "anemia, old names", "description": "Paths of the application that HealthGuard replaced."},
    {"name": "history, old names", "description": "Paths of the applications that HealthGuard replaced."},
    {"name": "health", "description": "For the kubelet, people and monitors."},
]


def create_app(settings: GatewaySettings, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the gateway as an ASGI application; nothing is opened before its lifespan begins."""
    health = Health("gateway")
    http_metrics = HttpMetrics()
    app = FastAPI(
        title="HealthGuard",
        summary="Medical image models, and the clinical record that belongs to them.",
        version=__version__,
        openapi_tags=TAGS,
        lifespan=lifespan or _lifespan(settings, health, PredictionMetrics(http_metrics.registry)),
        telemetry=NO_TELEMETRY,
        # A redirect would repeat the Host header that a client sent, and take an ingress's https for http.
        redirect_slashes=False,
        # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    # Before the other two, and so inside them: the 500s that it makes then have their headers, too.
    install(app, health, http_metrics, trust_request_id=False)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Patient"],
        expose_headers=["Location", "Retry-After", "X-Request-Id", "X-Total-Count"],
    )
    app.add_middleware(SecurityHeaders)
    for subject in (predictions, models, records, auth, cancer, anemia):
        app.include_router(subject.router)
    openapi.complete(app)
    return app


def _lifespan(settings: GatewaySettings, health: Health, metrics: PredictionMetrics) -> Lifespan:
    """Return what opens the long-lived objects at the start and closes them at the end, in the opposite order."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            state = await open_state(settings, metrics, stack)
            health.checks = {
                "auth_keys": state["verifier"].keys.ready,
                "records": state["records"].upstream.ready,
                **{f"model_{name}": model.ready for name, model in state["models"].items()},
            }
            health.started = True
            yield state

    return lifespan


async def open_state(settings: GatewaySettings, metrics: PredictionMetrics, stack: AsyncExitStack) -> State:
    """
    Open what handlers need; *stack* closes it.

    Raises:
        OSError, ValueError: the models file cannot be read, or is not of its form.
    """
    models = {declared.name: connect_model(declared) for declared in read_models_file(settings.models_file)}
    watch = Watch(models, interval_s=settings.status_interval_s, timeout_s=settings.status_timeout_s)
    watch.start()
    stack.push_async_callback(watch.close)
    decoder = Decoder(settings.decode_threads, settings.hmac_key())
    stack.callback(decoder.close)

    async def pool(connections_max: int = settings.upstream_connections_max) -> aiohttp.ClientSession:
        """Open a pool for one service: one that hangs must not hold what the others need."""
        return await stack.enter_async_context(session(connections_max, settings.upstream_ca_file))

    return State(
        verifier=TokenVerifier(
            Keys(fetch_from(await pool(1), settings.jwks_url)), settings.token_issuer, settings.token_audience
        ),
        models=models,
        predictor=Predictor(
            decoder,
            metrics,
            timeout_s=settings.predict_timeout_s,
            in_flight_max=settings.predictions_in_flight_max,
            # Spreads load; nobody gains by guessing it.
            random=Random(),  # noqa: S311
        ),
        records=Records(
            Upstream("records", settings.records_url, await pool(), settings.records_timeout_s),
            settings.records_secret.get_secret_value(),
            metrics,
        ),
        auth=Upstream("auth", settings.auth_url, await pool(), settings.auth_timeout_s),
        upload_limits=UploadLimits(settings.image_bytes_max, settings.image_pixels_max, settings.upload_timeout_s),
        upload_budget=UploadBudget(settings.uploads_bytes_max),
        forwarded_budget=UploadBudget(settings.forwarded_bytes_max),
        trusted_hops=settings.trusted_hops,
        anonymous=AnonymousLimit(allowed=settings.anonymous_anemia, per_minute=settings.anonymous_per_minute),
    )
