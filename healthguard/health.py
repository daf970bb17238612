"""
Health of a service: for the kubelet, for people, and for old monitors.

`/livez`: this process lives. `/readyz`: this pod takes requests (started, not draining). `/health`, `/health/live`:
alive, for people. `/health/ready`: everything that the service needs answers. The kubelet must not use the last one:
one bad model would take every gateway out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from healthguard import __version__

log = structlog.get_logger()

CHECK_TIMEOUT_S = 2.0

Check = Callable[[], Awaitable[None]]
"""Returns when the thing is well, raises when it is not."""


@dataclass
class Health:
    """What a process knows about itself; `serve` and the lifespan set it, the routes read it."""

    service: str
    started: bool = False
    draining: bool = False
    checks: Mapping[str, Check] = field(default_factory=dict)

    def takes_requests(self) -> bool:
        """Tell whether new requests should come here."""
        return self.started and not self.draining


async def run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run all checks at once, each under a deadline; return `ok` or `unavailable` by name."""

    async def run(name: str, check: Check) -> str:
        try:
            await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
        except Exception as exc:
            log.warning("health_check_failed", check=name, exception=type(exc).__qualname__)
            return "unavailable"
        return "ok"

    results = await asyncio.gather(*(run(name, check) for name, check in checks.items()))
    return dict(zip(checks, results, strict=True))


def router(health: Health) -> APIRouter:
    """Return the health routes over *health*."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="This process lives")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @routes.get("/readyz", summary="This pod takes requests", responses={503: {"description": "Starting or draining"}})
    async def readyz() -> JSONResponse:
        ready = health.takes_requests()
        return JSONResponse({"status": "ready" if ready else "unavailable"}, 200 if ready else 503)

    @routes.get("/health/live", summary="Alive")
    @routes.get("/health", summary="Alive, with name and version")
    async def alive() -> JSONResponse:
        return JSONResponse({"status": "healthy", "service": health.service, "version": __version__})

    @routes.get(
        "/health/ready", summary="All that this service needs", responses={503: {"description": "Something is away"}}
    )
    async def ready() -> JSONResponse:
        results = await run_checks(health.checks)
        well = health.takes_requests() and all(result == "ok" for result in results.values())
        return JSONResponse({"status": "ready" if well else "unavailable", "checks": results}, 200 if well else 503)

    return routes
