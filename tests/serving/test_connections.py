"""Tests of what one connection may take: heads, trailers and pipelined requests."""

import contextlib
import json
import socket
import threading

import pytest

from itrex_sweet.serving import connection
from itrex_sweet.serving.settings import Settings
from tests.serving.test_server_limits import BODY, Asking, gate, occupied, until

__all__ = ["gate"]
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def received(client, end=b""):
    """Reads until the server closes the connection, or until an end."""
    parts = b""
    while not (end and parts.endswith(end)) and (part := client.recv(65536)):
        parts += part
    return parts


def connect(running):
    return socket.create_connection(("127.0.0.1", running.port), timeout=30)


ENDLESS = {
    "header": (HEAD + b"X-A: ", b"a", b"HTTP/1.1 431 "),
    "headers": (HEAD, b"X-A: 1\r\n", b"HTTP/1.1 431 "),
    "address": (b"GET /", b"a", b"HTTP/1.1 431 "),
    "trailer": (CHUNKED + b"1\r\n{\r\n0\r\nX-A: ", b"a", None),
    "chunk extension": (CHUNKED + b"1;x=", b"a", None),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_heads_and_trailers_close_the_connection(served, what):
    """A client must not fill the memory of the server with what belongs to no body."""
    start, more, status = ENDLESS[what]
    with connect(served) as client, pytest.raises(ConnectionError):
        client.sendall(start)
        for _ in range(1000):  # more than sockets hold
            client.sendall(more * (65536 // len(more)))
        pytest.fail("the server reads on")
    if status:
        with connect(served) as client:  # not a byte more, which would reset the connection before the answer is read
            client.sendall(start + more * ((connection.MAX_HEAD - len(start)) // len(more) + 1))
            assert received(client).startswith(status)
    assert served.post("/predict", {"inputs": "a"})[0] == 200


def test_large_heads_and_bodies_are_read(served):
    """The limit is on heads alone: on bodies it is `--payload-limit`."""
    headers = {"X-Long": "a" * (connection.MAX_HEAD - 1000)}
    assert served.request("POST", "/predict", BODY, headers)[0] == 200
    text = "soup " * 300_000
    body = json.dumps({"inputs": text}).encode()
    assert served.request("POST", "/predict", body)[0] == 200
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:9], body[9:]))
    with connect(served) as client:
        client.sendall(CHUNKED + parts + b"0\r\nX-Trailer: 1\r\n\r\n" + HEAD + b"Connection: close\r\n\r\n")
        assert received(client).count(b"HTTP/1.1 200") == 1


def test_pipelined_requests_are_answered_in_order(served):
    texts = ["a", "the room was good", "soup is never bad"] * 50
    alone = {text: served.post("/predict", {"inputs": text})[1] for text in set(texts)}
    bodies = [
        json.dumps({"inputs": text, "more": "x" * (place * 37 % 700)}).encode() for place, text in enumerate(texts)
    ]
    requests = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    requests[-1] = requests[-1].replace(b"Host: x", b"Connection: close")
    with connect(served) as client:
        client.sendall(b"".join(requests))
        answers = received(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers] == [alone[text] for text in texts]


@pytest.mark.parametrize("request_", [HEALTH, PLAIN], ids=["without a body", "with a body"])
def test_few_pipelined_requests_wait_in_the_server(start, folders, gate, request_, monkeypatch):
    """Each takes many times the memory of its bytes: 17 MB of them took 1.2 GB."""
    waiting, unread = [], []

    def data_received(self, data):
        original(self, data)
        waiting.append(len(self.pipeline))
        unread.append(len(self._unparsed))

    original = connection.Connection.data_received
    monkeypatch.setattr(connection.Connection, "data_received", data_received)
    running = start({"single": folders["single"]}, Settings(), gate.load)
    first = occupied(running, gate)
    requests, count = request_ * (4_000_000 // len(request_)), 0
    with connect(running) as client:
        client.sendall(PLAIN)  # waits for the engine

        def send():
            with contextlib.suppress(OSError):  # closed below
                client.sendall(requests)

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: max(waiting) > 1)
        gate.open()
        while count < 4000:
            count += client.recv(65536).count(b"HTTP/1.1 200 OK")
        client.shutdown(socket.SHUT_RDWR)
        sending.join(30)
    assert 1 < max(waiting) < 1000 and max(unread) < 1_000_000
    assert first.result() == 200


def test_requests_that_a_stopping_server_cannot_answer_get_503(start, folders, gate, caplog):
    running = start({"single": folders["single"]}, Settings(drain_seconds=0.2), gate.load)
    first = occupied(running, gate)
    second = Asking(running, {"inputs": "soup"})
    until(lambda: running.server.application.in_work == 2)
    running.loop.call_soon_threadsafe(running.server.stop)
    for each in (first, second):
        assert each.result() == 503 and each.content["error_type"] == "Unhealthy"
        assert int(each.replied["retry-after"]) >= 1
    gate.open()
    assert not any(record.exc_info for record in caplog.records)


def sending(running, size, length, stack):
    """Returns a connection that has sent a part of its body."""
    client = stack.enter_context(connect(running))
    client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length + b" " * size)
    return client


def test_bodies_that_arrive_slowly_keep_no_request_out(start, folders):
    running = start({"single": folders["single"]}, Settings(max_concurrent_requests=2))
    unfinished = running.server.application.unfinished
    with contextlib.ExitStack() as stack:
        clients = [sending(running, 10, len(BODY) + 10, stack) for _ in range(20)]
        until(lambda: unfinished.size == 200)
        assert running.post("/predict", {"inputs": "a"})[0] == 200
        for client in clients:
            client.sendall(BODY)
            assert received(client, b"]").startswith(b"HTTP/1.1 200")
    assert unfinished.size == 0 and running.server.application.in_work == 0


def test_bodies_that_arrive_slowly_take_bounded_memory(start, folders):
    running = start({"single": folders["single"]}, Settings(max_concurrent_requests=2, payload_limit=1000))
    unfinished = running.server.application.unfinished
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sending(running, 900, 1000, stack)
        until(lambda: unfinished.size == 1800)
        client = sending(running, 300, 1000, stack)
        assert received(client, b"}").startswith(b"HTTP/1.1 429")
        until(lambda: unfinished.size == 1800)
        assert running.post("/predict", {"inputs": "a"})[0] == 200
    until(lambda: unfinished.size == 0)
