"""Tests of the Open Inference Protocol over gRPC."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("grpc", reason="needs the extra [grpc]")

import grpc

from itrex_sweet.errors import ConfigError
from itrex_sweet.serving.grpc_messages import HEALTH, HEALTH_MESSAGES, MESSAGES, SERVICE
from itrex_sweet.serving.grpc_methods import METHODS, HttpRequest
from itrex_sweet.serving.grpc_server import _headers
from itrex_sweet.serving.settings import Settings
from itrex_sweet.serving.tensors import packed
from tests.serving.certificates import PASSWORD, make_certificate
from tests.serving.conftest import Running
from tests.serving.slow_engine import Gate

TEXTS = ["the room was good", "a", "soup is never bad but cold and slow again"]
CODES = grpc.StatusCode


@pytest.fixture(scope="module")
def served(folders):
    running = Running(folders, Settings(reload_route=True), grpc_port=0)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("encrypted"), PASSWORD)


@contextlib.contextmanager
def channel_to(running):
    with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc.port}") as channel:
        yield channel


def caller(channel, name):
    method = METHODS[name]
    return channel.unary_unary(f"/{SERVICE}/{name}", method.request.SerializeToString, method.response.FromString)


def call(running, name, message=None, timeout=30, metadata=()):
    """Returns the response and the trailing metadata."""
    with channel_to(running) as channel:
        message = METHODS[name].request() if message is None else message
        response, ended = caller(channel, name).with_call(message, timeout=timeout, metadata=metadata)
        return response, dict(ended.trailing_metadata())


def failure(running, name, message=None, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(running, name, message, **options)
    return caught.value


def request(texts=TEXTS, model="single", raw=True, name="text", **more):
    message = MESSAGES.ModelInferRequest(model_name=model, **more)
    add(message, texts, name, raw)
    return message


def add(message, texts, name="text", raw=True):
    values = [text.encode() for text in texts]
    tensor = message.inputs.add(name=name, datatype="BYTES", shape=[len(values)])
    if raw:
        message.raw_input_contents.append(packed(values))
    else:
        tensor.contents.bytes_contents.extend(values)


def outputs(response):
    """Returns name → values, of raw or typed contents."""
    found = {}
    for place, tensor in enumerate(response.outputs):
        if response.raw_output_contents:
            raw = response.raw_output_contents[place]
            kinds = {"FP32": "<f4", "INT64": "<i8"}
            values = strings(raw) if tensor.datatype == "BYTES" else np.frombuffer(raw, kinds[tensor.datatype]).tolist()
        else:
            [(_, contents)] = tensor.contents.ListFields()
            values = [value.decode() if isinstance(value, bytes) else value for value in contents]
        assert len(values) == np.prod(tensor.shape)
        found[tensor.name] = values
    return found


def strings(raw):
    values = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        values.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return values


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", ["single", "multi", "value"])
def test_outputs_are_those_of_predict(served, classifiers, name, raw):
    response, metadata = call(served, "ModelInfer", request(model=name, raw=raw, id="7"))
    found, predictions = outputs(response), classifiers[name].predict(TEXTS)
    assert (response.model_name, response.model_version, response.id) == (name, "1", "7")
    assert bool(response.raw_output_contents) == raw and metadata["x-request-id"]
    assert ("label" in found) == (name == "single") and ("score" in found) == (name != "multi")
    for field in ("label", "score", "exit_layer", "stopped_by"):
        if field in found:
            assert found[field] == [prediction[field] for prediction in predictions]


def test_pairs_requested_outputs_and_parameters(served, classifiers):
    pairs = [("the phone", "was awful"), ("a", "soup")]
    message = request([a for a, _ in pairs])
    add(message, [b for _, b in pairs], "text_pair")
    message.outputs.add(name="scores").parameters["classification"].int64_param = 1
    message.outputs.add(name="exit_layer")
    message.parameters["max_exit"].int64_param = 1
    response, _ = call(served, "ModelInfer", message)
    found, predictions = outputs(response), classifiers["single"].predict(pairs, max_exit=1)
    assert list(found) == ["scores", "exit_layer"]
    assert found["exit_layer"] == [1, 1]
    assert [value.split(":")[2] for value in found["scores"]] == [prediction["label"] for prediction in predictions]


def test_no_text_is_an_error_as_in_http(served):
    assert failure(served, "ModelInfer", request([])).code() == CODES.INVALID_ARGUMENT


def test_health_and_metadata(served):
    assert call(served, "ServerLive")[0].live and call(served, "ServerReady")[0].ready
    assert call(served, "ModelReady", MESSAGES.ModelReadyRequest(name="single"))[0].ready
    assert call(served, "ServerMetadata")[0].name == "itrex-sweet"
    response, _ = call(served, "ModelMetadata", MESSAGES.ModelMetadataRequest(name="single", version="1"))
    assert response.platform == "itrex_sweet" and list(response.versions) == ["1"]
    assert [(each.name, each.datatype, list(each.shape)) for each in response.inputs] == [
        ("text", "BYTES", [-1]),
        ("text_pair", "BYTES", [-1]),
    ]
    assert {"label", "score", "exit_layer", "scores"} <= {each.name for each in response.outputs}
    with channel_to(served) as channel:
        check = channel.unary_unary(
            f"/{HEALTH}.Health/Check",
            HEALTH_MESSAGES.HealthCheckRequest.SerializeToString,
            HEALTH_MESSAGES.HealthCheckResponse.FromString,
        )
        for service in ("", SERVICE):
            assert check(HEALTH_MESSAGES.HealthCheckRequest(service=service), timeout=30).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            check(HEALTH_MESSAGES.HealthCheckRequest(service="other"), timeout=30)
        assert caught.value.code() == CODES.NOT_FOUND


def test_repository_of_models(folders, start):
    running = start(folders, Settings(reload_route=True), grpc_port=0)
    assert {each.name: each.version for each in call(running, "RepositoryIndex")[0].models} == dict.fromkeys(
        folders, "1"
    )
    call(running, "RepositoryModelLoad", MESSAGES.RepositoryModelLoadRequest(model_name="value"))
    assert {each.name: each.version for each in call(running, "RepositoryIndex")[0].models}["value"] == "2"
    loading = METHODS["RepositoryModelLoad"].request(model_name="value")
    loading.parameters["config"].string_param = "{}"
    assert failure(running, "RepositoryModelLoad", loading).code() == CODES.INVALID_ARGUMENT
    ready = call(running, "RepositoryIndex", METHODS["RepositoryIndex"].request(ready=True))[0].models
    assert [each.state for each in ready] == ["READY"] * len(folders)
    assert call(running, "ModelInfer", request(model="value"))[0].model_version == "2"
    old = failure(running, "ModelInfer", request(model="value", model_version="1"))
    assert old.code() == CODES.NOT_FOUND and "version 2" in old.details()


def _with(change):
    message = request()
    change(message)
    return message


def _set(field, value):
    return lambda message: setattr(message.inputs[0], field, value)


HOSTILE = {
    "no model": (request(model="none"), CODES.NOT_FOUND, "there is no model 'none'"),
    "empty name": (request(model=""), CODES.NOT_FOUND, "there is no model ''"),
    "a path as name": (request(model="../single"), CODES.NOT_FOUND, "there is no model '../single'"),
    "no version": (request(model_version="9"), CODES.NOT_FOUND, "version 1, not '9'"),
    "datatype": (_with(_set("datatype", "FP32")), CODES.INVALID_ARGUMENT, "datatype must be BYTES"),
    "shape": (_with(lambda m: m.inputs[0].shape.append(3)), CODES.INVALID_ARGUMENT, "do not fit the shape"),
    "negative shape": (_with(lambda m: m.inputs[0].shape.append(-1)), CODES.INVALID_ARGUMENT, "its shape must be"),
    "no input": (MESSAGES.ModelInferRequest(model_name="single"), CODES.INVALID_ARGUMENT, "inputs: a list"),
    "raw of one": (_with(lambda m: m.inputs.add(name="b")), CODES.INVALID_ARGUMENT, "1 for 2 inputs"),
    "both contents": (
        _with(lambda m: m.inputs[0].contents.bytes_contents.append(b"a")),
        CODES.INVALID_ARGUMENT,
        "exclude each other",
    ),
    "cut raw": (
        _with(lambda m: m.raw_input_contents.__setitem__(0, b"\x09\0\0\0abc")),
        CODES.INVALID_ARGUMENT,
        "end within an element",
    ),
    "no UTF-8": (
        _with(lambda m: m.raw_input_contents.__setitem__(0, packed([b"\xff", b"", b""]))),
        CODES.INVALID_ARGUMENT,
        "no UTF-8",
    ),
    "typed contents of another type": (
        MESSAGES.ModelInferRequest(
            model_name="single",
            inputs=[{"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"int64_contents": [3]}}],
        ),
        CODES.INVALID_ARGUMENT,
        "bytes_contents, not int64_contents",
    ),
    "a path as version": (request(model_version="1/x"), CODES.NOT_FOUND, "no version '1/x'"),
    "output": (_with(lambda m: m.outputs.add(name="none")), CODES.INVALID_ARGUMENT, "there is no output 'none'"),
    "infinite threshold": (
        _with(lambda m: setattr(m.parameters["threshold"], "double_param", float("nan"))),
        CODES.INVALID_ARGUMENT,
        "a finite number",
    ),
    "threshold": (
        _with(lambda m: setattr(m.parameters["threshold"], "string_param", "high")),
        CODES.INVALID_ARGUMENT,
        "threshold",
    ),
    "binary_data_size": (
        _with(lambda m: setattr(m.inputs[0].parameters["binary_data_size"], "int64_param", 1)),
        None,
        "",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_requests(served, case):
    message, code, words = HOSTILE[case]
    if code is None:
        assert outputs(call(served, "ModelInfer", message)[0])
        return
    error = failure(served, "ModelInfer", message)
    assert error.code() == code and re.search(words, error.details()), error


def test_bytes_that_are_no_message(served):
    with channel_to(served) as channel:
        for method, code in (("ModelInfer", CODES.INVALID_ARGUMENT), ("ModelStreamInfer", CODES.UNIMPLEMENTED)):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{SERVICE}/{method}")(b"\xff\xff\xff", timeout=30)
            assert caught.value.code() == code
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{HEALTH}.Health/Check")(b"\xff\xff\xff", timeout=30)
        assert caught.value.code() == CODES.INVALID_ARGUMENT
    assert call(served, "ServerLive")[0].live


def test_messages_over_the_limit_are_refused(folders, start):
    running = start(folders, Settings(payload_limit=1000), grpc_port=0)
    assert failure(running, "ModelInfer", request(["x" * 2000])).code() == CODES.RESOURCE_EXHAUSTED
    assert failure(running, "ModelInfer", request(["a"] * 33)).code() in (
        CODES.RESOURCE_EXHAUSTED,
        CODES.INVALID_ARGUMENT,
    )


def test_a_limit_above_that_of_grpc(folders, start):
    running = start({"single": folders["single"]}, Settings(payload_limit=2**40), grpc_port=0)
    assert call(running, "ModelInfer", request())[0].outputs


def test_api_keys(folders, start):
    running = start(folders, Settings(api_keys=("secret",)), grpc_port=0)
    assert call(running, "ServerReady")[0].ready
    error = failure(running, "ModelInfer", request())
    assert (error.code(), error.details()) == (CODES.UNAUTHENTICATED, "unauthorized")
    assert call(running, "ModelInfer", request(), metadata=[("authorization", "Bearer secret")])


def test_options_in_metadata(served, classifiers):
    found = outputs(call(served, "ModelInfer", request(), metadata=[("x-max-exit", "1")])[0])
    assert found["exit_layer"] == [1, 1, 1]
    assert failure(served, "ModelInfer", request(), metadata=[("x-max-exit", "no")]).code() == CODES.INVALID_ARGUMENT
    _, metadata = call(served, "ModelInfer", request(), metadata=[("x-request-id", "mine")])
    assert metadata["x-request-id"] == "mine"


@pytest.fixture
def gate():
    """Returns a gate that is open when the servers of the test stop."""
    gate = Gate()
    yield gate
    gate.open()


def test_deadlines_and_cancellations_free_the_queue(folders, start, gate):
    running = start({"single": folders["single"]}, Settings(), gate.load, grpc_port=0)
    scheduler = next(iter(running.server.models)).scheduler
    gate.close()
    assert failure(running, "ModelInfer", request(), timeout=0.1).code() == CODES.DEADLINE_EXCEEDED
    with channel_to(running) as channel:
        pending = [caller(channel, "ModelInfer").future(request(), timeout=60) for _ in range(4)]
        wait_until(lambda: scheduler.snapshot().unanswered >= 4 * len(TEXTS))
        for each in pending:
            each.cancel()
        wait_until(lambda: running.server.grpc.in_work == 0)
    gate.open()
    wait_until(lambda: scheduler.snapshot().unanswered == 0)
    counts = scheduler.snapshot()
    assert counts.cancelled + counts.expired >= 4
    assert outputs(call(running, "ModelInfer", request())[0])


def wait_until(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_too_many_requests(folders, start, gate):
    running = start({"single": folders["single"]}, Settings(max_concurrent_requests=1), gate.load, grpc_port=0)
    gate.close()
    with channel_to(running) as channel:
        first = caller(channel, "ModelInfer").future(request(), timeout=60)
        gate.wait_until_reached()
        error = failure(running, "ModelInfer", request())
        assert error.code() == CODES.RESOURCE_EXHAUSTED
        assert int(dict(error.trailing_metadata())["retry-after"]) >= 1
        gate.open()
        assert outputs(first.result())


def test_calls_in_work_are_answered_when_the_server_stops(folders, gate):
    running = Running({"single": folders["single"]}, Settings(), gate.load, grpc_port=0)
    gate.close()
    with channel_to(running) as channel:
        pending = caller(channel, "ModelInfer").future(request(), timeout=60)
        gate.wait_until_reached()
        threading.Timer(0.3, gate.open).start()
        running.stop()
        assert len(outputs(pending.result())["label"]) == len(TEXTS)


def test_tls(folders, start, certificate):
    files = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    running = start({"single": folders["single"]}, grpc_port=0, **files)
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{running.server.grpc.port}", credentials) as channel:
        assert outputs(caller(channel, "ModelInfer")(request(), timeout=30))
    assert failure(running, "ServerLive", timeout=5).code() in (CODES.UNAVAILABLE, CODES.DEADLINE_EXCEEDED)


def test_encrypted_key_is_refused(folders, encrypted):
    files = {"certificate": str(encrypted[0]), "key": str(encrypted[1]), "key_password": PASSWORD}
    with pytest.raises(ConfigError, match="private key without a password"):
        Running({"single": folders["single"]}, grpc_port=0, **files)


def test_answers_are_those_of_http_from_many_threads(served, classifiers):
    """HTTP and gRPC share the scheduler; no answer goes to another call."""
    expected = {text: classifiers["single"].predict([text])[0]["score"] for text in TEXTS}
    wrong = []

    def ask(place):
        text = TEXTS[place % len(TEXTS)]
        with channel_to(served) as channel:
            for _ in range(20):
                if place % 2:
                    found = outputs(caller(channel, "ModelInfer")(request([text]), timeout=30))["score"]
                else:
                    found = [served.post("/predict", {"inputs": text})[1][0]["score"]]
                if found != [expected[text]]:
                    wrong.append((text, found))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_port_in_use(folders):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"cannot listen on .* for gRPC"):
        Running(folders, grpc_port=taken.getsockname()[1])


def test_servers_share_a_port_only_if_both_allow_it(folders, served):
    with pytest.raises(OSError, match=r"cannot listen on .* for gRPC"):
        Running({"single": folders["single"]}, grpc_port=served.server.grpc.port)


def test_messages_equal_those_of_a_client_library():
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="needs tritonclient[grpc]")
    for name, ours in vars(MESSAGES).items():
        theirs = getattr(service, name, None)
        if theirs is not None:
            assert fields_of(ours.DESCRIPTOR) == fields_of(theirs.DESCRIPTOR)


def fields_of(descriptor):
    return {
        (
            each.name,
            each.number,
            each.type,
            each.message_type and each.message_type.name,
            each.message_type and each.message_type.GetOptions().map_entry and tuple(fields_of(each.message_type)),
            each.containing_oneof and each.containing_oneof.name,
        )
        for each in descriptor.fields
    }


def test_triton_client(served, classifiers):
    client = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc]")
    with client.InferenceServerClient(f"127.0.0.1:{served.server.grpc.port}") as triton:
        assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("single")
        assert triton.get_model_metadata("single").platform == "itrex_sweet"
        predictions = classifiers["single"].predict(TEXTS)
        given = client.InferInput("text", [3], "BYTES")
        given.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
        wanted = [client.InferRequestedOutput(name) for name in ("label", "score", "exit_layer")]
        answer = triton.infer("single", [given], outputs=wanted, timeout=60_000_000, priority=1, request_id="9")
        assert [label.decode() for label in answer.as_numpy("label")] == [each["label"] for each in predictions]
        assert answer.as_numpy("score").tolist() == [each["score"] for each in predictions]
        with pytest.raises(Exception, match="no model"):
            triton.infer("none", [given])
        triton.load_model("value")
        assert len(triton.get_model_repository_index().models) == 3


def test_without_grpc_the_extra_is_named(folders):
    script = (
        "import sys; sys.modules['grpc'] = None\n"
        "from itrex_sweet.cli import main\n"
        f"sys.exit(main(['serve', {str(folders['single'])!r}, '--port', '0', '--grpc-port', '0']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "pip install 'itrex-sweet[grpc]'" in ended.stderr, ended.stderr


def test_mutated_messages(served, classifiers):
    """Messages with random bytes changed get an answer or a refusal of the client's fault, and the server goes on."""
    rng = np.random.default_rng(0)
    message = request(id="7")
    message.outputs.add(name="scores").parameters["classification"].int64_param = 2
    message.parameters["max_exit"].int64_param = 1
    whole = np.frombuffer(message.SerializeToString(), np.uint8)
    refusals = (CODES.INVALID_ARGUMENT, CODES.NOT_FOUND, CODES.DEADLINE_EXCEEDED)
    codes = set()
    with channel_to(served) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for _ in range(300):
            content = whole[: rng.integers(1, len(whole) + 1)].copy()
            content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
            try:
                infer(content.tobytes(), timeout=30)
            except grpc.RpcError as error:
                codes.add(error.code())
    assert codes and codes <= set(refusals), codes
    assert outputs(call(served, "ModelInfer", request())[0])["label"] == [
        prediction["label"] for prediction in classifiers["single"].predict(TEXTS)
    ]


@pytest.mark.parametrize(
    ("remaining", "given", "expected"),
    [(0.5, {}, b"500.000"), (1e300, {}, b"1000000000.000"), (None, {}, None), (0.5, {"x-deadline-ms": "7"}, b"7")],
)
def test_the_deadline_of_a_call_becomes_a_header(remaining, given, expected):
    class Context:
        def invocation_metadata(self):
            return [("content-type", "application/grpc"), *given.items()]

        def time_remaining(self):
            return remaining

    headers = _headers(HttpRequest("GET", "/v2"), Context())
    assert headers == ({} if expected is None else {b"x-deadline-ms": expected})
