"""Starts servers of tiny models in a thread of the test process."""

import asyncio
import contextlib
import http.client
import json
import threading

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")
pytest.importorskip("uvloop", reason="needs the extra [serve]")
pytest.importorskip("orjson", reason="needs the extra [serve]")

import uvloop

import itrex_sweet
from itrex_sweet.serving.models import Source
from itrex_sweet.serving.routes import ROUTES
from itrex_sweet.serving.server import Server
from itrex_sweet.serving.settings import Address, Settings
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

FOLDERS = {"single": SINGLE_LABEL, "multi": MULTI_LABEL, "value": REGRESSION}


class Running:
    """A server that runs in a thread, and requests to it."""

    def __init__(self, folders, settings=None, load=itrex_sweet.load, port=0, **address):
        sources = [Source(name, str(folder)) for name, folder in folders.items()]
        address = Address("127.0.0.1", port, **address)
        self.server = Server(sources, load, ROUTES, settings or Settings(), address)
        self._started = threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(60)
        if self.error is not None:
            self._thread.join()
            raise self.error

    def _run(self):
        async def serve():
            self.loop = asyncio.get_running_loop()
            await self.server.serve(self._ready)

        try:
            uvloop.run(serve())  # as `Server.run`
        except BaseException as error:
            self.error = error
        finally:
            self._started.set()

    def _ready(self, port):
        self.port = port
        self._started.set()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def request(self, method, path, body=None, headers=None, raw=False):
        """Returns status, headers and content; a body that is not bytes is sent as JSON, and JSON is read."""
        with contextlib.closing(self.connect()) as connection:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            connection.request(method, path, body, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        if not raw and response.headers.get("content-type") == "application/json":
            content = json.loads(content)
        return response.status, response.headers, content

    def post(self, path, body, **headers):
        status, _, content = self.request("POST", path, body, headers)
        return status, content

    def get(self, path):
        status, _, content = self.request("GET", path)
        return status, content

    def stop(self):
        with contextlib.suppress(RuntimeError):  # it has stopped
            self.loop.call_soon_threadsafe(self.server.stop)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    for name, task in FOLDERS.items():
        tiny_artifact(root / name, tokenizer=tiny_tokenizer(), task=task)
    return {name: root / name for name in FOLDERS}


@pytest.fixture(scope="session")
def served(folders):
    """Starts one server of three models, with the default settings but the reload route."""
    running = Running(folders, Settings(reload_route=True))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def classifiers(folders):
    return {name: itrex_sweet.load(folder) for name, folder in folders.items()}


@pytest.fixture
def start():
    """Returns a function that starts a server, which ends with the test."""
    running = []

    def begin(*args, **options):
        running.append(Running(*args, **options))
        return running[-1]

    yield begin
    for each in running:
        each.stop()
