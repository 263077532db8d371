"""OpenTelemetry, for those who collect traces: a span for each request, its stages as attributes.

On where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set, as the environment variables of OpenTelemetry's
SDK say (opentelemetry.io, "OTLP Exporter Configuration"). Needs the extra `tracing`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from cisi_runtime.errors import ServiceError

_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracing:
    """Spans over OTLP. Use `start_tracing`."""

    def __init__(self, provider: Any, tracer: Any, propagator: Any) -> None:
        self._provider, self._tracer, self._propagator = provider, tracer, propagator

    @contextlib.contextmanager
    def span(self, name: str, headers: Mapping[str, str], said: dict[str, Any]) -> Iterator[None]:
        """A span around the block, below the caller's where `headers` name it. said: becomes its attributes at the
        end, and gets the trace's id for the log at once."""
        parent = self._propagator.extract(dict(headers))
        with self._tracer.start_as_current_span(name, parent) as span:
            said["trace_id"] = f"{span.get_span_context().trace_id:032x}"
            try:
                yield
            finally:
                for key, value in said.items():
                    span.set_attribute(f"cisi.{key}", value)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def start_tracing(version: str) -> Tracing | None:
    """None where no endpoint is set. Raises ServiceError where one is set and OpenTelemetry is not installed."""
    if not any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"{_VARIABLES[0]} is set, and {error.name} is not installed: pip install 'cisi-net[tracing]'"
        ) from error
    resource = Resource.create({"service.name": "cisi-serve", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, provider.get_tracer("cisi-serve", version), TraceContextTextMapPropagator())
