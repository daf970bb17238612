"""
What makes an ASGI application a HealthGuard service: request ids, one log line and one metric per request, problems,
health and metrics routes. Each service's `app.py` calls `install` once.
"""

import os
import re
import time
from typing import Any

import structlog
from fastapi import FastAPI, Request
from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from healthguard import health, metrics, problems
from healthguard.health import Health
from healthguard.metrics import HttpMetrics
from healthguard.telemetry import context_from, is_traced, tracer

log = structlog.get_logger()

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
# Probes come every few seconds from each kubelet and scraper: they are counted, not logged.
_QUIET = frozenset({"/livez", "/readyz", "/metrics", "/health", "/health/live", "/health/ready"})
# A method is a client's free text; only these become a metric label.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """
    Give each request an id, a span, one log line and one metric; turn a fault of ours into a problem.

    It is plain ASGI, not Starlette's BaseHTTPMiddleware, which costs a task and a queue per request. It stands inside
    Starlette's own error middleware, so nothing reaches the server's traceback log, which would print exception texts.
    """

    def __init__(self, app: ASGIApp, http_metrics: HttpMetrics, *, trust_request_id: bool) -> None:
        self.app = app
        self.metrics = http_metrics
        self.trust_request_id = trust_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = (_sent_request_id(scope) if self.trust_request_id else None) or os.urandom(16).hex()
        scope["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        headers = scope["headers"]
        if not is_traced(headers):
            self._finish(scope, await self._answer(scope, receive, send, request_id), started)
            return
        with tracer.start_as_current_span("request", context_from(headers), trace.SpanKind.SERVER) as span:
            status = await self._answer(scope, receive, send, request_id)
            span.update_name(f"{_method_of(scope)} {route_of(scope)}")
            span.set_attribute("http.response.status_code", status)
            self._finish(scope, status, started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Have the request answered, with its id; return the status."""
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as exc:
            response = await problems.on_anything_else(Request(scope), exc)
            if not status:
                await response(scope, receive, send_with_id)
            status = response.status_code
        return status

    def _finish(self, scope: Scope, status: int, started: float) -> None:
        """Log and count by the route's template: a path may hold what a client typed."""
        endpoint, method, duration_s = route_of(scope), _method_of(scope), time.perf_counter() - started
        self.metrics.observe(endpoint, method, status, duration_s)
        if endpoint not in _QUIET:
            duration_ms = round(duration_s * 1000, 2)
            log.info("request_served", method=method, endpoint=endpoint, status=status, duration_ms=duration_ms)


class Faults:
    """
    Turn a fault of ours into a problem, further inside than `RequestContext` does.

    For a service with middlewares of its own: what they add to answers, a 500 should have, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; where its answer has begun already, whoever stands outside must end it."""
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as exc:
            if started or scope["type"] != "http":
                raise
            await (await problems.on_anything_else(Request(scope), exc))(scope, receive, send)


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def route_of(scope: Scope) -> str:
    """Return the template of the route that served the request, or `unmatched`."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unmatched")


def _sent_request_id(scope: Scope) -> str | None:
    """Return the caller's request id where it has the form of one."""
    for key, value in scope["headers"]:
        if key == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return None


def install(app: FastAPI, service_health: Health, http_metrics: HttpMetrics, *, trust_request_id: bool = True) -> None:
    """
    Make *app* a HealthGuard service. `serve` finds in `app.state` what it drains and counts by.

    Args:
        trust_request_id: take the id that a request brings, which behind the gateway is the gateway's. The gateway
            itself takes none: a client could make requests of its own pass for another's in the logs.
    """
    app.state.health, app.state.http_metrics = service_health, http_metrics
    app.add_middleware(RequestContext, http_metrics=http_metrics, trust_request_id=trust_request_id)
    problems.install(app)
    app.include_router(health.router(service_health))
    app.include_router(metrics.router(http_metrics.registry))
