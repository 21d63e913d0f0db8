"""Tracing: W3C Trace Context for every request, and OpenTelemetry spans if configured.

Spans are exported when OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like)
name an endpoint; otherwise its SDK is not imported. In both cases a request's ``traceparent`` is
returned with the request's own span in it, and its trace id appears in the log.

Source: https://www.w3.org/TR/trace-context/
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from random import SystemRandom
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cifar10.errors import SettingsError

HEADER: Final = b"traceparent"
ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_EXPORTER: Final = "opentelemetry-exporter-otlp-proto-http"

_propagator: Final = TraceContextTextMapPropagator()
_random: Final = SystemRandom()


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span."""

    trace: str
    """32 hexadecimal digits."""
    span: str
    """16 hexadecimal digits."""
    flags: int

    @classmethod
    def of(cls, value: bytes | None) -> "Parent | None":
        """Return the span that a ``traceparent`` names; None if it is missing or malformed."""
        if not value:
            return None
        context = _propagator.extract({"traceparent": value.decode("latin-1")})
        span = trace.get_current_span(context).get_span_context()
        return _parent(span) if span.is_valid else None

    def child(self) -> "Parent":
        """Return a new child span, for use when spans are not exported."""
        return Parent(self.trace, f"{_random.getrandbits(64) or 1:016x}", self.flags)

    def header(self) -> bytes:
        """Return this span as a ``traceparent`` header."""
        return f"00-{self.trace}-{self.span}-{self.flags:02x}".encode()


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment configures an endpoint for spans."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return any(environment.get(name) for name in ENDPOINT_VARIABLES)


def check_exporter() -> None:
    """Check that spans can be exported. Call it only where an endpoint is configured.

    Raises:
        SettingsError: the exporter's package is missing.
    """
    try:
        version(_EXPORTER)
    except PackageNotFoundError:
        message = f"{ENDPOINT_VARIABLES[0]} is set; sending spans needs: pip install {_EXPORTER}"
        raise SettingsError(message) from None


class Spans:
    """Exports one span per request, in the background. Create it after a worker is forked, because
    it starts a thread.

    Args:
        processor: span processor; None: one that exports over OTLP, configured by the environment.
    """

    def __init__(self, processor: Any = None) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        name = os.environ.get("OTEL_SERVICE_NAME") or "cifar10"
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor or _over_otlp())
        self._tracer = self._provider.get_tracer("service")

    def record(
        self, parent: Parent | None, method: str, route: str, status: int, seconds: float
    ) -> Parent:
        """Record an answered request and return its span."""
        context = None
        if parent is not None:
            above = trace.SpanContext(
                int(parent.trace, 16), int(parent.span, 16), True, trace.TraceFlags(parent.flags)
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(above))
        ended = time.time_ns()
        span = self._tracer.start_span(
            f"{method} {route}",
            context=context,
            kind=trace.SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
            },
            start_time=ended - int(seconds * 1e9),
        )
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end(ended)
        return _parent(span.get_span_context())

    def stop(self) -> None:
        """Export the remaining spans and stop."""
        self._provider.shutdown()


def _parent(span: trace.SpanContext) -> Parent:
    trace_id, span_id = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return Parent(trace_id, span_id, int(span.trace_flags))


def _over_otlp() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())
