"""One connection: uvicorn's HTTP protocol, with limits of time and of memory for each client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65536  # bytes of a request line with its headers; also of trailers
_PIECE = 16384  # bytes that are parsed together: they hold a bounded number of pipelined requests
_REASON = b"The head of the request is longer than %d bytes." % MAX_HEAD
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_REASON), _REASON)
)
_UPGRADE = re.compile(rb"^upgrade(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)


class _JoinedWrites:
    """A transport that writes the head of a response together with its body: one system call instead of two.

    What is written after the client has closed the connection is dropped; uvloop raises an error for it.
    """

    def __init__(self, transport: Any):
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self.is_closing():
            self._head = b""
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Writes a head that no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()


class _Flow(FlowControl):
    """Reads no further requests while pipelined ones wait: each takes many times the memory of its bytes."""

    def __init__(self, transport: Any, pipeline: Sized):
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """Closes connections whose request heads do not arrive in time or are too large, or whose clients do not read
    their answers.
    """

    seconds = 10.0
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _unparsed = b""  # arrived after pipelined requests that wait
    _outside_bodies = 0  # bytes since the last head or part of a body: of a head, trailers or chunk extensions

    @classmethod
    def with_timeout(cls, seconds: float) -> type[Connection]:
        """Returns a class of connections with this limit."""
        return type(cls.__name__, (cls,), {"seconds": seconds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_JoinedWrites(transport))
        self.flow = _Flow(self.transport, self.pipeline)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._unparsed:
            self._unparsed += data
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        if self._timer is not None and b"pgrade" in data:
            data = _without_upgrade(data)
        for start in range(0, len(data), _PIECE):
            self._parse(data[start : start + _PIECE])
            if self.transport.is_closing():
                return
            if self.pipeline:
                self._unparsed = data[start + _PIECE :]
                return

    def _parse(self, data: bytes) -> None:
        self._outside_bodies += len(data)
        super().data_received(data)
        if self._outside_bodies > MAX_HEAD and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._outside_bodies = 0
        self._head_arrived()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._outside_bodies = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        self.transport.flush()
        super().on_response_complete()
        if self._unparsed and not self.pipeline and not self.transport.is_closing():
            data, self._unparsed = self._unparsed, b""
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        self._head_arrived()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._write_timer = self.loop.call_later(self.seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._close_unfinished)

    def _head_arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_unfinished(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """Renames the header `Upgrade`, for which uvicorn would ignore the body of the request. A server may ignore the
    offer of another protocol; Java's client offers HTTP/2 in the first request of a connection.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-upgrade", head) + end + body
