"""Runs a server: sockets, signals, loading, replacing models and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from itrex_sweet.classifier import Classifier
from itrex_sweet.errors import ConfigError, SweetError
from itrex_sweet.extras import naming_extras
from itrex_sweet.serving.application import Application
from itrex_sweet.serving.connection import Connection
from itrex_sweet.serving.memory import keep_out_of_collections
from itrex_sweet.serving.models import Models, Source, folders_changed, manifests
from itrex_sweet.serving.observability import observability_routes
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.protocol import Route
from itrex_sweet.serving.settings import Address, Settings

if TYPE_CHECKING:
    from itrex_sweet.serving.grpc_server import GrpcServer

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Listener(uvicorn.Server):
    """A server of uvicorn whose signals are handled here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """Serves models until a signal or `stop` ends it.

    Args:
        sources: folders and names of the models.
        load: loads a classifier from a folder.
        routes: of all protocols; those of metrics and of the live page are added.
        observer: writes logs and traces; by default none are written.
    """

    def __init__(
        self,
        sources: list[Source],
        load: Callable[[str], Classifier],
        routes: Iterable[Route],
        settings: Settings,
        address: Address,
        observer: Observer | None = None,
    ):
        self.sources, self.load, self.routes = sources, load, tuple(routes)
        self.settings, self.address = settings, address
        self.observer = observer or Observer()
        self.grpc: GrpcServer | None = None
        self._stopping: asyncio.Event | None = None
        self._reloads: set[asyncio.Task] = set()

    def run(self) -> None:
        """Serves until a signal arrives. SIGTERM and SIGINT stop, SIGHUP loads every folder again.

        Raises:
            SweetError: a model cannot be loaded.
            OSError: the address is not free, or the certificate cannot be used.
        """
        uvloop.run(self.serve(lambda _: keep_out_of_collections()))

    async def serve(self, started: Callable[[int], Any] | None = None) -> None:
        """Serves in the running event loop.

        Args:
            started: called with the port once every model is loaded.
        """
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self.models = Models(self.sources, self.load, self.settings, self.observer)
        routes = (*self.routes, *observability_routes(self.observer, self.settings.live_page))
        self.application = Application(self.settings, self.models, routes, self.observer)
        config = self._config()
        bound = self._socket()
        port = bound.getsockname()[1]
        listener = _Listener(config)
        self.application.inference.requests = lambda: len(listener.server_state.tasks) + self._grpc_calls()
        seen = manifests(self.models)  # before loading: what is written meanwhile is loaded again
        serving = watch = None
        with self._signals(loop):
            try:
                if not self.address.reuse_port:
                    serving = await self._listen(listener, bound)
                if await self._loaded():
                    serving = serving or await self._listen(listener, bound)
                    logger.info("ready: %s", ", ".join(self.models.sources))
                    if started is not None:
                        started(port)
                    if self.settings.watch_seconds is not None:
                        watch = asyncio.ensure_future(self._watch(self.settings.watch_seconds, seen))
                    await self._stopping.wait()
            finally:
                if watch is not None:
                    watch.cancel()
                self.models.is_closing = True  # not ready from here on
                logger.info("stopping: %d requests in work", self.application.in_work)
                listener.should_exit = True
                if self.grpc is not None:
                    await self.grpc.stop(self.settings.drain_seconds)
                if serving is not None:
                    await serving
                bound.close()
                self.application.close()
                self.models.close()
                await asyncio.to_thread(self.observer.close)
        logger.info("stopped")

    def stop(self) -> None:
        """Stops the server. Called in its event loop."""
        if self._stopping is not None:
            self._stopping.set()

    async def _loaded(self) -> bool:
        """Loads all models; returns whether the server is still wanted."""
        loading = asyncio.ensure_future(self.models.load_all())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        return True

    def reload(self) -> None:
        """Loads every folder again, one after the other, and serves what it holds then."""
        self._reload_of(list(self.models.sources))

    def _reload_of(self, names: list[str]) -> None:
        async def replace() -> None:
            for name in names:
                with contextlib.suppress(SweetError, OSError, MemoryError):  # logged there
                    await self.models.replace(name)

        task = asyncio.ensure_future(replace())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _watch(self, seconds: float, seen: dict[str, Any]) -> None:
        """Serves new artifacts; `seen` are the `manifests` of those that are served."""
        while True:
            await asyncio.sleep(seconds)
            if names := folders_changed(self.models, seen):
                seen |= manifests(self.models)
                self._reload_of(names)

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        handlers = dict.fromkeys(_SIGNALS, self.stop) | {signal.SIGHUP: self.reload}
        added = []
        before = {number: signal.getsignal(number) for number in handlers}
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            for number, handler in handlers.items():
                loop.add_signal_handler(number, handler)
                added.append(number)
        try:
            yield
        finally:
            for number in added:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    async def _listen(self, listener: _Listener, bound: socket.socket) -> asyncio.Future:
        """Accepts connections from here on; returns a future of the end.

        Raises:
            OSError: the port of gRPC is in use.
            MissingExtraError: gRPC is not installed.
        """
        if self.address.grpc_port is not None:
            self.grpc = self._grpc_server(self.address)
            await self.grpc.start()
            logger.info("listening on %s port %d for gRPC", self.address.host, self.grpc.port)
        bound.listen(_BACKLOG)
        logger.info("listening on %s port %d", *bound.getsockname()[:2])
        return asyncio.ensure_future(listener.serve([bound]))

    def _grpc_server(self, address: Address) -> GrpcServer:
        with naming_extras("gRPC"):
            from itrex_sweet.serving.grpc_server import GrpcServer
        if address.key_password is not None:
            raise ConfigError("gRPC needs a private key without a password.")
        files = [address.certificate, address.key]
        certificate, key = (None if name is None else Path(name).read_bytes() for name in files)
        return GrpcServer(self.application, address.host, address.grpc_port, certificate, key, address.reuse_port)

    def _grpc_calls(self) -> int:
        return 0 if self.grpc is None else self.grpc.in_work

    def _socket(self) -> socket.socket:
        """Returns a socket with the server's address, which listens unless others may have it too.

        Raises:
            OSError: the address is in use, or not of this machine.
        """
        host, port = self.address.host, self.address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if not self.address.reuse_port:
                return socket.create_server((host, port), family=family, backlog=_BACKLOG)
            with contextlib.ExitStack() as on_error:
                bound = on_error.enter_context(socket.socket(family))
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as create_server
                bound.bind((host, port))
                on_error.pop_all()
            return bound
        except OSError as error:
            raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}.") from None

    def _config(self) -> uvicorn.Config:
        """Returns the settings of uvicorn, with the certificate read.

        Raises:
            OSError: certificate or key cannot be read, or do not belong together.
        """
        address, settings = self.address, self.settings
        config = uvicorn.Config(
            self.application,
            http=Connection.with_timeout(settings.read_seconds),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
            backlog=_BACKLOG,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            ssl_keyfile_password=address.key_password,
        )
        try:
            config.load()
        except OSError as error:  # also errors of TLS
            files = f"certificate {address.certificate} and key {address.key}"
            raise OSError(f"{files} cannot be used: {error.strerror or error}.") from None
        return config
