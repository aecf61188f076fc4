"""Metrics, live page, logs and traces as parts of a server: routes, command line options, and the observer of both."""

from __future__ import annotations

import argparse

from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.exposition import CONTENT_TYPE
from itrex_sweet.serving.live import live_state
from itrex_sweet.serving.logs import ALL, CHOICES, ERRORS, NONE, RequestLog
from itrex_sweet.serving.metrics import metrics_text
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.page import page, page_headers
from itrex_sweet.serving.protocol import Route
from itrex_sweet.serving.text_embeddings import PROTOCOL


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


def add_observability_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of logs, traces and the live page."""
    group = parser.add_argument_group("logs, traces, live page")
    group.add_argument("--json-output", action="store_true", help="write logs as JSON, with a line per request")
    group.add_argument(
        "--log-requests", choices=CHOICES, help=f"requests that are logged (default: {ERRORS}; JSON: {ALL})"
    )
    group.add_argument("--log-texts", action="store_true", help="write the texts of logged requests to the log")
    group.add_argument(
        "--otlp-endpoint", metavar="URL", help="send traces to this OpenTelemetry collector, such as http://host:4317"
    )
    group.add_argument(
        "--otlp-service-name", default="itrex-sweet", metavar="NAME", help="name in traces (default: itrex-sweet)"
    )
    group.add_argument("--no-page", dest="page", action="store_false", help="do not serve the live page at /")


def observer_of(args: argparse.Namespace) -> Observer:
    """Returns the observer that the options of `add_observability_arguments` describe."""
    requests = args.log_requests or (ALL if args.json_output else ERRORS)
    log = None if requests == NONE else RequestLog(requests, texts=args.log_texts)
    if args.otlp_endpoint is None:
        return Observer(log)
    from itrex_sweet.serving.tracing import Tracing

    return Observer(log, Tracing.to(args.otlp_endpoint, args.otlp_service_name))
