"""Serves the Open Inference Protocol over gRPC, beside HTTP and by the same application."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.application import Application
from itrex_sweet.serving.body import Headers
from itrex_sweet.serving.exchange import Reply
from itrex_sweet.serving.grpc_messages import HEALTH, HEALTH_MESSAGES, SERVICE
from itrex_sweet.serving.grpc_methods import METHODS, HttpRequest, Method
from itrex_sweet.serving.open_inference import PROTOCOL
from itrex_sweet.serving.options import MAX_DEADLINE_MS

_SERVING, _NOT_SERVING = 1, 2  # of the health check
_DEADLINE = b"x-deadline-ms"
_MAX_MESSAGE = 2**31 - 1  # bytes, of gRPC
_NO_MESSAGE = "the content is no message of this method."
_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class GrpcServer:
    """A gRPC server. Created in the event loop that runs it.

    Args:
        application: answers the requests.
        host, port: to listen on; port 0 is any free one.
        certificate, key: contents of files in PEM, for TLS.
        reuse_port: whether other servers that allow it too may listen on the same port.
    """

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        certificate: bytes | None = None,
        key: bytes | None = None,
        reuse_port: bool = False,
    ):
        self.in_work = 0
        self._application = application
        limit = min(application.settings.payload_limit, _MAX_MESSAGE)
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
            ]
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE, {name: self._handler(method) for name, method in METHODS.items()}
                ),
                grpc.method_handlers_generic_handler(f"{HEALTH}.Health", {"Check": self._health_handler()}),
            )
        )
        self.port = self._bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", certificate, key)

    def _bind(self, address: str, certificate: bytes | None, key: bytes | None) -> int:
        """Binds the port and returns it.

        Raises:
            OSError: the address is in use, or not of this machine.
        """
        try:
            if certificate is None or key is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for gRPC: {error}") from None
        if port == 0:
            raise OSError(
                f"cannot listen on {address} for gRPC; a certificate or key that cannot be used is one cause."
            )
        return port

    async def start(self) -> None:
        """Accepts calls from here on."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Refuses new calls, and ends those in work that take longer than some seconds."""
        await self._server.stop(seconds)

    def _handler(self, method: Method) -> Any:
        async def handle(content: bytes, context: Any) -> Any:
            self.in_work += 1
            try:
                return await self._answer(method, content, context)
            finally:
                self.in_work -= 1

        return grpc.unary_unary_rpc_method_handler(handle, None, method.response.SerializeToString)

    async def _answer(self, method: Method, content: bytes, context: Any) -> Any:
        try:
            message = method.request.FromString(content)
            request = method.to_http(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_MESSAGE)
        except RequestError as failure:
            await _abort(context, PROTOCOL.reply(failure))
        reply = await self._application.reply(
            request.method, request.path, _headers(request, context), _receive(request.body)
        )
        if reply is None:
            await context.abort(grpc.StatusCode.CANCELLED, "the client has left")
        if reply.status not in method.status:
            await _abort(context, reply)
        context.set_trailing_metadata(_metadata(reply))
        return method.from_http(message, reply)

    def _health_handler(self) -> Any:
        async def check(content: bytes, context: Any) -> Any:
            try:
                message = HEALTH_MESSAGES.HealthCheckRequest.FromString(content)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_MESSAGE)
            if message.service not in ("", SERVICE):
                await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {message.service[:128]!r}.")
            is_ready = self._application.models.is_ready
            return HEALTH_MESSAGES.HealthCheckResponse(status=_SERVING if is_ready else _NOT_SERVING)

        return grpc.unary_unary_rpc_method_handler(check, None, HEALTH_MESSAGES.HealthCheckResponse.SerializeToString)


def _headers(request: HttpRequest, context: Any) -> Headers:
    """Returns the metadata of a call as headers, with its deadline, and those of the HTTP request."""
    headers = {
        name.encode(): value.encode() if isinstance(value, str) else value
        for name, value in context.invocation_metadata() or ()
        if not name.startswith(("content-", "inference-"))  # they describe the body
    }
    remaining = context.time_remaining()
    if remaining is not None and _DEADLINE not in headers:
        headers[_DEADLINE] = b"%.3f" % min(max(0.001, 1000.0 * remaining), MAX_DEADLINE_MS)
    return {**headers, **dict(request.headers)}


def _receive(body: bytes) -> Any:
    """Returns a `receive` of ASGI that has the whole body. If the client leaves, gRPC cancels the task."""
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for message in messages:
            return message
        return await asyncio.get_running_loop().create_future()

    return receive


async def _abort(context: Any, reply: Reply) -> None:
    """Ends a call with the failure that a reply of HTTP reports."""
    message = orjson.loads(reply.body).get("error", "") if reply.body else "unauthorized"
    default = grpc.StatusCode.INVALID_ARGUMENT if 400 <= reply.status < 424 else grpc.StatusCode.INTERNAL
    await context.abort(_CODES.get(reply.status, default), message, _metadata(reply))


def _metadata(reply: Reply) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode(), value.decode("ascii", errors="replace"))
        for name, value in reply.headers
        if not name.startswith(b"inference-")
    )
