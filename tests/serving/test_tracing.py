"""Spans of requests, read back from OpenTelemetry's in-memory exporter."""

import subprocess
import sys

import pytest

from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.observer import Observer
from tests.serving.observed import add_model, answer

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: the extra [tracing]")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture()
def traced():
    """Returns an observer with a model, and a function that returns the spans that it has recorded."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from itrex_sweet.serving.tracing import Tracing

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = Observer(tracing=Tracing(provider))
    add_model(observer)
    return observer, exporter.get_finished_spans


def test_a_span_per_exit(traced):
    observer, spans = traced
    answer(observer, observer.models["m"], [0, 1, 1], batch=True)
    *children, request = spans()
    assert [span.name for span in children] == ["tokenize", "queue", "exit 1", "exit 4"]
    assert request.name == "/predict" and request.kind.name == "SERVER"
    assert request.attributes["itrex_sweet.rows"] == 3 and request.attributes["itrex_sweet.model"] == "m"
    assert request.attributes["http.response.status_code"] == 200
    first, second = children[2:]
    assert (first.attributes["itrex_sweet.rows"], first.attributes["itrex_sweet.rows_left"]) == (3, 1)
    assert (second.attributes["itrex_sweet.rows"], second.attributes["itrex_sweet.rows_left"]) == (2, 2)
    assert second.attributes["itrex_sweet.batch_rows"] == 8
    for child in children:
        assert child.parent.span_id == request.context.span_id
        assert child.context.trace_id == request.context.trace_id
        assert request.start_time <= child.start_time <= child.end_time or child.name == "tokenize"
    assert first.end_time - first.start_time == pytest.approx(5e6, abs=2e3)
    assert children[1].end_time == first.start_time <= second.start_time


def test_the_callers_trace_is_continued(traced):
    observer, spans = traced
    answer(observer, observer.models["m"], [0], headers={b"traceparent": f"00-{TRACE}-{PARENT}-01".encode()})
    request = spans()[-1]
    assert f"{request.context.trace_id:032x}" == TRACE and f"{request.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_invalid_contexts_start_a_trace(traced, traceparent):
    observer, spans = traced
    answer(observer, observer.models["m"], [0], headers={b"traceparent": traceparent.encode()})
    assert spans()[-1].parent is None


def test_requests_that_the_caller_does_not_sample(traced):
    observer, spans = traced
    seen = answer(observer, observer.models["m"], [0], headers={b"traceparent": f"00-{TRACE}-{PARENT}-00".encode()})
    assert seen.segments is None and not spans()


def test_errors(traced):
    observer, spans = traced
    observer.begin("/predict").failed(503, "unhealthy")
    observer.begin("/predict").failed(422, "validation")
    server, client = spans()
    assert server.status.status_code.name == "ERROR" and server.attributes["error.type"] == "unhealthy"
    assert client.status.status_code.name == "UNSET" and client.attributes["error.type"] == "validation"


@pytest.mark.parametrize("endpoint", ["localhost:4317", "collector", "ftp://collector", "http://"])
def test_invalid_endpoints(endpoint):
    from itrex_sweet.serving.tracing import Tracing

    with pytest.raises(ConfigError, match="otlp_endpoint"):
        Tracing.to(endpoint)


def test_opentelemetry_is_not_imported_without_traces():
    script = (
        "import sys, itrex_sweet.serving.observability as o\n"
        "observer = o.observer_of(None, True, False, None, '')\n"
        "seen = observer.begin('/predict', {b'traceparent': b'x'}); seen.succeeded()\n"
        "assert seen.span is None and seen.segments is None\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'torch', 'transformers')]"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
