"""Traces of requests by OpenTelemetry: a span per request, with one for tokenization, the queue and each exit.

The only module that imports OpenTelemetry, and only if a server is asked for traces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import perf_counter_ns, time_ns
from typing import Any
from urllib.parse import urlsplit

from itrex_sweet.errors import ConfigError
from itrex_sweet.extras import naming_extras, require
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.settings import DEFAULT_SERVICE_NAME
from itrex_sweet.version import __version__

_GRPC_PORT = 4317  # of a collector; 4318 is that of HTTP
_PURPOSE = "tracing"
_CONTEXT = (b"traceparent", b"tracestate")


class Tracing:
    """Records the spans of requests.

    Spans are made when a request has ended, from the times that were noted; only the span of the request itself is
    started before. A request whose caller does not sample its trace costs one comparison of headers.

    Args:
        provider: OpenTelemetry's `TracerProvider`.
    """

    def __init__(self, provider: Any):
        with naming_extras(_PURPOSE):
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        self._trace = trace
        self._provider = provider
        self._tracer = provider.get_tracer("itrex_sweet.serving", __version__)
        self._context_of = TraceContextTextMapPropagator().extract
        self._offset = time_ns() - perf_counter_ns()  # of the wall clock to `time.perf_counter`

    @classmethod
    def to(cls, endpoint: str, service_name: str = DEFAULT_SERVICE_NAME) -> Tracing:
        """Returns tracing that sends spans to a collector, in the background.

        OpenTelemetry's environment variables, such as `OTEL_TRACES_SAMPLER`, apply.

        Args:
            endpoint: address of the collector, such as `http://localhost:4317` (gRPC) or `http://localhost:4318`
                (HTTP). `OTEL_EXPORTER_OTLP_PROTOCOL` selects the protocol if the port does not.
            service_name: of the resource.

        Raises:
            ConfigError: the endpoint is not an address.
            MissingExtraError: OpenTelemetry is not installed.
        """
        exporter = _exporter(endpoint)
        with naming_extras(_PURPOSE):
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        resource = Resource.create({"service.name": service_name, "service.version": __version__})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def begin(self, route: str, request_id: str, headers: Mapping[bytes, bytes]) -> Any:
        """Starts the span of a request; returns `None` if it is not sampled.

        Args:
            headers: of the request; `traceparent` and `tracestate` name the caller's span (W3C Trace Context).
        """
        names = [name for name in _CONTEXT if name in headers]
        context = self._context_of({name.decode(): headers[name].decode("latin-1") for name in names})
        attributes = {"itrex_sweet.request_id": request_id, "http.route": route}
        span = self._tracer.start_span(route, context=context, kind=self._trace.SpanKind.SERVER, attributes=attributes)
        return span if span.is_recording() else None

    def end(self, seen: Observation) -> None:
        """Ends the span of a request, with spans for its parts."""
        span, segments = seen.span, seen.segments or []
        span.set_attributes(
            {
                "http.response.status_code": seen.status,
                "itrex_sweet.rows": seen.rows,
                "itrex_sweet.tokens": seen.tokens,
                **({} if seen.model is None else {"itrex_sweet.model": seen.model.name}),
            }
        )
        if seen.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR, seen.error)
        if seen.error:
            span.set_attribute("error.type", seen.error)
        context = self._trace.set_span_in_context(span)
        if seen.tokenization:
            self._child(context, "tokenize", seen.tokenized_at - seen.tokenization, seen.tokenized_at)
        if segments and seen.queue:
            self._child(context, "queue", segments[0][1] - seen.queue, segments[0][1])
        left = [] if seen.answers is None else seen.answers.exit_index.tolist()
        for exit_index, started, ended, rows, batch_rows in segments:
            layers = str(exit_index) if seen.model is None else seen.model.exits[exit_index]
            self._child(
                context,
                f"exit {layers}",
                started,
                ended,
                {
                    "itrex_sweet.exit": layers,
                    "itrex_sweet.rows": rows,
                    "itrex_sweet.rows_left": left.count(exit_index),
                    "itrex_sweet.batch_rows": batch_rows,
                },
            )
        span.end(self._nanoseconds(seen.finished))

    def close(self) -> None:
        """Sends the spans that wait."""
        self._provider.shutdown()

    def _child(
        self, context: Any, name: str, started: float, ended: float, attributes: Mapping[str, Any] | None = None
    ) -> None:
        child = self._tracer.start_span(
            name, context=context, start_time=self._nanoseconds(started), attributes=attributes
        )
        child.end(self._nanoseconds(ended))

    def _nanoseconds(self, seconds: float) -> int:
        """Converts a time of `time.perf_counter` to nanoseconds since 1970."""
        return int(seconds * 1e9) + self._offset


def _exporter(endpoint: str) -> Any:
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(
            f"otlp_endpoint={endpoint!r}: an address such as http://localhost:4317 (gRPC) or http://localhost:4318."
        )
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc" if address.port == _GRPC_PORT else "http/protobuf")
    require("opentelemetry", _PURPOSE)
    if protocol == "grpc":
        return _grpc_exporter(endpoint, insecure=address.scheme == "http")
    with naming_extras(_PURPOSE):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    path = address.path.rstrip("/")
    return OTLPSpanExporter(endpoint=endpoint if path else f"{endpoint.rstrip('/')}/v1/traces")


def _grpc_exporter(endpoint: str, insecure: bool) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"otlp_endpoint={endpoint!r} is one of gRPC, whose exporter is not installed: pip install "
            "opentelemetry-exporter-otlp-proto-grpc, or give the collector's HTTP address, such as port 4318."
        ) from error
    return OTLPSpanExporter(endpoint=endpoint, insecure=insecure)
