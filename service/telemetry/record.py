"""Record an answered request in its trace and in the access log."""

from service.problems import Headers
from service.settings import Settings
from service.telemetry.logs import Journal
from service.telemetry.tracing import HEADER, Parent, Spans, is_configured


class Recorder:
    """Records requests over HTTP and gRPC. Create it after a worker is forked.

    Args:
        settings: the server's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._journal = Journal(settings.access_log) if settings.access_log else None
        self._spans = Spans() if is_configured() else None

    @property
    def is_on(self) -> bool:
        """Whether every request is recorded, not only those that carry a trace."""
        return self._spans is not None or self._journal is not None

    def record(
        self,
        method: str,
        template: str,
        status: int,
        seconds: float,
        client: str,
        traceparent: bytes | None,
    ) -> Headers:
        """Record one request, and return the tracing headers of its answer.

        Args:
            method: the HTTP method.
            template: the route, as in the metrics.
            status: the HTTP status, or the one that a gRPC status stands for.
            seconds: duration.
            client: address of the client.
            traceparent: the request's header; None: it has none.
        """
        parent = Parent.of(traceparent)
        own = None
        if self._spans is not None:
            own = self._spans.record(parent, method, template, status, seconds)
        elif parent is not None:
            own = parent.child()
        if self._journal is not None:
            trace = own.trace if own is not None else None
            self._journal.note(method, template, status, seconds, client, trace)
        return () if own is None else ((HEADER, own.header()),)

    def stop(self) -> None:
        """Export the remaining spans."""
        if self._spans is not None:
            self._spans.stop()
