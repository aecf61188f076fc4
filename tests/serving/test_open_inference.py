"""Tests of the Open Inference Protocol."""

import json
import struct

import numpy as np
import pytest

TEXTS = ["the room was good", "a", "soup is never bad but cold and slow again"]


def tensor(texts, name="text", **more):
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts, **more}


def infer(served, body, model="single", **headers):
    status, content = served.post(f"/v2/models/{model}/infer", body, **headers)
    outputs = {each["name"]: each for each in content.get("outputs", [])} if status == 200 else content
    return status, outputs


@pytest.mark.parametrize("name", ["single", "multi", "value"])
def test_outputs_are_those_of_predict(served, classifiers, name):
    status, outputs = infer(served, {"inputs": [tensor(TEXTS)], "id": "7"}, name)
    predictions = classifiers[name].predict(TEXTS)
    assert status == 200
    for field in ("label", "score", "exit_layer", "stopped_by"):
        if field in outputs:
            assert outputs[field]["data"] == [prediction[field] for prediction in predictions]
            assert outputs[field]["shape"] == [len(TEXTS)]
    if name == "multi":
        on = np.array(outputs["decisions"]["data"]).reshape(outputs["decisions"]["shape"])
        labels = classifiers[name].labels
        expected = [[entry["label"] for entry in prediction["labels"]] for prediction in predictions]
        assert [sorted(labels[place] for place in np.flatnonzero(row)) for row in on] == [
            sorted(row) for row in expected
        ]
    assert ("label" in outputs) == (name == "single") and ("score" in outputs) == (name != "multi")


def test_binary_tensors(served, classifiers):
    data = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in TEXTS)
    names = ["label", "score", "scores", "exit_layer"]
    head = json.dumps(
        {
            "inputs": [
                {"name": "text", "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": name != "label"}} for name in names],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"}
    status, headers, content = served.request("POST", "/v2/models/single/infer", head + data, headers)
    assert status == 200
    length = int(headers["inference-header-content-length"])
    answer, rest = json.loads(content[:length]), content[length:]
    predictions = classifiers["single"].predict(TEXTS, top_k="all")
    assert answer["outputs"][0]["data"] == [prediction["label"] for prediction in predictions]
    sizes = [each["parameters"]["binary_data_size"] for each in answer["outputs"][1:]]
    score, scores, layers = np.split(np.frombuffer(rest, np.uint8), np.cumsum(sizes)[:-1])
    assert sum(sizes) == len(rest)
    assert score.view("<f4").tolist() == [prediction["score"] for prediction in predictions]
    assert layers.view("<i8").tolist() == [prediction["exit_layer"] for prediction in predictions]
    assert scores.view("<f4").reshape(3, -1).max(axis=1).tolist() == score.view("<f4").tolist()


def test_pairs_in_both_forms(served, classifiers):
    pairs = [("the phone", "was awful"), ("a", "soup")]
    _, two = infer(served, {"inputs": [tensor([a for a, _ in pairs]), tensor([b for _, b in pairs], "text_pair")]})
    flat = [text for pair in pairs for text in pair]
    _, one = infer(served, {"inputs": [{**tensor(flat), "shape": [2, 2]}]})
    expected = [prediction["score"] for prediction in classifiers["single"].predict(pairs)]
    assert two["score"]["data"] == expected and one["score"]["data"] == expected


def test_classification_parameter(served, classifiers):
    body = {"inputs": [tensor(TEXTS)], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]}
    _, outputs = infer(served, body)
    assert outputs["scores"]["shape"] == [3, 2]
    value, place, label = outputs["scores"]["data"][0].split(":")
    first = classifiers["single"].predict(TEXTS[:1])[0]
    assert label == first["label"] == classifiers["single"].labels[int(place)]
    assert float(value) == pytest.approx(first["score"], abs=1e-6)


