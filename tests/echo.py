"""A HealthGuard service of two routes, for tests of what stands before every service."""

from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from healthguard.health import Health
from healthguard.http import install
from healthguard.metrics import HttpMetrics

LONG = 8_000_000


@dataclass
class Echo:
    """Answers with what it was sent, and remembers the paths."""

    app: FastAPI = field(default_factory=FastAPI)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Add its routes."""

        @self.app.post("/echo")
        async def echo(request: Request) -> dict[str, str]:
            self.seen.append("/echo")
            return {"body": (await request.body()).decode(), "late": request.headers.get("x-late", "")}

        @self.app.get("/")
        async def root() -> str:
            self.seen.append("/")
            return "here"

        @self.app.get("/smuggled")
        async def smuggled() -> str:
            self.seen.append("/smuggled")
            return "here"

        @self.app.get("/long")
        async def long() -> PlainTextResponse:
            return PlainTextResponse("a" * LONG)

        install(self.app, Health("echo", started=True), HttpMetrics())
