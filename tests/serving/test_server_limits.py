"""Tests of limits, deadlines, cancellation and keys."""

import contextlib
import json
import socket
import struct
import threading
import time

import pytest

from itrex_sweet.cli import main
from itrex_sweet.serving.settings import Settings
from tests.serving.slow_engine import Gate

# Of no certificate.
PRIVATE_KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""
BODY = json.dumps({"inputs": "the room was good"}).encode()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


class Asking(threading.Thread):
    """Sends a request from a thread."""

    def __init__(self, running, body, path="/predict", **headers):
        super().__init__()
        self.running, self.body, self.path, self.headers = running, body, path, headers
        self.start()

    def run(self):
        self.status, self.replied, self.content = self.running.request("POST", self.path, self.body, self.headers)

    def result(self):
        self.join(60)
        return self.status


def occupied(running, gate, **more):
    """Returns a request that is being computed, and waits until it is."""
    gate.close()
    asking = Asking(running, {"inputs": "the room was good", **more})
    gate.wait_until_reached()
    return asking


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_too_many_requests_are_refused_at_once(start, folders, gate):
    running = start({"single": folders["single"]}, Settings(max_concurrent_requests=1), gate.load)
    first = occupied(running, gate)
    status, headers, content = running.request("POST", "/predict", {"inputs": "a"})
    assert status == 429 and content["error_type"] == "Overloaded" and int(headers["retry-after"]) >= 1
    assert running.get("/health")[0] == 200
    gate.open()
    assert first.result() == 200 and running.post("/predict", {"inputs": "a"})[0] == 200


def test_too_many_waiting_texts_are_refused(start, folders, gate):
    running = start({"single": folders["single"]}, Settings(max_waiting_rows=2), gate.load)
    first = occupied(running, gate)
    status, headers, _ = running.request("POST", "/predict", {"inputs": [["a"], ["soup"]]})
    assert status == 429 and int(headers["retry-after"]) >= 1
    gate.open()
    assert first.result() == 200


def infer(**parameters):
    texts = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    return {"inputs": [texts], "parameters": parameters}


# path, body with a deadline of one millisecond, headers
LATE = {
    "predict": ("/predict", {"inputs": "a", "deadline_ms": 1}, {}),
    "header": ("/predict", {"inputs": "a"}, {"X-Deadline-Ms": "1"}),
    "batch": ("/predict", {"inputs": [["a"], ["soup"]], "deadline_ms": 1}, {}),
    "infer": ("/v2/models/single/infer", infer(timeout=1000), {}),
    "infer in milliseconds": ("/v2/models/single/infer", infer(deadline_ms=1), {}),
    "infer with a header": ("/v2/models/single/infer", infer(), {"X-Deadline-Ms": "1"}),
    "vllm": ("/classify", {"input": "a", "deadline_ms": 1}, {}),
    "v1": ("/v1/classify", {"input": ["a"]}, {"X-Deadline-Ms": "1"}),
    "infinity": ("/classify", {"input": ["a"], "raw_scores": False, "deadline_ms": 1}, {}),
    "hub": ("/", {"inputs": "a", "parameters": {"deadline_ms": 1}}, {}),
}


def message_of(content):
    """Returns the message of an error, in the form of any protocol."""
    error = content["error"]
    return error["message"] if isinstance(error, dict) else error


def test_expired_requests_are_dropped(start, folders, gate):
    running = start({"single": folders["single"]}, Settings(), gate.load)
    first = occupied(running, gate)
    late = {name: Asking(running, body, path, **headers) for name, (path, body, headers) in LATE.items()}
    scheduler = running.server.models.get().scheduler
    until(lambda: scheduler.snapshot().unanswered == 2 + len(LATE))
    time.sleep(0.01)
    gate.open()
    assert first.result() == 200
    assert {name: each.result() for name, each in late.items()} == dict.fromkeys(LATE, 504)
    assert all("deadline passed" in message_of(each.content) for each in late.values())
    assert scheduler.snapshot().expired == len(LATE) and scheduler.snapshot().rows_answered[0] <= 1


@pytest.mark.parametrize("name", LATE)
def test_requests_within_their_deadline_are_answered(served, name):
    path, body, headers = LATE[name]
    text = json.dumps(body).replace('"deadline_ms": 1', '"deadline_ms": 60000').replace("1000}", "60000000}")
    status, _, content = served.request("POST", path, json.loads(text), dict.fromkeys(headers, "60000"))
    assert status == 200, content


def test_deadline_of_the_server_is_that_of_requests_without_one(start, folders, gate):
    running = start({"single": folders["single"]}, Settings(default_deadline_ms=500.0), gate.load)
    first = occupied(running, gate, deadline_ms=60_000)
    default, own = Asking(running, {"inputs": "a"}), Asking(running, {"inputs": "a", "deadline_ms": 60_000})
    until(lambda: running.server.models.get().scheduler.snapshot().unanswered == 3)
    time.sleep(0.6)
    gate.open()
    assert (first.result(), default.result(), own.result()) == (200, 504, 200)


