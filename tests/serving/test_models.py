"""Tests of replacing a model while it serves, and of stopping."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import itrex_sweet
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.serving.models import Source
from itrex_sweet.serving.routes import ROUTES
from itrex_sweet.serving.server import Server
from itrex_sweet.serving.settings import Address, Settings
from tests.serving.slow_engine import Gate
from tests.serving.test_server_limits import Asking, occupied

LOAD = "/v2/repository/models/own/load"


@pytest.fixture
def folder(folders, tmp_path):
    shutil.copytree(folders["single"], tmp_path / "own")
    return tmp_path / "own"


def version(running):
    return running.get("/v2/models/own")[1]["versions"]


def put(folder, source):
    """Replaces an artifact in one step, as writers do."""
    shutil.copytree(source, folder.with_name("next"))
    folder.rename(folder.with_name(f"before-{time.monotonic_ns()}"))
    folder.with_name("next").rename(folder)


def test_a_model_is_replaced_without_losing_requests(start, folders, folder, classifiers):
    running = start({"own": folder}, Settings(reload_route=True))
    text = "the room was good"
    expected = {name: classifiers[name].predict([text], top_k="all")[0] for name in ("single", "multi")}
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(running.post("/predict", {"inputs": text}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for name in ("multi", "single", "multi"):
        put(folder, folders[name])
        assert running.post(LOAD, {})[0] == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert version(running) == ["4"] and {status for status, _ in answers} == {200}
    scores = {tuple(entry["score"] for entry in ranking) for _, ranking in answers}
    known = [expected["single"]["labels"], expected["multi"]["scores"]]
    assert scores <= {tuple(entry["score"] for entry in ranking) for ranking in known}
    assert running.post("/predict", {"inputs": text})[1][0]["score"] == expected["multi"]["scores"][0]["score"]


def test_a_request_ends_with_the_model_that_it_began_with(start, folders, folder):
    gate = Gate()
    running = start({"own": folder}, Settings(reload_route=True), gate.load)
    before = running.server.models.get()
    first = occupied(running, gate)
    put(folder, folders["multi"])
    loading = threading.Thread(target=running.post, args=(LOAD, {}))
    loading.start()
    gate.open()
    loading.join()
    assert first.result() == 200 and running.server.models.get() is not before


@pytest.mark.parametrize("damage", ["weights", "settings", "absent"])
def test_a_damaged_artifact_is_refused_and_the_model_goes_on(start, folder, damage):
    running = start({"own": folder}, Settings(reload_route=True))
    answer = running.post("/predict", {"inputs": "the room was good"})
    if damage == "absent":
        shutil.rmtree(folder)
    else:
        name = "model.safetensors" if damage == "weights" else "sweet_config.json"
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content[: len(content) // 2])
    status, content = running.post(LOAD, {})
    assert status == 424 and content["error"]
    assert version(running) == ["1"] and running.post("/predict", {"inputs": "the room was good"}) == answer


def test_a_new_artifact_is_found(start, folders, folder):
    running = start({"own": folder}, Settings(watch_seconds=0.05))
    put(folder, folders["multi"])
    end = time.monotonic() + 30
    while version(running) != ["2"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_loading_on_request_is_off_by_default(start, folder):
    assert start({"own": folder}).post(LOAD, {})[0] == 404


def test_a_server_whose_model_cannot_be_loaded_ends(start, tmp_path):
    with pytest.raises(ArtifactError):
        start({"own": tmp_path / "none"})


def test_sources():
    assert Source.of("own=/models/a") == Source("own", "/models/a")
    assert Source.of("/models/a/").name == "a"
    for wrong in ("a b=/x", "=/x", "own=", "../=x"):
        with pytest.raises(ConfigError):
            Source.of(wrong)


def test_a_folder_that_is_gone_is_not_looked_up_on_the_hub(start, folder, monkeypatch):
    """A repository there may have its name, and belong to somebody else."""
    monkeypatch.chdir(folder.parent.parent)
    source = Source.of(f"own={folder.parent.name}/{folder.name}")
    running = start({"own": source.folder}, Settings(reload_route=True))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: folders_asked.append(name) or folder)
    folders_asked: list[str] = []
    shutil.move(folder, folder.with_name("moved"))
    assert running.post(LOAD, {})[0] == 424 and version(running) == ["1"]
    assert [name for name in folders_asked if not os.path.isabs(name)] == []


SERVE = "import sys; from itrex_sweet.cli import main; sys.exit(main(sys.argv[1:]))"


def serving(folder, *arguments, **environment):
    """Starts `itrex-sweet serve` in a process and returns it and its port, once it is ready."""
    command = [sys.executable, "-c", SERVE, "serve", f"own={folder}", "--hostname", "127.0.0.1", "-p", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    port = None
    for line in process.stderr:
        if (found := re.search(r"listening on \S+ port (\d+)", line)) is not None:
            port = int(found[1])
        if "ready: own" in line:
            return process, port
    raise AssertionError("it ended")


class Remote:
    def __init__(self, port):
        self.port = port

    def request(self, *args, **options):
        from tests.serving.conftest import Running

        return Running.request(self, *args, **options)

    def connect(self):
        from tests.serving.conftest import Running

        return Running.connect(self)


def test_the_command_answers_what_it_has_when_it_stops(folder, classifiers):
    process, port = serving(folder, MAX_CLIENT_BATCH_SIZE="1000")
    remote = Remote(port)
    texts = [["the room was good and the soup was cold " * 3]] * 1000
    asking = [Asking(remote, {"inputs": texts, "threshold": 1.0}) for _ in range(2)]
    time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert [each.result() for each in asking] == [200, 200]
    assert all(len(each.content) == 1000 for each in asking)
    assert process.wait(60) == 0
    process.stderr.close()


def test_a_server_imports_neither_torch_nor_transformers(folder):
    script = (
        "import sys, threading, os, signal, time, json, http.client\n"
        "from itrex_sweet.serving.models import Source\n"
        "from itrex_sweet.serving.routes import ROUTES\n"
        "from itrex_sweet.serving.server import Server\n"
        "from itrex_sweet.serving.settings import Address, Settings\n"
        "from itrex_sweet.classifier import load\n"
        "import asyncio\n"
        f"server = Server([Source('own', {str(folder)!r})], load, ROUTES, Settings(), Address('127.0.0.1', 0))\n"
        "def ask(port):\n"
        "    connection = http.client.HTTPConnection('127.0.0.1', port)\n"
        "    connection.request('POST', '/predict', json.dumps({'inputs': 'the room was good'}))\n"
        "    print(connection.getresponse().status)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "asyncio.run(server.serve(lambda port: threading.Thread(target=ask, args=(port,)).start()))\n"
        "assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["200"]


def test_a_port_in_use_is_reported(served, folder):
    command = [sys.executable, "-c", SERVE, "serve", str(folder), "--hostname", "127.0.0.1", "-p", str(served.port)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1 and f"port {served.port}" in finished.stderr


def test_a_server_that_owns_the_process_keeps_loaded_models_out_of_collections(folders, monkeypatch):
    seen = []
    source, address = Source("single", str(folders["single"])), Address("127.0.0.1", 0)
    server = Server([source], itrex_sweet.load, ROUTES, Settings(), address)

    def keep():
        seen.append(server.models.is_ready)
        server.stop()

    monkeypatch.setattr("itrex_sweet.serving.server.keep_out_of_collections", keep)
    server.run()
    assert seen == [True]
