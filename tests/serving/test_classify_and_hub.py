"""Tests of `/classify` in both forms, and of the Hub's text classification."""

import pytest

from itrex_sweet.serving.settings import Settings

TEXTS = ["the room was good", "soup is never bad but cold"]


def plain(ranking):
    return [{"label": entry["label"], "score": entry["score"]} for entry in ranking]


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_vllm(served, classifiers, path):
    status, answer = served.post(path, {"model": "single", "input": TEXTS})
    assert status == 200 and answer["object"] == "list" and answer["model"] == "single"
    assert answer["id"].startswith("classify-") and answer["usage"]["total_tokens"] == 14
    for place, prediction in enumerate(classifiers["single"].predict(TEXTS)):
        row = answer["data"][place]
        assert (row["index"], row["label"], row["num_classes"]) == (place, prediction["label"], 3)
        assert max(row["probs"]) == pytest.approx(prediction["score"], abs=1e-6)
        assert (row["exit_layer"], row["stopped_by"]) == (prediction["exit_layer"], prediction["stopped_by"])
    assert served.post(path, {"input": TEXTS[0]})[1]["data"][0]["label"] == answer["data"][0]["label"]
    logits = served.post(path, {"input": TEXTS[0], "use_activation": False})[1]["data"][0]["probs"]
    assert sum(logits) != pytest.approx(1.0, abs=1e-3)


def test_infinity(served, classifiers, start, folders):
    expected = [prediction["labels"] for prediction in classifiers["single"].predict(TEXTS, top_k="all")]
    _, by_field = served.post("/classify", {"input": TEXTS, "raw_scores": False})
    other = start({"single": folders["single"]}, Settings(classify_shape="infinity"))
    _, by_setting = other.post("/classify", {"input": TEXTS})
    for answer in (by_field, by_setting):
        assert answer["object"] == "classify" and [plain(row) for row in answer["data"]] == expected
    assert other.post("/v1/classify", {"input": TEXTS})[1]["object"] == "list"


def test_truncation_to_a_length(served):
    long, short = (
        served.post("/classify", {"input": "soup " * 20, **more}) for more in ({}, {"truncate_prompt_tokens": 5})
    )
    assert long[1]["usage"]["total_tokens"] == 22 and short[1]["usage"]["total_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": [1, 2]}, 422),
        ({"input": [["a", "b", "c"]]}, 422),
        ({"input": []}, 400),
        ({"input": "a", "model": "none"}, 404),
        ({"input": "a", "truncate_prompt_tokens": 0}, 422),
        ({"input": "a", "truncate_prompt_tokens": 1}, 422),
    ],
)
def test_errors_of_classify(served, body, status):
    got, content = served.post("/classify", body)
    assert got == status == content["error"]["code"] and content["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/models/single", "/invocations"])
def test_hub(served, classifiers, path):
    expected = [prediction["labels"] for prediction in classifiers["single"].predict(TEXTS, top_k="all")]
    status, answer = served.post(path, {"inputs": TEXTS})
    assert status == 200 and [plain(row) for row in answer] == expected
    _, best = served.post(path, {"inputs": TEXTS[0], "parameters": {"top_k": 1, "threshold": 1.0}})
    assert len(best) == len(best[0]) == 1 and best[0][0]["exit_layer"] == 4
    pair = {"text": "the phone", "text_pair": "was awful"}
    _, paired = served.post(path, {"inputs": pair})
    assert plain(paired[0]) == classifiers["single"].predict([pair], top_k="all")[0]["labels"]
    alone = served.post(path, {"inputs": {"text": TEXTS[0], "text_pair": None}})
    assert alone == served.post(path, {"inputs": TEXTS[0]})


def test_function_to_apply(served):
    def scores(function):
        answer = served.post("/", {"inputs": TEXTS[0], "parameters": {"function_to_apply": function}})[1]
        return {entry["label"]: entry["score"] for entry in answer[0]}

    assert sum(scores("softmax").values()) == pytest.approx(1.0, abs=1e-5)
    logits, sigmoid = scores("none"), scores("sigmoid")
    for label, logit in logits.items():
        assert sigmoid[label] == pytest.approx(1 / (1 + 2.718281828**-logit), abs=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": 1},
        {"inputs": [1]},
        {"inputs": {"text": 1}},
        {"inputs": "a", "parameters": {"top_k": 0}},
        {"inputs": "a", "parameters": {"function_to_apply": "x"}},
        {"inputs": "a", "parameters": []},
    ],
)
def test_errors_of_the_hub(served, body):
    status, content = served.post("/", body)
    assert status == 422 and isinstance(content["error"], str)


def test_inference_client(served, classifiers):
    from huggingface_hub import InferenceClient

    client = InferenceClient(base_url=f"http://127.0.0.1:{served.port}")
    answer = client.text_classification(TEXTS[0], top_k=2)
    expected = classifiers["single"].predict(TEXTS[:1], top_k=2)[0]["labels"]
    assert [(entry.label, entry.score) for entry in answer] == [(entry["label"], entry["score"]) for entry in expected]
