"""Metrics, live page, logs and traces as parts of a server: routes, command line options, and the observer of both."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from itrex_sweet.serving.exposition import CONTENT_TYPE
from itrex_sweet.serving.live import live_state
from itrex_sweet.serving.logs import ALL, CHOICES, ERRORS, NONE, RequestLog
from itrex_sweet.serving.metrics import metrics_text
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.page import page, page_headers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route


def observability_routes(observer: Observer, with_page: bool = True) -> list[Route]:
    """Returns the routes `/metrics`, and with the page `/` and `/live`, which is its data.

    Args:
        observer: of the server.
        with_page: whether to serve the page.
    """
    from starlette.responses import HTMLResponse
    from starlette.responses import Response as PlainResponse
    from starlette.routing import Route

    async def metrics(request: Request) -> Response:
        return PlainResponse(metrics_text(observer), headers={"Content-Type": CONTENT_TYPE})

    async def live(request: Request) -> Response:
        body = json.dumps(live_state(observer), separators=(",", ":"), allow_nan=False)
        return PlainResponse(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    async def index(request: Request) -> Response:
        return HTMLResponse(page(), headers=page_headers())

    routes = [Route("/metrics", metrics)]
    return [*routes, Route("/live", live), Route("/", index)] if with_page else routes


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
