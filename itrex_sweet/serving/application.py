"""The application: finds the route, checks key and load, and reports failures in the protocol of the route."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Iterable
from typing import Any

from itrex_sweet.errors import RequestError
from itrex_sweet.serving import text_embeddings
from itrex_sweet.serving.body import Headers, UnfinishedBodies
from itrex_sweet.serving.completion import Completions, Receive
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import (
    CANCELLED,
    METHOD,
    NOT_FOUND,
    OVERLOADED,
    STATUS,
    UNAUTHORIZED,
    UNHEALTHY,
    failure_of,
)
from itrex_sweet.serving.inference import Inference
from itrex_sweet.serving.models import Models
from itrex_sweet.serving.observation import Observation
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.protocol import Route
from itrex_sweet.serving.settings import Settings


class Application:
    """Answers requests of HTTP, as an ASGI application, and of gRPC. Created in the event loop that runs it.

    Args:
        settings: of the server.
        models: may be loaded later; until then requests are refused with status 503.
        routes: of all protocols.
        observer: is told of the requests of routes that classify.
        fallback: ASGI application for other paths, or `None`.
    """

    def __init__(
        self, settings: Settings, models: Models, routes: Iterable[Route], observer: Observer, fallback: Any = None
    ):
        self.settings, self.models = settings, models
        self.inference = Inference(settings, Completions(asyncio.get_running_loop()))
        self.in_work = 0
        self.unfinished = UnfinishedBodies(settings.max_concurrent_requests * settings.payload_limit)
        self._observer = observer
        self._fallback = fallback
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        for path, methods in by_path.items():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            if "{" in path:
                pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
                self._patterns.append((re.compile(pattern), methods))
            else:
                self._fixed[path] = methods
        self._keys = [b"Bearer " + key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._fallback is not None and not self._find(scope["path"])[0]:
            await self._fallback(scope, receive, send)
            return
        reply = await self.reply(scope["method"], scope["path"], dict(scope["headers"]), receive)
        if reply is not None:
            await _send(send, reply)

    async def reply(self, method: str, path: str, headers: Headers, receive: Receive) -> Reply | None:
        """Returns the reply to a request, also to one that fails; `None` if its client has left.

        Args:
            method, path: of the request, the path without percent-encoding.
            headers: names in lower case.
            receive: of ASGI.
        """
        arrived = time.perf_counter()
        methods, parameters = self._find(path)
        route = methods.get(method)
        protocol = (route or next(iter(methods.values()), _UNKNOWN)).protocol
        seen: Observation | None = None
        try:
            if route is None:
                raise _no_route(path, methods)
            if self._keys and not route.is_public:
                self._check_key(headers)
            exchange = Exchange(
                self.settings, self.models, self.inference, headers, parameters, receive, self.unfinished, arrived
            )
            if route.classifies:
                seen = exchange.seen = self._observer.begin(route.path, headers, arrived)
            reply = await self._answer(route, exchange)
            if seen is not None:
                seen.succeeded(reply.status)
        except (Exception, asyncio.CancelledError) as error:
            failure = self._failure(error)
            if failure.kind == CANCELLED:
                return None
            reply = Reply(b"", 401) if failure.kind == UNAUTHORIZED else protocol.reply(failure)
            if failure.kind == METHOD:
                reply.headers.append((b"allow", ", ".join(sorted(methods)).encode()))
            if seen is not None:
                seen.failed(reply.status, failure.kind)
        finally:
            if seen is not None:
                seen.failed(STATUS[CANCELLED], CANCELLED)  # without effect on a request that has ended
        if seen is not None:
            reply.headers.append((b"x-request-id", seen.request_id.encode("ascii", errors="replace")))
            if seen.is_degraded:
                reply.headers.append((b"x-quality", b"%.4g" % seen.answers.request.quality))
        return reply

    def _failure(self, error: BaseException) -> RequestError:
        """Returns the failure that a client sees for an exception; raises that of a task that is to end."""
        if not isinstance(error, asyncio.CancelledError):
            return failure_of(error)
        if not self.models.is_closing:
            raise error
        return RequestError(UNHEALTHY, "the server has stopped before it could answer the request.", retry_after=1.0)

    async def _answer(self, route: Route, exchange: Exchange) -> Reply:
        if not route.classifies:
            return await route.handle(exchange)
        self._refuse_overload()
        await exchange.body()  # slow clients do not count as requests in work
        self._refuse_overload()
        self.in_work += 1
        try:
            return await route.handle(exchange)
        finally:
            self.in_work -= 1

    def _refuse_overload(self) -> None:
        if self.in_work >= (limit := self.settings.max_concurrent_requests):
            raise RequestError(OVERLOADED, f"model is overloaded: {limit} requests are in work.", retry_after=1.0)

    def _find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """Returns the routes of a path by method, and the path's parameters."""
        if (methods := self._fixed.get(path)) is not None:
            return methods, {}
        for pattern, methods in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return methods, match.groupdict()
        return {}, {}

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        if not max(hmac.compare_digest(given, key) for key in self._keys):  # compares with all of them
            raise RequestError(UNAUTHORIZED, "")

    def close(self) -> None:
        """Ends threads of tokenization."""
        self.inference.close()


_UNKNOWN = Route("GET", "", text_embeddings.health, text_embeddings.PROTOCOL, "")


def _no_route(path: str, methods: dict[str, Route]) -> RequestError:
    if methods:
        return RequestError(METHOD, f"{path[:200]} takes {' or '.join(sorted(methods))}.")
    return RequestError(NOT_FOUND, f"there is no {path[:200]} here.")


async def _send(send: Any, reply: Reply) -> None:
    body = reply.body
    headers = [(b"content-length", b"%d" % len(body)), *reply.headers]
    if body:
        headers.append((b"content-type", reply.content_type))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
