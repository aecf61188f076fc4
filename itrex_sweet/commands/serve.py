"""Serve artifacts over HTTP until SIGTERM or SIGINT.

Protocols: text-embeddings-inference (/predict, /info, /health), the Open Inference Protocol v2 (/v2/..., and with
--grpc-port over gRPC), /classify of vLLM and Infinity, and the Hub's text classification (/). Every option but
--hostname can be set by an environment variable too: its name in capitals with underscores, such as MAX_BATCH_TOKENS.
SIGHUP loads every folder again without losing a request."""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any

from itrex_sweet.commands import options
from itrex_sweet.defaults import DEFAULT_BACKEND, DTYPES
from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.settings import CHOICES, DEFAULT_SERVICE_NAME, LOGGED_REQUESTS, Address, Settings

SUMMARY = "serve artifacts over HTTP"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet serve`."""
    parser.add_argument(
        "directories",
        nargs="+",
        metavar="[NAME=]DIR",
        help="artifacts, or their names on the Hub; the first answers requests that name no model",
    )
    address = parser.add_argument_group("address")
    address.add_argument("--hostname", default=Address.host, metavar="HOST", help="address to listen on (default: all)")
    address.add_argument(
        "-p", "--port", type=options.port, default=Address.port, help=f"(default: {Address.port}; 0 for any free one)"
    )
    address.add_argument(
        "--grpc-port",
        type=options.port,
        metavar="PORT",
        help="serve the Open Inference Protocol over gRPC too, on this port (0 for any free one)",
    )
    address.add_argument(
        "--reuse-port",
        action="store_true",
        help="let other servers with this option listen on the same port; the system distributes connections",
    )
    address.add_argument("--ssl-certfile", metavar="FILE", help="certificate, for TLS")
    address.add_argument("--ssl-keyfile", metavar="FILE", help="its private key")
    address.add_argument("--ssl-keyfile-password", metavar="PASSWORD", help="of the private key")
    address.add_argument(
        "--api-key", metavar="KEY", help="requests need Authorization: Bearer KEY; several keys with commas between"
    )
    _add_limits(parser.add_argument_group("limits"))
    _add_running(parser.add_argument_group("running"))
    _add_observability(parser.add_argument_group("logs, traces, live page"))
    _read_environment(parser)


def _add_limits(group: argparse._ArgumentGroup) -> None:
    def number(name: str, default: int, text: str) -> None:
        group.add_argument(
            name, type=options.positive, default=default, metavar="N", help=f"{text} (default: {default})"
        )

    def seconds(name: str, default: float, text: str) -> None:
        group.add_argument(
            name, type=options.positive_number, default=default, metavar="S", help=f"{text} (default: {default:g})"
        )

    at_once, waiting = Settings.max_concurrent_requests, Settings.max_waiting_rows
    number("--max-concurrent-requests", at_once, "requests in work at once; further ones get status 429")
    number("--max-batch-tokens", Settings.max_batch_tokens, "tokens computed together")
    number("--max-waiting-rows", waiting, "texts of a model without an answer; requests beyond it get status 429")
    number("--max-client-batch-size", Settings.max_client_batch_size, "texts of one request")
    number("--payload-limit", Settings.payload_limit, "bytes of one request")
    group.add_argument(
        "--max-input-length",
        type=options.positive,
        metavar="N",
        help="tokens of a text, in place of the limit of the artifact's tokenizer",
    )
    group.add_argument(
        "--auto-truncate",
        action=argparse.BooleanOptionalAction,
        default=Settings.auto_truncate,
        help="cut longer texts where a request does not say (default: yes)",
    )
    group.add_argument("--deadline-ms", type=options.deadline, metavar="MS", help="of requests that name no deadline")
    seconds("--read-seconds", Settings.read_seconds, "time for the head of a request, and for its body")
    seconds("--keep-alive-seconds", Settings.keep_alive_seconds, "time after which an idle connection is closed")
    seconds("--drain-seconds", Settings.drain_seconds, "time to answer the requests in work when the server stops")
    group.add_argument(
        "--under-load",
        choices=CHOICES["under_load"],
        default=Settings.under_load,
        help="refuse requests with status 429 when too many wait, or answer them by earlier exits first "
        f"(default: {Settings.under_load})",
    )
    group.add_argument(
        "--quality-floor",
        type=options.share,
        metavar="Q",
        help="lowest quality under degrade, in [0, 1] (default: that of the fastest certified policy)",
    )
    group.add_argument(
        "--target-ms",
        type=options.positive_number,
        default=Settings.target_ms,
        metavar="MS",
        help=f"under degrade, quality falls where a new text would take longer (default: {Settings.target_ms:g})",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--threshold", type=options.threshold, metavar="T", help="in place of the stored thresholds")
    group.add_argument(
        "--backend", default=DEFAULT_BACKEND, metavar="NAME", help="name of a backend (default: the fastest)"
    )
    group.add_argument("--dtype", choices=DTYPES, help="data type for float artifacts")
    options.add_threads(group)
    group.add_argument(
        "--scheduling",
        choices=CHOICES["scheduling"],
        default=Settings.scheduling,
        help="requests share every segment, or wait until a batch has left the model, for comparisons "
        f"(default: {Settings.scheduling})",
    )
    group.add_argument(
        "--watch-seconds",
        type=options.positive_number,
        metavar="S",
        help="look for a new artifact in each folder at this interval, and serve it",
    )
    group.add_argument(
        "--reload-route", action="store_true", help="POST /v2/repository/models/NAME/load loads a folder again"
    )
    group.add_argument(
        "--classify-shape",
        choices=CHOICES["classify_shape"],
        default=Settings.classify_shape,
        help=f"form of the answers of /classify (default: {Settings.classify_shape})",
    )


def _add_observability(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json-output", action="store_true", help="write logs as JSON, with a line per request")
    group.add_argument(
        "--log-requests",
        choices=LOGGED_REQUESTS,
        help="requests that are logged (default: errors of the server; with --json-output all)",
    )
    group.add_argument("--log-texts", action="store_true", help="write the texts of logged requests to the log")
    group.add_argument(
        "--otlp-endpoint", metavar="URL", help="send traces to this OpenTelemetry collector, such as http://host:4318"
    )
    group.add_argument(
        "--otlp-service-name",
        default=DEFAULT_SERVICE_NAME,
        metavar="NAME",
        help=f"name in traces (default: {DEFAULT_SERVICE_NAME})",
    )
    group.add_argument(
        "--live-page",
        action=argparse.BooleanOptionalAction,
        default=Settings.live_page,
        help="show live exits, latency and drift as a page at / (default: yes)",
    )


def _read_environment(parser: argparse.ArgumentParser) -> None:
    """Takes the defaults of options from environment variables: `--max-batch-tokens` from `MAX_BATCH_TOKENS`."""
    for action in parser._actions:
        if not action.option_strings or action.dest in _NOT_FROM_ENVIRONMENT:
            continue
        value = os.environ.get(action.dest.upper())
        if value is None or value == "":
            continue
        if action.nargs == 0:
            action.type = functools.partial(_converted, action.dest.upper(), _TRUTHS)
            value = value.lower()
        elif action.choices is not None and value not in action.choices:
            if action.dest in _SHARED_VARIABLES:
                continue
            action.type = functools.partial(_converted, action.dest.upper(), {each: each for each in action.choices})
        action.default = value  # argparse converts it as if it were given
        parser.set_defaults(**{action.dest: action.default})


def _converted(variable: str, known: dict[str, Any], value: str) -> Any:
    """Returns what the value of an environment variable means; raises `argparse.ArgumentTypeError` for another one."""
    if value not in known:
        raise argparse.ArgumentTypeError(f"the variable {variable} is {value!r}; it is one of {', '.join(known)}.")
    return known[value]


def _keys(given: str | None) -> tuple[str, ...]:
    """Returns the keys of `--api-key`.

    Raises:
        ConfigError: it holds none, as where a variable of the shell is not set: the server would be open to all.
    """
    if given is None:
        return ()
    keys = tuple(key for part in given.split(",") if (key := part.strip()))  # a secret in a file may end a line
    if not keys:
        raise ConfigError("--api-key holds no key; leave it out for a server that needs none.")
    return keys


def run(args: argparse.Namespace) -> int:
    """Serves until a signal arrives; returns 0."""
    from itrex_sweet.classifier import load
    from itrex_sweet.serving.models import Source
    from itrex_sweet.serving.observability import observer_of, write_logs
    from itrex_sweet.serving.routes import ROUTES
    from itrex_sweet.serving.server import Server

    if bool(args.ssl_certfile) != bool(args.ssl_keyfile):
        raise ConfigError("--ssl-certfile and --ssl-keyfile are given together.")
    settings = Settings(
        **{name: getattr(args, name) for name in _SAME_NAME},
        api_keys=_keys(args.api_key),
        default_deadline_ms=args.deadline_ms,
    )
    certificate = (args.ssl_certfile, args.ssl_keyfile, args.ssl_keyfile_password)
    address = Address(args.hostname, args.port, args.grpc_port, *certificate, args.reuse_port)
    loading: dict[str, Any] = dict(backend=args.backend, dtype=args.dtype, threads=args.threads)
    loader = functools.partial(load, threshold=args.threshold, **loading)
    sources = [Source.of(given) for given in args.directories]
    observer = observer_of(
        args.log_requests, args.json_output, args.log_texts, args.otlp_endpoint, args.otlp_service_name
    )
    with write_logs(args.json_output):
        Server(sources, loader, ROUTES, settings, address, observer).run()
    return 0


# HOSTNAME is the name of the machine in many shells and containers.
_NOT_FROM_ENVIRONMENT = ("help", "debug", "hostname")
_SHARED_VARIABLES = ("dtype",)  # text-embeddings-inference has other values, such as DTYPE=float16
_TRUTHS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}

_SAME_NAME = (
    "max_input_length",
    "max_waiting_rows",
    *("max_concurrent_requests", "max_batch_tokens", "max_client_batch_size", "payload_limit", "auto_truncate"),
    *("read_seconds", "keep_alive_seconds", "drain_seconds", "watch_seconds", "reload_route"),
    *("under_load", "quality_floor", "target_ms", "scheduling"),
    *("classify_shape", "live_page"),
)
