"""Reads the body of a request within a limit of bytes and of time."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.completion import Receive
from itrex_sweet.serving.failures import CANCELLED, JSON, MEDIA_TYPE, OVERLOADED, PAYLOAD, SLOW, VALIDATION

Headers = dict[bytes, bytes]


class UnfinishedBodies:
    """Counts the memory of bodies of which a part has arrived, over all connections.

    Args:
        limit: bytes that they may take together.
    """

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0

    def add(self, size: int) -> None:
        """Counts the part of a body.

        Raises:
            RequestError: the limit is exceeded.
        """
        self.size += size
        if self.size > self.limit:
            raise RequestError(
                OVERLOADED, f"bodies that arrive at the same time take more than {self.limit} bytes.", retry_after=1.0
            )


async def read_body(
    receive: Receive, headers: Headers, limit: int, seconds: float, unfinished: UnfinishedBodies
) -> bytes:
    """Returns the body of a request.

    Args:
        receive: of ASGI.
        headers: of the request, names in lower case.
        limit: bytes of the body.
        seconds: from now until its end.
        unfinished: of the server.

    Raises:
        RequestError: it is longer than `limit` bytes, compressed, does not arrive within `seconds`, too many bodies
            arrive at the same time, or the client leaves.
    """
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > limit):
        raise _too_long(limit)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(MEDIA_TYPE, "Content-Encoding: compressed bodies are not accepted; send it as it is.")
    task, is_late = asyncio.current_task(), False

    def end() -> None:
        nonlocal is_late
        is_late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)  # `asyncio.wait_for` would start a task
    try:
        return await _joined(receive, limit, unfinished)
    except asyncio.CancelledError:
        if not is_late:
            raise
        raise RequestError(SLOW, f"the body did not arrive within {seconds:g} seconds.") from None
    finally:
        timer.cancel()


async def _joined(receive: Receive, limit: int, unfinished: UnfinishedBodies) -> bytes:
    parts, size = [], 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(CANCELLED, "the client has left")
            part = message.get("body", b"")
            parts.append(part)
            if size + len(part) > limit:
                raise _too_long(limit)
            if not message.get("more_body", False):
                return part if len(parts) == 1 else b"".join(parts)
            size += len(part)
            unfinished.add(len(part))
    finally:
        unfinished.size -= size


def _too_long(limit: int) -> RequestError:
    return RequestError(PAYLOAD, f"the body is longer than {limit} bytes, the limit (--payload-limit).")


def json_object(body: bytes) -> dict[str, Any]:
    """Parses a JSON object. NaN, numbers out of range, lone surrogates and deep nesting are no JSON here.

    Raises:
        RequestError: no JSON, or no object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(JSON, f"the body is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RequestError(VALIDATION, f"the body must be a JSON object, not {_name(value)}.")
    return value


def refuse_other_types(headers: Headers) -> None:
    """Raises RequestError for a body that says to be no JSON."""
    given = headers.get(b"content-type")
    if given is None or given == b"application/json":
        return
    name = given.partition(b";")[0].strip().lower()
    if name != b"application/json" and not name.endswith(b"+json"):
        shown = given[:80].decode("latin-1")
        raise RequestError(MEDIA_TYPE, f"Content-Type is {shown!r}; send application/json.")


def _name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
