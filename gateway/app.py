"""Assemble the gateway."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from random import Random

import aiohttp
import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway import images, openapi
from gateway.answers import Answers, MemoryAnswers, RedisAnswers
from gateway.calls import Calls
from gateway.compression import BYTES_MIN, LEVEL, Compression
from gateway.concurrency import ConcurrencyLimit
from gateway.credentials import Credentials
from gateway.deps import State
from gateway.discovery import DeclaredModel, read_models_file, watch_models_file
from gateway.headers import SecurityHeaders
from gateway.images import Decoder
from gateway.kubernetes import Cluster, in_cluster
from gateway.limits import CallerLimits, Rates
from gateway.metrics import PredictionMetrics
from gateway.model_tls import ModelTls
from gateway.open_inference import OpenInference
from gateway.open_inference_grpc import Service, credentials_from, start
from gateway.predictor import Predictor
from gateway.records_client import Records
from gateway.redis import Redis
from gateway.routes import anemia, auth, cancer, models, predictions, records, v2
from gateway.routes.reference import reference
from gateway.served import ServedModel, ServedModels
from gateway.settings import GatewaySettings
from gateway.shadows import Shadows
from gateway.uploads import UploadBudget, UploadLimits
from gateway.upstream import Upstream, session
from healthguard import __version__
from healthguard.health import Health
from healthguard.http import Faults, install
from healthguard.jwks import fetch_from
from healthguard.logging import frames_of
from healthguard.metrics import HttpMetrics
from healthguard.telemetry import NO_TELEMETRY
from healthguard.tls import trusting
from healthguard.tokens import Keys, TokenVerifier

log = structlog.get_logger()

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]

TRADES_AT_ONCE = 8
"""Connections to auth over which API keys are traded: log-ins, which are slow on purpose, have others."""
WATCHES_AT_ONCE = 4

TAGS = [
    {"name": "predictions", "description": "Make predictions and read them back."},
    {"name": "models", "description": "What is served."},
    {"name": "auth", "description": "People, passwords and tokens."},
    {"name": "open inference protocol", "description": "For clients of KServe and Triton; stores nothing."},
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
        # Their pages load scripts from wherever FastAPI says; ours is `routes.reference`.
        docs_url=None,
        redoc_url=None,
    )
    # What is added first stands innermost: a 500 has all headers, and a preflight has a request id.
    app.add_middleware(Faults)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "X-API-Key",
            "X-Patient",
            "X-Request-Timeout",
            "traceparent",
            "tracestate",
        ],
        expose_headers=[
            *(
                "Cache-Status",
                "Location",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-Id",
                "X-Total-Count",
            )
        ],
    )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Compression, minimum_size=BYTES_MIN, compresslevel=LEVEL)
    install(app, health, http_metrics, trust_request_id=False)
    # Those of the main job first: the router tries one after the other.
    for subject in (predictions, cancer, anemia, models, records, auth, v2):
        app.include_router(subject.router)
    if settings.assets_url is not None:
        app.include_router(reference(settings.assets_url))
    openapi.complete(app)
    return app


def _lifespan(settings: GatewaySettings, health: Health, metrics: PredictionMetrics) -> Lifespan:
    """Return what opens the long-lived objects at the start and closes them at the end, in the opposite order."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            yield await open_state(settings, metrics, health, stack)

    return lifespan


async def open_state(
    settings: GatewaySettings, metrics: PredictionMetrics, health: Health, stack: AsyncExitStack
) -> State:
    """
    Open what handlers need; *stack* closes it. *health* is told once it is known what is to be served.

    Raises:
        OSError, ValueError: the models file or the certificates cannot be read, or are not of their form.
    """

    # Spreads load; nobody gains by guessing it.
    random = Random()  # noqa: S311
    redis = _redis(settings, stack)
    rates = Rates(redis)
    services = await _services(settings, stack)
    served = _serve(settings, metrics, partial(_tell_what_is_served, health, metrics, services), stack)
    await _discover(settings, metrics, served, stack)
    _run(metrics.watch_lag(), stack)
    decoder = stack.enter_context(closing(Decoder(settings.decode_threads, settings.hmac_key())))
    calls = Calls(metrics, random)
    shadows = Shadows(calls, random, in_flight_max=settings.shadows_in_flight_max, timeout_s=settings.predict_timeout_s)
    stack.push_async_callback(shadows.close)
    predictor = Predictor(
        decoder, calls, shadows, _answers(settings, redis), sticky_key=settings.hmac_key(), random=random
    )
    verifier = TokenVerifier(services.keys, settings.token_issuer, settings.token_audience)
    state = State(
        credentials=Credentials(verifier, services.trades, rates),
        models=served.models,
        predictor=predictor,
        open_inference=OpenInference(health, served.models, calls, predictor),
        records=Records(services.records, settings.records_secret.get_secret_value(), metrics),
        auth=services.auth,
        upload_limits=_upload_limits(settings),
        upload_budget=UploadBudget(settings.uploads_bytes_max),
        forwarded_budget=UploadBudget(settings.forwarded_bytes_max),
        trusted_hops=settings.trusted_hops,
        trusted_proxies=settings.trusted_proxies,
        limits=_limits(settings, rates),
        predict_timeout_s=settings.predict_timeout_s,
    )
    await _listen_for_grpc(settings, state, stack)
    return state


