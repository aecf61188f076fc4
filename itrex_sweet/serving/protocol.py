"""Routes of a protocol, and the form of its errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.exchange import Exchange, Reply
from itrex_sweet.serving.failures import STATUS


@dataclass(frozen=True)
class Protocol:
    """Form of the errors of a protocol.

    Args:
        name: for people.
        error: makes the body of an error from its failure and status.
        status: codes of kinds of failures, where they are not those of `STATUS`.
        schema: JSON schema of an error's body.
    """

    name: str
    error: Callable[[RequestError, int], Any]
    status: Mapping[str, int] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)

    def reply(self, failure: RequestError) -> Reply:
        """Returns the reply that reports a failure."""
        status = self.status.get(failure.kind) or STATUS[failure.kind]
        reply = Reply(self.error(failure, status), status)
        if failure.retry_after is not None:
            reply.headers.append((b"retry-after", b"%d" % max(1, round(failure.retry_after + 0.499))))
        return reply


@dataclass(frozen=True)
class Route:
    """One route of a server, and its description for the OpenAPI document.

    Args:
        path: with parameters such as `{model}`.
        handle: answers.
        is_public: whether it needs no API key.
        classifies: whether it counts as a request in work.
        request, response: JSON schemas of the bodies; `None` for none.
        failures: status codes of its errors.
    """

    method: str
    path: str
    handle: Callable[[Exchange], Awaitable[Reply]]
    protocol: Protocol
    summary: str
    is_public: bool = False
    classifies: bool = False
    request: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None
    failures: tuple[int, ...] = ()


CLASSIFYING_FAILURES = (400, 404, 408, 413, 415, 422, 424, 429, 503, 504)
