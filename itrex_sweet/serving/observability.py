"""Metrics, live page, logs and traces as parts of a server: its routes, and its observer."""

from __future__ import annotations

from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.exposition import CONTENT_TYPE
from itrex_sweet.serving.live import live_state
from itrex_sweet.serving.logs import RequestLog, write_logs
from itrex_sweet.serving.metrics import metrics_text
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.page import page, page_headers
from itrex_sweet.serving.protocol import Route
from itrex_sweet.serving.settings import ALL, ERRORS, NONE
from itrex_sweet.serving.text_embeddings import PROTOCOL

__all__ = ["observability_routes", "observer_of", "write_logs"]


def observability_routes(observer: Observer, with_page: bool = True) -> tuple[Route, ...]:
    """Returns the routes `/metrics`, and with the page `/` and `/live`, which is its data.

    Args:
        observer: of the server.
        with_page: whether to serve the page.
    """

    async def metrics(exchange: Exchange) -> Reply:
        return Reply(metrics_text(observer).encode(), content_type=CONTENT_TYPE.encode())

    async def live(exchange: Exchange) -> Reply:
        return Reply(live_state(observer), headers=[(b"cache-control", b"no-store")])

    async def index(exchange: Exchange) -> Reply:
        headers = [(name.lower().encode(), value.encode()) for name, value in page_headers().items()]
        return Reply(page().encode(), headers=headers, content_type=b"text/html; charset=utf-8")

    routes = (Route("GET", "/metrics", metrics, PROTOCOL, "Metrics in Prometheus' text format.", is_public=True),)
    if not with_page:
        return routes
    return (
        *routes,
        Route("GET", "/", index, PROTOCOL, "Live exits, latency and drift, as a page.", is_public=True),
        Route("GET", "/live", live, PROTOCOL, "The data of the page.", response={"type": "object"}),
    )


def observer_of(
    log_requests: str | None, json_output: bool, log_texts: bool, otlp_endpoint: str | None, otlp_service_name: str
) -> Observer:
    """Returns the observer that the options of `itrex-sweet serve` describe.

    Raises:
        ConfigError: the endpoint is not an address.
        MissingExtraError: it is given, and OpenTelemetry is not installed.
    """
    requests = log_requests or (ALL if json_output else ERRORS)
    log = None if requests == NONE else RequestLog(requests, texts=log_texts)
    if otlp_endpoint is None:
        return Observer(log)
    from itrex_sweet.serving.tracing import Tracing

    return Observer(log, Tracing.to(otlp_endpoint, otlp_service_name))