@dataclass(frozen=True)
class _Services:
    """The ways to the services behind: each has a pool of its own, since one that hangs must not hold the others'."""

    keys: Keys
    trades: Upstream
    auth: Upstream
    records: Upstream


async def _services(settings: GatewaySettings, stack: AsyncExitStack) -> _Services:
    """
    Open the ways to auth and records.

    Raises:
        OSError: the certificates cannot be read.
    """
    trusted = trusting(settings.upstream_ca_file, settings.upstream_cert_file, settings.upstream_key_file)

    async def pool(connections_max: int = settings.upstream_connections_max) -> aiohttp.ClientSession:
        return await stack.enter_async_context(session(connections_max, trusted))

    return _Services(
        Keys(fetch_from(await pool(1), settings.jwks_url)),
        Upstream("auth", settings.auth_url, await pool(TRADES_AT_ONCE), settings.auth_timeout_s),
        Upstream("auth", settings.auth_url, await pool(), settings.auth_timeout_s),
        Upstream("records", settings.records_url, await pool(), settings.records_timeout_s),
    )


def _tell_what_is_served(
    health: Health, metrics: PredictionMetrics, services: _Services, models: Mapping[str, ServedModel]
) -> None:
    """Let readiness and metrics be those of what is served now."""
    metrics.follow_limits(models)
    checks = {f"model_{name}": model.ready for name, model in models.items()}
    health.checks = {"auth_keys": services.keys.ready, "records": services.records.ready, **checks}
    health.started = True


def _redis(settings: GatewaySettings, stack: AsyncExitStack) -> Redis | None:
    if settings.redis_url is None:
        return None
    redis = Redis(settings.redis_url.get_secret_value())
    stack.push_async_callback(redis.close)
    return redis


async def _listen_for_grpc(settings: GatewaySettings, state: State, stack: AsyncExitStack) -> None:
    """
    Open the port of the Open Inference Protocol over gRPC, where one is set.

    Raises:
        OSError: the port is taken, or the certificate cannot be read.
    """
    if settings.grpc_port is None:
        return
    credentials = None
    if settings.tls_cert_file and settings.tls_key_file:
        credentials = credentials_from(settings.tls_cert_file, settings.tls_key_file)
    service = Service(
        state["open_inference"], state["credentials"], state["limits"], timeout_s=settings.predict_timeout_s
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server = await start(service, f"{host}:{settings.grpc_port}", credentials)
    stack.push_async_callback(server.stop, settings.shutdown_s)


def _serve(
    settings: GatewaySettings,
    metrics: PredictionMetrics,
    changed: Callable[[Mapping[str, ServedModel]], None],
    stack: AsyncExitStack,
) -> ServedModels:
    """
    Return what keeps the served models, still without any.

    Raises:
        OSError, ValueError: the certificates cannot be read.
    """
    tls = None
    if settings.models_ca_file is not None:
        tls = ModelTls(
            settings.models_ca_file, settings.models_cert_file, settings.models_key_file, settings.models_server_name
        )
    served = ServedModels(
        interval_s=settings.status_interval_s,
        timeout_s=settings.status_timeout_s,
        new_limit=lambda: ConcurrencyLimit(settings.predictions_in_flight_max, settings.latency_target_s),
        tls=tls,
        drain_s=settings.predict_timeout_s,
        changed=changed,
    )
    stack.push_async_callback(served.close)
    _run(served.renew_certificates(), stack)
    return served


async def _discover(
    settings: GatewaySettings, metrics: PredictionMetrics, served: ServedModels, stack: AsyncExitStack
) -> None:
    """
    Learn what to serve, and go on learning.

    Raises:
        OSError, ValueError: the models file cannot be read or is not of its form, or this is no pod.
    """
    if settings.models_file is not None and settings.discovery == "file":
        found: list[DeclaredModel] = read_models_file(settings.models_file)
        served.apply(found)
        _run(watch_models_file(settings.models_file, served.apply), stack)
        return
    access = in_cluster(os.environ, settings.kubernetes_namespace)
    kubernetes = await stack.enter_async_context(session(WATCHES_AT_ONCE, trusting(None)))
    cluster = Cluster(kubernetes, access, served.apply)
    metrics.discovery_age.set_function(cluster.age_s)
    _run(cluster.watch(), stack)


def _upload_limits(settings: GatewaySettings) -> UploadLimits:
    return UploadLimits(
        settings.image_bytes_max,
        settings.image_pixels_max,
        settings.upload_timeout_s,
        images.USUAL | set(settings.image_kinds),
    )


def _limits(settings: GatewaySettings, rates: Rates) -> CallerLimits:
    return CallerLimits(
        rates,
        settings.requests_per_minute,
        anonymous=settings.anonymous_anemia,
        anonymous_per_minute=settings.anonymous_per_minute,
    )


def _answers(settings: GatewaySettings, redis: Redis | None) -> Answers | None:
    if not settings.answers_kept_max:
        return None
    return RedisAnswers(redis, settings.answers_kept_s) if redis else MemoryAnswers(settings.answers_kept_max)


def _run(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Do *work* beside the requests until *stack* closes."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_of_its_end)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


def _tell_of_its_end(task: asyncio.Task[None]) -> None:
    """Log work that ended though it never should: what it kept fresh is old from now on."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        log.error("background_work_ended", exception=type(exc).__qualname__, frames=frames_of(exc))
