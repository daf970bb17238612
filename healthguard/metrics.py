"""Prometheus metrics that every service has: requests, errors and durations by route, never by path or caller."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# From 1 ms to 10 s: a health check to the longest prediction that is still worth waiting for.
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HttpMetrics:
    """The metrics of an HTTP service, in a registry of its own so that two apps in one process don't clash."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "healthguard_api_requests", "Requests served.", ["endpoint", "method"], registry=self.registry
        )
        self.errors = Counter(
            "healthguard_api_errors", "Requests answered with a 5xx.", ["endpoint"], registry=self.registry
        )
        self.duration = Histogram(
            "healthguard_api_request_duration_seconds",
            "Time from the first byte of the request's head to the last of the answer.",
            ["endpoint"],
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self.refused = Counter(
            "healthguard_requests_refused",
            "Requests and connections that the server refused before the application heard of them.",
            ["problem"],
            registry=self.registry,
        )

    def observe(self, endpoint: str, method: str, status: int, duration_s: float) -> None:
        """Count one request."""
        self.requests.labels(endpoint, method).inc()
        self.duration.labels(endpoint).observe(duration_s)
        if status >= 500:
            self.errors.labels(endpoint).inc()


def router(registry: CollectorRegistry) -> APIRouter:
    """Return the route `/metrics` over *registry*."""
    routes = APIRouter(tags=["health"])

    @routes.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
