"""Traces by OpenTelemetry: W3C trace context in and out, spans over OTLP/HTTP where an endpoint is set."""

from collections.abc import Mapping

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from healthguard import __version__

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""
For every `FastAPI(telemetry=…)`: its own telemetry would write paths, queries, the errors of bodies and the texts of
exceptions, all of which can hold patient data. `healthguard.http` has ours.
"""

tracer = trace.get_tracer("healthguard")
"""Spans cost nothing until `configure_tracing` was called with an endpoint."""


def configure_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Send this process's spans to *otlp_endpoint*; do nothing where none is set."""
    if otlp_endpoint is None:
        return
    # Imported only where it is used: most installations trace nothing, and it costs each process 4 MB.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    trace.set_tracer_provider(provider(service, OTLPSpanExporter(endpoint=otlp_endpoint)))


def provider(service: str, exporter: SpanExporter) -> TracerProvider:
    """Return a provider that batches spans, in a bounded queue, to *exporter*."""
    made = TracerProvider(resource=Resource.create({SERVICE_NAME: service, SERVICE_VERSION: __version__}))
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def context_from(headers: Mapping[str, str]) -> Context:
    """Return the trace context that a caller sent."""
    return propagate.extract(headers)


def headers_for_call() -> dict[str, str]:
    """Return the headers that carry the current trace to the next service; empty where nothing is traced."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
