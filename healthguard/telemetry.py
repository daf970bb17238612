"""Traces by OpenTelemetry: W3C trace context in and out, spans over OTLP/HTTP where an endpoint is set."""

from collections.abc import Sequence

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

_NO_PROVIDER = trace.get_tracer_provider()
"""What stands in for a provider until there is one."""


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


def is_traced(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """
    Tell whether a request belongs to a trace: the caller's, or ours where traces are recorded.

    Otherwise there is nothing to carry on, and even spans that nobody records would cost more than routing.
    """
    recording = trace.get_tracer_provider() is not _NO_PROVIDER
    return recording or any(name == b"traceparent" for name, _ in headers)


def context_from(headers: Sequence[tuple[bytes, bytes]]) -> Context:
    """Return the trace context that a caller sent."""
    return propagate.extract({name.decode("latin-1"): value.decode("latin-1") for name, value in headers})


def headers_for_call() -> dict[str, str]:
    """Return the headers that carry the current trace to the next service; empty where nothing is traced."""
    headers: dict[str, str] = {}
    if trace.get_current_span() is not trace.INVALID_SPAN:
        propagate.inject(headers)
    return headers


def metadata_for_call() -> list[tuple[str, str]]:
    """Return the same for a call over gRPC: the trace's own two fields, and nothing else that a client has sent."""
    return [(name, value) for name, value in headers_for_call().items() if name in ("traceparent", "tracestate")]