def test_parameters_stop_rows(served):
    body = {"inputs": [tensor(TEXTS)], "parameters": {"threshold": 1.0, "max_exit": 2, "timeout": 60_000_000}}
    _, outputs = infer(served, body)
    assert set(outputs["exit_layer"]["data"]) == {2} and set(outputs["stopped_by"]["data"]) == {"max_exit"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [{**tensor(TEXTS), "datatype": "FP32"}]},
        {"inputs": [{**tensor(TEXTS), "shape": [4]}]},
        {"inputs": [{**tensor(TEXTS), "shape": [2**40]}]},
        {"inputs": [{**tensor(TEXTS), "shape": [3, 3]}]},
        {"inputs": [{**tensor(TEXTS), "data": [1, 2, 3]}]},
        {"inputs": [{**tensor(TEXTS), "parameters": {"binary_data_size": 10}}]},
        {"inputs": [tensor(TEXTS, "text_pair")]},
        {"inputs": [tensor(TEXTS), tensor(TEXTS[:2], "text_pair")]},
        {"inputs": [tensor([])]},
        {"inputs": [tensor(["a"] * 33)]},
        {"inputs": [tensor(TEXTS)], "outputs": [{"name": "none"}]},
        {"inputs": [tensor(TEXTS)], "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
        {"inputs": [tensor(TEXTS)], "parameters": {"timeout": -1}},
        {"inputs": [tensor(TEXTS)], "parameters": 1},
        {"inputs": [tensor(TEXTS, parameters=[])]},
        {"inputs": [tensor(TEXTS, parameters={"binary_data_size": 0})]},
        {"inputs": [tensor(TEXTS, parameters={"binary_data_size": "5"}, data=None)]},
        {"inputs": [tensor(TEXTS, parameters={"shared_memory_region": "x"})]},
        {"inputs": [tensor(TEXTS)], "outputs": [{"name": "label", "parameters": {"shared_memory_region": "x"}}]},
        {"inputs": [tensor(TEXTS)], "outputs": [{"name": "label", "parameters": {"binary_data": "true"}}]},
        {"inputs": [tensor(TEXTS)], "parameters": {"binary_data_output": 1}},
        {"inputs": [tensor(TEXTS)], "id": 5},
    ],
)
def test_errors(served, body):
    status, content = served.post("/v2/models/single/infer", body)
    assert status == 400 and isinstance(content["error"], str)


@pytest.mark.parametrize(
    ("size", "data", "words"),
    [
        (5, b"\1\0\0\0ab", "1 bytes follow"),
        (5, b"\1\0\0\0a\1\0\0\0b", "5 bytes follow"),
        (6, b"\1\0\0\0a", "is 6, and 5 bytes are left"),
        (4, b"\1\0\0\0a", "end within an element"),
        (-1, b"\1\0\0\0a", "a number of bytes, not -1"),
        (8, b"\4\0\0\0\xed\xa0\x80a", "element 0 is no UTF-8"),
    ],
)
def test_errors_of_binary_tensors(served, size, data, words):
    head = json.dumps({"inputs": [tensor(["a"], parameters={"binary_data_size": size}, data=None)]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, _, content = served.request("POST", "/v2/models/single/infer", head + data, headers)
    assert status == 400 and words in content["error"]


def test_requests_to_the_repository(served):
    def index(body):
        return served.post("/v2/repository/index", body)

    assert index(b"") == index({}) == index({"ready": True}) and index({})[0] == 200
    assert index("{")[0] == index({"ready": 1})[0] == 400
    status, content = served.post("/v2/repository/models/single/load", {"parameters": {"config": "{}"}})
    assert status == 400 and "parameters" in content["error"]


def test_models_and_health(served):
    assert served.get("/v2")[1]["name"] == "itrex-sweet"
    assert served.get("/v2/health/live")[0] == served.get("/v2/health/ready")[0] == 200
    status, metadata = served.get("/v2/models/multi")
    assert status == 200 and metadata["outputs"][0]["name"] == "decisions"
    version = metadata["versions"][0]
    assert served.get(f"/v2/models/multi/versions/{version}/ready")[0] == 200
    for path in ("/v2/models/none", "/v2/models/none/ready", "/v2/models/multi/versions/999"):
        assert served.get(path)[0] == 404
    assert {each["name"] for each in served.post("/v2/repository/index", {})[1]} == {"single", "multi", "value"}


def test_triton_client(served, classifiers):
    pytest.importorskip("geventhttpclient", reason="needs tritonclient[http]")
    client = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with client.InferenceServerClient(f"127.0.0.1:{served.port}") as triton:
        assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("single")
        assert triton.get_model_metadata("single")["platform"] == "itrex_sweet"
        predictions = classifiers["single"].predict(TEXTS)
        for binary in (True, False):
            given = client.InferInput("text", [3], "BYTES")
            given.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_), binary)
            names = ("label", "score", "exit_layer")
            wanted = [client.InferRequestedOutput(name, binary_data=binary) for name in names]
            answer = triton.infer("single", [given], outputs=wanted, timeout=60_000_000, priority=1, request_id="9")
            labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
            assert labels == [prediction["label"] for prediction in predictions]
            assert answer.as_numpy("score").tolist() == [prediction["score"] for prediction in predictions]
            assert answer.get_response()["id"] == "9"
        assert triton.infer("single", [given]).as_numpy("exit_layer").shape == (3,)
        with pytest.raises(Exception, match="no model"):
            triton.infer("none", [given])
        triton.load_model("value")
        assert triton.get_model_repository_index()
