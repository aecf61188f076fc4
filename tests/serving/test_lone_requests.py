"""Tests of the thread that computes a request: the event loop's if the request is alone and short."""

import socket
import threading

import pytest

import itrex_sweet
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.serving import inference
from itrex_sweet.serving.settings import Settings
from tests.serving.test_server_limits import until

pytestmark = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")


@pytest.fixture
def threads():
    return []


@pytest.fixture
def running(start, folders, threads):
    """Starts a server that notes the thread of each run of the engine, and knows how long one takes."""

    def load(folder):
        classifier = itrex_sweet.load(folder)
        answer = classifier.backend.answer

        def noting(*arguments):
            threads.append(threading.current_thread())
            return answer(*arguments)

        classifier.backend.answer = noting
        return classifier

    running = start({"single": folders["single"]}, Settings(), load)
    for _ in range(3):
        ask(running)
    threads.clear()
    return running


def ask(running):
    assert running.post("/predict", {"inputs": "the room was good", "threshold": 0.5})[0] == 200


def test_a_lone_request_is_computed_by_the_event_loop(running, threads, monkeypatch):
    monkeypatch.setattr(inference, "_HERE_SECONDS", 1e9)
    ask(running)
    assert threads == [running._thread]


def test_a_long_request_is_computed_by_another_thread(running, threads, monkeypatch):
    monkeypatch.setattr(inference, "_HERE_SECONDS", 1e-9)
    ask(running)
    assert threads and running._thread not in threads


def test_a_request_beside_others_is_computed_by_another_thread(running, threads, monkeypatch):
    monkeypatch.setattr(inference, "_HERE_SECONDS", 1e9)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        until(lambda: running.server.application.unfinished.size == 1)
        ask(running)
    assert threads and running._thread not in threads


def test_a_request_that_others_join_while_it_is_tokenized_is_computed_by_another_thread(running, threads, monkeypatch):
    monkeypatch.setattr(inference, "_HERE_SECONDS", 1e9)
    monkeypatch.setattr(inference, "_SHORT", 0)  # texts are tokenized by another thread
    model, reading, go_on = running.server.models.get(), threading.Event(), threading.Event()
    read = model.read

    def waiting(*arguments):
        reading.set()
        go_on.wait(60)
        return read(*arguments)

    monkeypatch.setattr(model, "read", waiting)
    asking = threading.Thread(target=ask, args=(running,))
    asking.start()
    assert reading.wait(60)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        until(lambda: running.server.application.unfinished.size == 1)
        go_on.set()
        asking.join(60)
    assert threads and running._thread not in threads


def test_threads_wake_before_a_lone_request_is_tokenized(running, monkeypatch):
    model = running.server.models.get()
    seen = []
    read = model.classifier.read
    monkeypatch.setattr(model.classifier.backend, "expect_call", lambda: seen.append("expected"))
    monkeypatch.setattr(model.classifier, "read", lambda *arguments: seen.append("read") or read(*arguments))
    ask(running)
    assert seen == ["expected", "read"]
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        until(lambda: running.server.application.unfinished.size == 1)
        ask(running)
    assert seen[2:] == ["read"]  # others run
