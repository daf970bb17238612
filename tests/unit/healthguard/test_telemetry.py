"""FastAPI's own telemetry, which writes what a client sent, is off in every service."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from healthguard import http
from healthguard.health import Health
from healthguard.metrics import HttpMetrics
from healthguard.telemetry import NO_TELEMETRY, headers_for_call
from tests.asgi import client_of

ROOT = Path(__file__).parents[3]
SERVICES = ("gateway", "auth", "records")
PACKAGES = (*SERVICES, "serving", "healthguard")


def applications(package: str) -> Iterator[ast.Call]:
    """Yield every call in *package* that makes a FastAPI application."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "FastAPI":
                yield node


@pytest.mark.parametrize("package", PACKAGES)
def test_application_has_no_telemetry_of_fastapi(package: str) -> None:
    """Whoever makes an application says so; a service that made none would show that this test looks wrongly."""
    made = list(applications(package))

    assert made or package not in SERVICES
    for call in made:
        assert {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}.get("telemetry") == "NO_TELEMETRY"


async def spans_of(config: TelemetryConfig) -> list[str]:
    """Return, as text, what FastAPI traces of a request whose path, query and body hold a canary."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = FastAPI(telemetry={**config, "tracer_provider": provider})

    @app.get("/people/{name}")
    async def person(name: str, age: int) -> None: ...

    async with client_of(app) as client:
        await client.get("/people/canary?age=canary")
    provider.shutdown()
    return [span.to_json() for span in exporter.get_finished_spans()]


async def test_no_telemetry_traces_nothing() -> None:
    """With the default a client's words are in the spans; with ours there is no span."""
    assert any("canary" in span for span in await spans_of({}))
    assert await spans_of(NO_TELEMETRY) == []


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("sent", [{}, {"traceparent": TRACE}], ids=["untraced", "traced"])
async def test_trace_of_a_caller_is_carried_on(sent: dict[str, str]) -> None:
    """Also where we record none ourselves; where the caller sends none, none is made up."""
    app, carried = FastAPI(telemetry=NO_TELEMETRY), []
    http.install(app, Health("test"), HttpMetrics())

    @app.get("/next")
    async def call_next() -> None:
        carried.append(headers_for_call())

    async with client_of(app) as client:
        await client.get("/next", headers=sent)
    assert carried == [sent]


async def test_every_request_is_traced_once_there_is_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span each, named by the route's template."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(http, "tracer", provider.get_tracer("test"))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    app = FastAPI(telemetry=NO_TELEMETRY)
    http.install(app, Health("test"), HttpMetrics())

    @app.get("/people/{name}")
    async def person(name: str) -> None: ...

    async with client_of(app) as client:
        await client.get("/people/jane")
    provider.shutdown()
    (span,) = exporter.get_finished_spans()
    assert (span.name, dict(span.attributes or {})) == ("GET /people/{name}", {"http.response.status_code": 200})
