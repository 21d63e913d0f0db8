"""The trace that a request belongs to (W3C Trace Context), and a span for it where they are sent.

Spans are sent when the environment says where, in OpenTelemetry's own variables
(``OTEL_EXPORTER_OTLP_ENDPOINT`` and its kind); otherwise its SDK is not imported. A ``traceparent``
that is sent comes back with this request's own span in it, and is in its log lines, either way.

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
        """The span that a ``traceparent`` names; None for one that is not well-formed."""
        if not value:
            return None
        context = _propagator.extract({"traceparent": value.decode("latin-1")})
        span = trace.get_current_span(context).get_span_context()
        return _parent(span) if span.is_valid else None

    def child(self) -> "Parent":
        """A span of ours below it, when none is collected."""
        return Parent(self.trace, f"{_random.getrandbits(64) or 1:016x}", self.flags)

    def header(self) -> bytes:
        """As a ``traceparent``."""
        return f"00-{self.trace}-{self.span}-{self.flags:02x}".encode()


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be sent anywhere."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return any(environment.get(name) for name in ENDPOINT_VARIABLES)


def check_exporter() -> None:
    """Refuse to start where spans are asked for and cannot be sent.

    Raises:
        SettingsError: the exporter's package is missing.
    """
    try:
        version(_EXPORTER)
    except PackageNotFoundError:
        message = f"{ENDPOINT_VARIABLES[0]} is set; sending spans needs: pip install {_EXPORTER}"
        raise SettingsError(message) from None


class Spans:
    """Sends one span for each request, in the background. Made after a worker is forked, because
    it has a thread.

    Args:
        processor: where spans go; None: over OTLP, as the environment says.
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
        """Record a request that has been answered; its own span."""
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
        """Send what is left."""
        self._provider.shutdown()


def _parent(span: trace.SpanContext) -> Parent:
    trace_id, span_id = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return Parent(trace_id, span_id, int(span.trace_flags))


def _over_otlp() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())