def test_a_client_that_leaves_cancels_its_rows(start, folders, gate):
    running = start({"single": folders["single"]}, Settings(), gate.load)
    first = occupied(running, gate)
    scheduler = running.server.models.get().scheduler
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head + BODY)
        until(lambda: scheduler.snapshot().unanswered == 2)
    until(lambda: scheduler.snapshot().cancelled == 1)
    assert scheduler.snapshot().unanswered == 1
    gate.open()
    assert first.result() == 200 and running.server.application.in_work == 0


@pytest.mark.parametrize(("size", "chunked"), [(1000, False), (1000, True), (10_000_000, True)])
def test_long_bodies_are_refused(start, folders, size, chunked):
    running = start({"single": folders["single"]}, Settings(payload_limit=1000))
    with contextlib.closing(running.connect()) as connection:
        body = json.dumps({"inputs": "a" * size}).encode()
        parts = iter([body[place : place + 65536] for place in range(0, len(body), 65536)]) if chunked else body
        with contextlib.suppress(ConnectionError):
            connection.request("POST", "/predict", parts, {"content-type": "application/json"}, encode_chunked=chunked)
            assert connection.getresponse().status == 413
    assert running.post("/predict", {"inputs": "a" * 900})[0] == 200


def test_slow_heads_and_bodies_end(start, folders):
    running = start({"single": folders["single"]}, Settings(read_seconds=0.3))
    for sent, expected in (
        (b"", b""),
        (b"POST /predict HTTP/1.1\r\nhost:", b""),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{", b"HTTP/1.1 408"),
    ):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
            client.sendall(sent)
            assert client.recv(12) == expected
    assert running.post("/predict", {"inputs": "a"})[0] == 200


def test_other_types_and_encodings_are_refused(served):
    for headers in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        assert served.request("POST", "/predict", BODY, headers)[0] == 415
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
        assert served.request("POST", "/predict", BODY, {"content-type": kind})[0] == 200


def test_an_offered_upgrade_is_ignored(served):
    """Java's client offers HTTP/2 so."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAA"}
    body = json.dumps({"inputs": "Upgrade: h2c\r\n\r\nupgrade: the room was good"}).encode()
    assert served.request("POST", "/predict", body, headers)[0] == 200
    expected = served.request("POST", "/predict", body)
    with contextlib.closing(served.connect()) as connection:
        for _ in range(2):
            connection.request("POST", "/predict", body, {"Content-Type": "application/json", **headers})
            assert json.loads(connection.getresponse().read()) == expected[2]


def test_clients_that_close_with_requests_in_work_cause_no_error(served, caplog):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    for seconds in (0.0, 0.001, 0.002, 0.004, 0.008) * 4:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset when closed
            client.sendall((head + BODY) * 20)
            time.sleep(seconds)
    assert served.post("/predict", {"inputs": "the room was good"})[0] == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_keys(start, folders):
    running = start({"single": folders["single"]}, Settings(api_keys=("one", "two")))
    for header in ({}, {"Authorization": "Bearer three"}, {"Authorization": "one"}, {"Authorization": "Bearer on"}):
        status, _, content = running.request("POST", "/predict", BODY, header)
        assert (status, content) == (401, b"")
    assert running.get("/info")[0] == running.get("/v2/models/single")[0] == 401
    for key in ("one", "two"):
        assert running.request("POST", "/predict", BODY, {"Authorization": f"Bearer {key}"})[0] == 200
    assert running.get("/health")[0] == running.get("/v2/health/ready")[0] == 200


@pytest.mark.parametrize("what", ["absent", "no certificate", "key alone"])
def test_a_certificate_that_cannot_be_used_ends_the_start(start, folders, tmp_path, what):
    path = tmp_path / "tls.pem"
    if what != "absent":
        path.write_text("nothing" if what == "no certificate" else PRIVATE_KEY)
    with pytest.raises(OSError, match=r"tls\.pem cannot be used"):
        start({"single": folders["single"]}, certificate=str(path), key=str(path))


@pytest.mark.parametrize("port", ["65536", "-1", "x"])
def test_ports_out_of_range_are_usage_errors(folders, port, capsys):
    assert main(["serve", str(folders["single"]), "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


def test_answers_of_many_clients_are_their_own(served, classifiers):
    texts = [
        f"the {first} was {second} and {third}"
        for first in ("room", "soup", "phone")
        for second in ("good", "bad", "cold", "slow")
        for third in ("quick", "warm", "never")
    ]
    expected = {
        text: prediction["score"] for text, prediction in zip(texts, classifiers["single"].predict(texts), strict=True)
    }
    wrong, rounding = [], 0.0 if classifiers["single"].backend.name == "native" else 1e-5

    def ask(own):
        with contextlib.closing(served.connect()) as connection:
            for text in own:
                connection.request("POST", "/predict", json.dumps({"inputs": text}))
                found = json.loads(connection.getresponse().read())[0]["score"]
                if abs(found - expected[text]) > rounding:
                    wrong.append(text)

    threads = [threading.Thread(target=ask, args=(texts[place::6] * 3,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
